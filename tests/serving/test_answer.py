"""An answer that is written in one piece is what gunicorn would have written."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidResponseHeader
from gunicorn.http.wsgi import Response
from hypothesis import given
from hypothesis import strategies as st

from service.serving.answer import Answer, AnsweringWorker
from service.serving.connection import Connection, Exchange
from service.serving.request import Parser
from tests.support.cases import each_of

CFG = Config()
TOKEN = string.ascii_letters + string.digits + "!#$%&'*+.^_`|~-"
VISIBLE = "".join(map(chr, [*range(0x21, 0x7F), *range(0xA0, 0x100)]))
HOPPISH = {"connection", "keep-alive", "te", "trailers", "transfer-encoding", "upgrade", "server", "date"}
NAMES = st.text(TOKEN, min_size=1, max_size=9).filter(
    lambda name: name.lower() not in HOPPISH | {"content-length"}
)
HEADERS = st.lists(st.tuples(NAMES, st.text(VISIBLE, max_size=9)), max_size=5)
STATUSES = [
    "200 OK",
    "201 Created",
    "204 No Content",
    "304 Not Modified",
    "404 Not Found",
    "503 Service Unavailable",
]
DATE = re.compile(rb"\r\nDate: [^\r]+")


def asked(method: str, version: str = "1.1", more: str = "") -> Any:
    """A request as gunicorn's parser gives it."""
    return next(
        Parser(
            CFG, Exchange(f"{method} / HTTP/{version}\r\nHost: a\r\n{more}\r\n".encode()), ("127.0.0.1", 1)
        )
    )


