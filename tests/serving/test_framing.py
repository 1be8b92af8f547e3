"""Where a request ends, by the grammar of RFC 9112, compared with gunicorn's own parser."""

from __future__ import annotations

import io
from dataclasses import dataclass

from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.http.errors import NoMoreData, ParseException
from hypothesis import example, given
from hypothesis import strategies as st

from service.serving.framing import MAX_BODY_BYTES, MAX_CHUNKED_BYTES, MAX_HEAD_BYTES, Framing

_CONFIG = Config()
for _name, _value in {
    "limit_request_line": 8190,
    "limit_request_fields": 64,
    "limit_request_field_size": 8190,
}.items():
    _CONFIG.set(_name, _value)

_TOKEN = st.text("abcXYZ019-!#$%&'*+.^`|~", min_size=1, max_size=12)
_CASED = st.lists(st.booleans(), min_size=20, max_size=20)
_OWS = st.text(" \t", max_size=3)


@dataclass(frozen=True)
class _Source:
    """Bytes, and how many of them were read."""

    data: io.BytesIO

    def recv(self, size: int) -> bytes:
        return self.data.read(size)


def _cased(name: str, upper: list[bool]) -> str:
    return "".join(char.upper() if up else char.lower() for char, up in zip(name, upper * 2, strict=False))


@st.composite
def _fields(draw: st.DrawFn) -> list[str]:
    names = st.text("abcxyz-", min_size=1, max_size=10).map(lambda name: f"X-{name}")
    values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
    return [
        f"{draw(names)}:{draw(_OWS)}{draw(values)}{draw(_OWS)}\r\n" for _ in range(draw(st.integers(0, 4)))
    ]


