"""What is read by hand of headers, parameters and bodies, from their grammars: every way to write it, and nothing else."""

from __future__ import annotations

import base64
import io
import ipaddress
import json
from urllib.parse import quote, quote_plus

import falcon
import falcon.testing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.protocol.client_auth import _basic
from service.protocol.errors import OAuthError
from service.web.auth import bearer_token
from service.web.bodies import media_type, parse_json_object
from service.web.caching import _allowed_headers, _has_already
from service.web.cookies import cookie_values
from service.web.errors import ApiError
from service.web.middleware import ClientAddress
from service.web.params import MalformedParameters, read_form, read_query

_CASES = st.lists(st.booleans(), min_size=20, max_size=20)
_OWS = st.text(" \t", max_size=3)
_TOKEN = st.text("abcXYZ019-!#$%&'*+.^_`|~", min_size=1, max_size=10)


def _cased(word: str, upper: list[bool]) -> str:
    return "".join(c.upper() if up else c.lower() for c, up in zip(word, upper * 2, strict=False))


def _request(**headers: str) -> falcon.Request:
    environ = falcon.testing.create_environ()
    environ.update(headers)
    return falcon.Request(environ)


@given(
    _CASES, st.integers(1, 5), st.text("abcXYZ019-._~+/", min_size=1, max_size=60), st.text("=", max_size=2)
)
def test_bearer_credentials(upper: list[bool], spaces: int, body: str, padding: str) -> None:
    """RFC 9110 §11.4: `auth-scheme 1*SP token68`, the scheme in any case (§11.1)."""
    header = _cased("bearer", upper) + " " * spaces + body + padding
    assert bearer_token(_request(HTTP_AUTHORIZATION=header)) == body + padding
    assert bearer_token(_request(HTTP_AUTHORIZATION="x" + header)) is None


