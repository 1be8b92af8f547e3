"""What is read by hand of headers, from the grammars of RFC 9110: every way to write it, and nothing else."""

from __future__ import annotations

import base64

import falcon
import falcon.testing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.protocol.client_auth import _basic
from service.protocol.errors import OAuthError
from service.web.auth import bearer_token
from service.web.bodies import media_type
from service.web.caching import _has_already

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
    """§11.4: `auth-scheme 1*SP token68`, the scheme in any case (§11.1)."""
    header = _cased("bearer", upper) + " " * spaces + body + padding
    assert bearer_token(_request(HTTP_AUTHORIZATION=header)) == body + padding
    assert bearer_token(_request(HTTP_AUTHORIZATION="x" + header)) is None


@given(_CASES, st.integers(1, 5), st.text("abcXYZ019-._~", min_size=1, max_size=30), st.text(max_size=30))
def test_basic_credentials(upper: list[bool], spaces: int, client_id: str, secret: str) -> None:
    """§11.4 and RFC 7617 §2; each half as a form has it (RFC 6749 §2.3.1)."""
    from urllib.parse import quote_plus

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
    """§8.3.1, §5.6.6: type, parameters in any order, empty ones, quoted or bare values, any case."""
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
    """§13.1.2, §8.8.3: a list of tags that may hold commas and asterisks, compared weakly; `*` stands alone."""
    ours = '"0123456789abcdef"'
    tags = [("W/" if is_weak else "") + f'"{tag}"' for is_weak, tag in others]
    separator = f"{ows},{ows}"
    assert not _has_already(separator.join(tags), ours)
    tags.insert(at, ("W/" if weak else "") + ours)
    assert _has_already(separator.join(tags), ours)
    assert _has_already(f"{ows}*{ows}", ours)
