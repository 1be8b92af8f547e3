"""docs/settings.md: `PYLON_OIDC_ISSUER` is used byte for byte, so it is canonical or refused with the corrected
value.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.issuer import (
    InvalidIssuer,
    is_loopback_issuer,
    issuer_origin,
    issuer_path,
    parse_issuer,
    parse_origin,
)
from tests.support.cases import each_of

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/issuers.json").read_text())
EVERY_WRONG_ONE = VECTORS["refused"] + [row["issuer"] for row in VECTORS["corrected"]]


@each_of("issuer", VECTORS["accepted"])
def test_a_canonical_issuer_is_taken_byte_for_byte(issuer: str) -> None:
    """The issuer, byte for byte as tokens carry it: `https://host[:port][/path]`; `http://` for
    loopback.
    """
    assert parse_issuer(issuer) == issuer


@each_of("row", VECTORS["corrected"], ids=lambda row: row["issuer"])
def test_an_almost_right_one_is_refused_with_the_corrected_value(row: dict[str, str]) -> None:
    """A trailing slash, upper case or a default port is refused, with the corrected value in the
    message.
    """
    with pytest.raises(InvalidIssuer) as caught:
        parse_issuer(row["issuer"])
    assert str(caught.value).endswith(f"; write {row['corrected']}")
    assert parse_issuer(row["corrected"]) == row["corrected"]


@each_of("issuer", VECTORS["refused"])
def test_anything_else_is_refused_with_a_remedy(issuer: str) -> None:
    """docs/cli.md: one line each: what is wrong; what to write instead."""
    with pytest.raises(InvalidIssuer) as caught:
        parse_issuer(issuer)
    wrong, separator, remedy = str(caught.value).partition("; write ")
    assert wrong and separator and remedy
    assert "\n" not in str(caught.value)


@each_of("issuer", EVERY_WRONG_ONE)
def test_no_user_info_is_repeated(issuer: str) -> None:
    """docs/cli.md: with no secret's value in it: the message does not show a password in the URL."""
    with pytest.raises(InvalidIssuer) as caught:
        parse_issuer(issuer.replace("https://", "https://u:pa55word@"))
    assert "pa55word" not in str(caught.value)


@given(st.text() | st.text("ahtps:/.?#@[]%0189A ").map(lambda rest: "https://" + rest))
def test_a_named_correction_is_always_taken(value: str) -> None:
    """With the corrected value in the message; a correction that is refused again would be none."""
    try:
        assert parse_issuer(value) == value
    except InvalidIssuer as refusal:
        corrected = str(refusal).rpartition("; write ")[2]
        if corrected.startswith(("https://", "http://")):
            assert parse_issuer(corrected) == corrected


ORIGINS = [
    "https://app.example.com",
    "https://app.example.com:8443",
    "http://localhost:3000",
    "https://[2001:db8::1]",
]


@each_of("origin", ORIGINS)
def test_an_origin_has_scheme_host_and_port(origin: str) -> None:
    """RFC 6454 §6.2: an origin's ASCII serialisation, as `Origin` headers carry it."""
    assert parse_origin(origin) == origin


@each_of(
    "origin",
    ["null", "*", "https://app.example.com/x", "app.example.com", "https://*.example.com", *EVERY_WRONG_ONE],
)
def test_what_no_browser_would_send_is_refused(origin: str) -> None:
    """`PYLON_TRUSTED_ORIGINS` are compared byte for byte, so one that can never match is a fault."""
    with pytest.raises(InvalidIssuer):
        parse_origin(origin)


@each_of(
    ("issuer", "path", "origin", "loopback"),
    [
        ("https://id.example.com", "", "https://id.example.com", False),
        ("https://id.example.com:8443/a/b", "/a/b", "https://id.example.com:8443", False),
        ("http://localhost:4321/id.example.com", "/id.example.com", "http://localhost:4321", True),
        ("https://[::1]/a", "/a", "https://[::1]", True),
        ("https://127.0.0.1", "", "https://127.0.0.1", True),
        ("https://localhost.example.com", "", "https://localhost.example.com", False),
        ("https://a.example/https:/a.example", "/https:/a.example", "https://a.example", False),
    ],
)
def test_an_issuer_has_a_path_and_an_origin(issuer: str, path: str, origin: str, loopback: bool) -> None:
    """docs/endpoints.md: the cookie's path and the origin of the same-origin check are parts of the issuer."""
    assert parse_issuer(issuer) == issuer
    assert (issuer_path(issuer), issuer_origin(issuer), is_loopback_issuer(issuer)) == (
        path,
        origin,
        loopback,
    )


@given(
    st.sampled_from(["https://id.example.com", "https://id.example.com:8443"]),
    st.from_regex(r"(/[a-z@:;=]{1,6}){0,3}", fullmatch=True),
)
def test_origin_and_path_make_the_issuer_again(origin: str, path: str) -> None:
    """Every URL is built from the issuer: nothing of it is lost in its parts."""
    try:
        issuer = parse_issuer(origin + path)
    except InvalidIssuer:
        return
    assert (issuer_origin(issuer), issuer_path(issuer)) == (origin, path)