def by_gunicorn(req: Any, status: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """What gunicorn's own class writes."""
    wire = Exchange(b"")
    response = Response(req, wire, CFG)
    response.start_response(status, headers)
    response.write(body)
    response.close()
    return bytes(wire.answer)


def written(req: Any, status: str, headers: list[tuple[str, str]], body: bytes, *, is_last: bool) -> bytes:
    """What ours writes."""
    answer = Answer(req, Exchange(b""), CFG)
    answer.start_response(status, headers)
    return answer.written(body, is_last=is_last)


@given(
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from(
        [("1.1", ""), ("1.1", "Connection: close\r\n"), ("1.0", ""), ("1.0", "Connection: keep-alive\r\n")]
    ),
    st.sampled_from(STATUSES),
    HEADERS,
    st.binary(max_size=20),
)
def test_it_is_what_gunicorn_writes(
    method: str, kind: tuple[str, str], status: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    """For each method, version, status, header and body; the date may be a second older."""
    sized = (
        [*headers, ("Content-Length", str(len(body)))] if not status.startswith(("204", "304")) else headers
    )
    req = asked(method, *kind)
    theirs = by_gunicorn(req, status, sized, b"" if method == "HEAD" else body)
    ours = written(req, status, sized, body, is_last=req.should_close())
    assert DATE.sub(b"", ours) == DATE.sub(b"", theirs)
    assert len(DATE.findall(ours)) == 1


def test_a_body_without_a_length_gets_one() -> None:
    """RFC 9112 §6.3: otherwise the end of the connection would be its end."""
    assert b"\r\nContent-Length: 3\r\n\r\nabc" in written(
        asked("GET"), "200 OK", [("A", "b")], b"abc", is_last=False
    )


@each_of(
    ("status", "name", "value"),
    [
        ("200 OK", "A", "b\r\nSet-Cookie: x=1"),
        ("200 OK", "A", "b\n c"),
        ("200 OK", "A", "b\r"),
        ("200 OK", "A", "b\0"),
        ("200 OK", "A", "b\x7f"),
        ("200 OK", "A", "b\u0131"),
        ("200 OK", "A\r\nB", "c"),
        ("200 OK", "A ", "b"),
        ("200 OK", "", "b"),
        ("200 OK", "A:", "b"),
        ("200 OK", "\xc5", "b"),
        ("200 OK\r\nB: c", "A", "b"),
        ("200", "A", "b"),
        ("OK", "A", "b"),
    ],
)
def test_nothing_in_a_head_can_be_read_as_something_else(status: str, name: str, value: str) -> None:
    """RFC 9110 §5.5, RFC 9112 §4: a line that another one could hide in is refused, and its content is not repeated."""
    with pytest.raises(InvalidResponseHeader) as refused:
        written(asked("GET"), status, [(name, value)], b"", is_last=False)
    assert "Set-Cookie" not in str(refused.value)


class _Worker(AnsweringWorker):
    """A worker without its process."""

    def __init__(self, most: int = 100, keepalive: int = 2) -> None:
        self.cfg = Config()
        self.cfg.set("keepalive", keepalive)
        self.cfg.set("post_request", lambda _worker, _req, _environ, answer: self.after.append(answer))
        self.after: list[Any] = []
        self.alive, self.nr, self.max_requests, self.log = True, 0, most, self
        self.closed = False

    def access(self, answer: Answer, _req: Any, environ: Any, took: Any) -> None:
        self.line = answer.status, answer.sent, environ["PATH_INFO"], took.total_seconds() >= 0

    def info(self, *_words: object) -> None:
        """Say nothing."""

    debug = info

    def wsgi(self, environ: Any, start: Any) -> Any:
        start("200 OK", [("Content-Length", "2")])
        return self

    def __iter__(self) -> Any:
        if self.closed:
            raise RuntimeError("it fails")
        return iter([b"o", b"k"])

    def close(self) -> None:
        self.closed = True


def answered(worker: _Worker, more: str = "") -> tuple[bool, bytes]:
    """Whether another request may follow, and what was sent."""
    conn = Connection(None, ("127.0.0.1", 1), ("127.0.0.1", 2))  # type: ignore[arg-type]  # its socket is not used
    conn.sock = Exchange(b"")
    return worker.handle_request(asked("GET", "1.1", more), conn), bytes(conn.sock.answer)


def test_a_worker_answers_logs_and_goes_on() -> None:
    """gunicorn's access log and hooks get what they get from it; the answer's chunks are closed."""
    worker = _Worker()
    goes_on, sent = answered(worker)
    assert goes_on
    assert b"\r\nConnection: keep-alive\r\n" in sent
    assert sent.endswith(b"\r\n\r\nok")
    assert worker.line == ("200 OK", 2, "/", True)
    assert worker.closed
    assert [answer.status for answer in worker.after] == ["200 OK"]


@each_of(
    ("given", "more"),
    [({"most": 1}, ""), ({"keepalive": 0}, ""), ({}, "Connection: close\r\n")],
)
def test_a_last_answer_says_so(given: dict[str, int], more: str) -> None:
    """After as many requests as gunicorn's `max_requests` allows, without keep-alive, and when the client asks for it."""
    goes_on, sent = answered(_Worker(**given), more)
    assert not goes_on
    assert b"\r\nConnection: close\r\n" in sent


def test_an_application_that_fails_sends_nothing() -> None:
    """The worker then answers 500: no part of the answer has been sent. The hook runs all the same."""
    worker = _Worker()
    worker.closed = True
    conn = Connection(None, ("127.0.0.1", 1), ("127.0.0.1", 2))  # type: ignore[arg-type]
    conn.sock = Exchange(b"")
    with pytest.raises(RuntimeError, match="it fails"):
        worker.handle_request(asked("GET"), conn)
    assert not conn.sock.answer
    assert len(worker.after) == 1


def test_a_hook_that_fails_changes_no_answer() -> None:
    """An operator's hook runs after the answer is written: its failure is logged, as by gunicorn."""
    worker = _Worker()
    worker.after = None  # type: ignore[assignment]  # so that the hook fails
    failures: list[str] = []
    worker.exception = failures.append  # type: ignore[attr-defined]
    goes_on, sent = answered(worker)
    assert goes_on
    assert sent.endswith(b"\r\n\r\nok")
    assert failures == ["Exception in post_request hook"]