@st.composite
def _chunked(draw: st.DrawFn) -> bytes:
    """`chunked-body` (§7.1), with extensions and a trailer."""
    coded = b""
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=300), max_size=6)):
        size = f"{len(chunk):x}"
        size = "0" * draw(st.integers(0, 3)) + (size.upper() if draw(st.booleans()) else size)
        extension = draw(st.sampled_from(["", ";a", ";a=b", ' ; a="b c"', ";a=b;c"]))
        coded += f"{size}{extension}\r\n".encode() + chunk + b"\r\n"
    trailer = draw(st.sampled_from(["", "X-Sum: 1\r\n", "X-Sum: 1\r\nX-More: 2\r\n"]))
    return coded + b"0" * draw(st.integers(1, 3)) + f"\r\n{trailer}\r\n".encode()


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A lawful request, whole."""
    before, behind = draw(_fields()), draw(_fields())
    upper = draw(_CASED)
    line = f"{draw(st.sampled_from(['GET', 'POST', 'PUT', 'DELETE']))} /{draw(_TOKEN)} HTTP/1.1\r\n"
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    body, framing = b"", ""
    if kind == "length":
        body = draw(st.binary(max_size=500))
        framing = f"{_cased('content-length', upper)}:{draw(_OWS)}{len(body)}{draw(_OWS)}\r\n"
    elif kind == "chunked":
        body = draw(_chunked())
        framing = f"{_cased('transfer-encoding', upper)}:{draw(_OWS)}{_cased('chunked', upper)}\r\n"
    if draw(st.booleans()):
        framing += f"Expect:{draw(_OWS)}{_cased('100-continue', upper)}\r\n"
    empty = "\r\n" if draw(st.booleans()) else ""
    return (empty + line + "".join([*before, framing, *behind]) + "\r\n").encode() + body


def _ends(request: bytes, then: bytes, steps: list[int]) -> tuple[int, Framing]:
    """Feed the bytes step by step: how many were there when it was complete."""
    framing, received, at = Framing(), bytearray(), 0
    everything = request + then
    while at < len(everything):
        step = steps.pop() if steps else len(everything)
        received += everything[at : at + step]
        at += step
        if framing.look(received):
            return len(received), framing
    return -1, framing


@given(requests(), st.binary(max_size=40), st.lists(st.integers(1, 60), max_size=80))
def test_a_lawful_request_ends_where_its_grammar_says(request: bytes, then: bytes, steps: list[int]) -> None:
    """RFC 9112 §6: however it is cut on its way, and whatever follows it on the connection."""
    _, framing = _ends(request, then, list(steps))
    assert framing.end == len(request)
    assert not framing.is_last


@given(requests(), st.data())
def test_a_request_is_not_complete_before_its_last_byte(request: bytes, data: st.DataObject) -> None:
    """A thread that takes it earlier would have to wait for its client."""
    cut = data.draw(st.integers(0, len(request) - 1))
    framing = Framing()
    assert not framing.look(request[:cut])
    assert framing.look(request[:cut], is_all=True)
    assert framing.is_last


@given(requests())
def test_gunicorn_reads_the_same_request(request: bytes) -> None:
    """The parser that decides finds its end at the same byte, without asking for more."""
    source = _Source(io.BytesIO(request))
    parser = RequestParser(_CONFIG, source, ("127.0.0.1", 1))
    message = next(parser)
    message.body.read()
    assert not source.data.read()
    assert not parser.unreader.take_buffered()


@st.composite
def _spoiled(draw: st.DrawFn) -> bytes:
    """A request into which something was put that does not belong there."""
    request = draw(requests())
    at = draw(st.integers(0, len(request)))
    odd = draw(
        st.sampled_from(
            [b"\n", b"\r", b"\0", b" ", b":", b"\r\n", b"\r\n\r\n", b";", b"0\r\n\r\n", b"\xff",
             b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n"]
        )
    )  # fmt: skip
    return request[:at] + odd + request[at + draw(st.integers(0, 2)) :]


@given(_spoiled())
@example(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nab")
@example(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n")
@example(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
def test_no_byte_behind_a_request_is_read_as_its_part(request: bytes) -> None:
    """What we call one request gunicorn calls one too, or it refuses it, or the connection ends after it."""
    framing = Framing()
    framing.look(request, is_all=True)
    assert framing.end is not None
    source = _Source(io.BytesIO(request[: framing.end]))
    parser = RequestParser(_CONFIG, source, ("127.0.0.1", 1))
    try:
        message = next(parser)
        message.body.read()
    except (ParseException, NoMoreData, StopIteration):
        return
    agreed = not source.data.read() and not parser.unreader.take_buffered()
    assert agreed or framing.is_last


def _complete_at(request: bytes, upto: int) -> Framing:
    framing = Framing()
    framing.look(request[:upto])
    return framing


def test_more_than_the_application_takes_is_not_waited_for() -> None:
    """64 KiB of a body are waited for; of more only as much as it takes to refuse it."""
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    exact = head % MAX_BODY_BYTES
    assert _complete_at(exact + b"x" * MAX_BODY_BYTES, len(exact) + MAX_BODY_BYTES - 1).end is None
    for length in (MAX_BODY_BYTES + 1, 10**17, 10**40):
        framing = _complete_at(head % length, 10**6)
        assert framing.end is not None
        assert framing.is_last

    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"10000\r\n" + b"x" * MAX_BODY_BYTES + b"\r\n0\r\n\r\n"
    assert _complete_at(whole, len(whole)).end == len(whole)
    too_large = head + b"10001\r\n" + b"x" * (MAX_BODY_BYTES + 1) + b"\r\n0\r\n\r\n"
    assert _complete_at(too_large, len(head) + 7 + MAX_BODY_BYTES).end is None
    assert _complete_at(too_large, len(head) + 7 + MAX_BODY_BYTES + 1).is_last
    padded = head + b"1;" + b"x" * 5000 + b"\r\nx\r\n"
    padded += (b"1;" + b"x" * 5000 + b"\r\nx\r\n") * 30
    assert _complete_at(padded, MAX_CHUNKED_BYTES).end is None
    assert _complete_at(padded, len(padded)).is_last


def test_what_can_never_become_a_request_is_not_waited_for() -> None:
    """RFC 9112 §2.2, §3: an endless line, a bare LF, a head without an end, and odd chunks."""
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for odd in (
        b"GET /" + b"x" * 8200,
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nX: y\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 6 + 1),
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: payment\r\n\r\n",
        head + b"xyz\r\n",
        head + b"-1\r\n",
        head + b"0x1\r\n",
        head + b"1" * 17 + b"\r\n",
        head + b"1\r\nab\r\n",
        head + b"1;" + b"x" * 8200,
        head + b"0\r\nX: y\n",
        head + b"0\r\n" + b"X: y\r\n" * 1400,
    ):
        framing = Framing()
        assert framing.look(odd), odd[:60]
        assert framing.is_last
    assert _complete_at(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 6 + 1), 10**6).head_too_large
    assert _complete_at(b"GET /" + b"x" * 9000, 10**6).line_too_long


def test_who_waits_to_be_asked_for_a_body_is_known() -> None:
    """RFC 9110 §10.1.1: `100-continue`, in any case, and never in HTTP/1.0."""
    for version, value, awaits in (("1.1", "100-Continue", True), ("1.0", "100-continue", False)):
        head = f"POST / HTTP/{version}\r\nContent-Length: 5\r\neXPECT: {value} \r\n\r\n".encode()
        framing = Framing()
        assert not framing.look(head)
        assert framing.awaits_continue is awaits