@given(_CASES, st.integers(1, 5), st.text("abcXYZ019-._~", min_size=1, max_size=30), st.text(max_size=30))
def test_basic_credentials(upper: list[bool], spaces: int, client_id: str, secret: str) -> None:
    """RFC 9110 §11.4 and RFC 7617 §2; each half as a form has it (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
    header = _cased("basic", upper) + " " * spaces + base64.b64encode(pair).decode()
    shown = _basic(header)
    assert (shown.client_id, shown.unverified_secret) == (client_id, secret)
    for odd in (header.replace(" ", "\t", 1), header.replace(" ", "", spaces), header + "!"):
        with pytest.raises(OAuthError):
            _basic(odd)


@st.composite
def _parameter(draw: st.DrawFn) -> str:
    quoted = st.text("abc XYZ;,=\\t", max_size=8).map(lambda text: '"' + text.replace("\\", "\\\\") + '"')
    name = draw(_TOKEN.filter(lambda name: name.lower() != "charset"))
    value = draw(st.one_of(_TOKEN, quoted))
    return f"{draw(_OWS)};{draw(_OWS)}{draw(st.sampled_from(['', f'{name}={value}']))}"


@given(_CASES, st.lists(_parameter(), max_size=3), st.lists(_parameter(), max_size=3), st.booleans(), _OWS)
def test_media_types(upper: list[bool], before: list[str], behind: list[str], quoted: bool, ows: str) -> None:
    """RFC 9110 §8.3.1, §5.6.6: type, parameters in any order, empty ones, quoted or bare values, any case."""
    charset = _cased("utf-8", upper)
    value = f'"{charset}"' if quoted else charset
    name = _cased("charset", upper)
    header = _cased("application/json", upper) + "".join(before) + f"{ows};{name}={value}" + "".join(behind)
    assert media_type(_request(CONTENT_TYPE=header)) == ("application/json", "utf-8")
    assert media_type(_request(CONTENT_TYPE=header.replace("/", " / ", 1))) == ("", "")


@given(
    st.lists(st.tuples(st.booleans(), st.text("abc,*W/!~", max_size=8)), max_size=4),
    st.integers(0, 3),
    st.booleans(),
    _OWS,
)
def test_entity_tags(others: list[tuple[bool, str]], at: int, weak: bool, ows: str) -> None:
    """RFC 9110 §13.1.2, §8.8.3: a list of tags that may hold commas and asterisks, compared weakly; `*` is only by itself."""
    ours = '"0123456789abcdef"'
    tags = [("W/" if is_weak else "") + f'"{tag}"' for is_weak, tag in others]
    separator = f"{ows},{ows}"
    assert not _has_already(separator.join(tags), ours)
    tags.insert(at, ("W/" if weak else "") + ours)
    assert _has_already(separator.join(tags), ours)
    assert _has_already(f"{ows}*{ows}", ours)


_NODE = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(str), st.sampled_from(["{}", "{}:{}"])),
    st.tuples(st.ip_addresses(v=6).map(str), st.sampled_from(["{}", "[{}]", "[{}]:{}"])),
)


@given(
    st.lists(st.text("abc, .:[]_-\t\"'0123456789", max_size=20), max_size=3),
    _NODE,
    st.integers(0, 65535),
    _OWS,
)
def test_forwarded_addresses(before: list[str], node: tuple[str, str], port: int, ows: str) -> None:
    """RFC 7239 §6, as `X-Forwarded-For` has it: what the nearest proxy wrote last, with or without a port, whatever is before it."""
    address, form = node
    header = "".join(f"{each},{ows}" for each in before) + form.format(address, port) + ows
    trusted = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": header}
    expected = ipaddress.ip_address(address)
    mapped = getattr(expected, "ipv4_mapped", None)
    assert ClientAddress(["127.0.0.1"]).of(trusted) == str(mapped or expected)
    assert ClientAddress(["10.0.0.1"]).of(trusted) == "127.0.0.1"
    for odd in ("unknown", "_hidden", f"x{address}", f"{address}%eth0", ""):
        assert (
            ClientAddress(["127.0.0.1"]).of(trusted | {"HTTP_X_FORWARDED_FOR": f"{header}, {odd}"})
            == "127.0.0.1"
        )


_COOKIE_OCTETS = st.text(
    "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\'), min_size=1, max_size=20
)


@given(
    st.lists(st.tuples(_TOKEN, _COOKIE_OCTETS, st.booleans()), max_size=5),
    _COOKIE_OCTETS,
    st.booleans(),
    st.integers(0, 5),
)
def test_cookies(others: list[tuple[str, str, bool]], value: str, quoted: bool, at: int) -> None:
    """RFC 6265 §4.1.1, §4.2.1: pairs by `; `, a value bare or in quotes; names differ by their case."""
    pairs = [(name, other, in_quotes) for name, other, in_quotes in others if name != "Ours"]
    pairs.insert(min(at, len(pairs)), ("Ours", value, quoted))
    header = "; ".join(
        f'{name}="{text}"' if in_quotes else f"{name}={text}" for name, text, in_quotes in pairs
    )
    assert cookie_values(_request(HTTP_COOKIE=header), "Ours") == (value,)
    assert (
        cookie_values(_request(HTTP_COOKIE=header), "ours")
        == tuple(dict.fromkeys(text for name, text, _ in pairs if name == "ours"))[:4]
    )


@given(st.lists(_TOKEN, max_size=8), st.text(' \t/@();="\\é', min_size=1, max_size=3), _OWS)
def test_headers_that_a_script_asks_for(names: list[str], odd: str, ows: str) -> None:
    """Fetch §3.2.2: field names by commas (RFC 9110 §5.6.1, §5.6.2); a name that is not a token is not sent back."""
    shown = {
        name.lower() for name in _allowed_headers(f"{ows},{ows}".join([*names, f"x{odd}x", ""])).split(", ")
    }
    assert shown == {name.lower() for name in names} | {"authorization", "content-type"}


_VALUE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_NAME = st.text("abcdé%&=+ ", min_size=1, max_size=4)


@given(st.lists(st.tuples(_NAME, _VALUE), max_size=12), st.data())
def test_parameters(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    """RFC 6749 Appendix B: UTF-8, any character escaped or, where it may stand, bare; without a value it is not there."""

    def encoded(text: str) -> str:
        style = data.draw(st.sampled_from(["least", "plus", "all", "lower", "raw"]))
        if style == "least":
            return quote(text, safe="!$'()*,-./:;?@_~")
        if style == "plus":
            return quote_plus(text)
        if style == "raw":  # not of the grammar, and what some clients send: UTF-8 as it is
            return "".join(quote(c, safe="") if c in "&=+%#; " or c < "!" else c for c in text)
        digits = "%{:02x}" if style == "lower" else "%{:02X}"
        return "".join(digits.format(byte) for byte in text.encode())

    text = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in pairs)
    raw = text.encode().decode("latin-1")  # as WSGI has it (PEP 3333)
    form = _request(
        REQUEST_METHOD="POST",
        CONTENT_TYPE="application/x-www-form-urlencoded",
        CONTENT_LENGTH=str(len(text.encode())),
    )
    form.env["wsgi.input"] = io.BytesIO(text.encode())
    names = [name for name, _ in pairs]
    for found in (read_query(_request(QUERY_STRING=raw)), read_form(form)):
        assert found.values == {name: value for name, value in pairs if value}
        assert found.repeated == {name for name in names if names.count(name) > 1}


@given(st.text("ab=&", max_size=8), st.sampled_from(["%ff", "%e9", "%C3", "%ED%A0%80", "\xff", "\xc3"]))
def test_parameters_that_are_not_utf_8(before: str, odd: str) -> None:
    """RFC 6749 Appendix B: nothing is guessed."""
    with pytest.raises(MalformedParameters):
        read_query(_request(QUERY_STRING=f"{before}&state={odd}"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _VALUE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_VALUE, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_VALUE, _JSON, max_size=4), st.booleans(), st.text(" \t\r\n", max_size=3), _VALUE)
def test_json_objects(value: dict[str, object], ascii_only: bool, blank: str, name: str) -> None:
    """RFC 8259 §2, §4, §7, §8.1: any blanks between tokens, characters bare or escaped; an object, each name once, UTF-8."""
    text = json.dumps(value, ensure_ascii=ascii_only, separators=(f"{blank},{blank}", f"{blank}:{blank}"))
    body = f"{blank}{text}{blank}".encode()
    assert parse_json_object(body) == value
    twice = f"{{{json.dumps(name)}: 1, {json.dumps(name, ensure_ascii=False)}: 2}}".encode()
    odd = [
        f"[{text}]".encode(),
        body + b",",
        b"\xef\xbb\xbf" + body,
        twice,
        body[:-1] + b"\xff}",
        text[:-1].encode(),
    ]
    for each in [
        *odd,
        b'{"a": NaN}',
        b'{"a": [-Infinity]}',
        b"{'a': 1}",
        b'{"a": 01}',
        b'{"a": "\\ud800"}',
        b'{"a": "\t"}',
    ]:
        with pytest.raises(ApiError):
            parse_json_object(each)
