"""docs/settings.md, RFC 9112 §3.2, RFC 3986 §3.2.2: which `Host` is one, and what is derived from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.issuer import Host, InvalidHost, IssuerResolver, parse_host, parse_issuer
from tests.support.cases import each_of

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/hosts.json").read_text())
ACCEPTED: list[dict[str, str]] = VECTORS["accepted"]
LONG = [(row["label"] * row["times"] + row["suffix"], row["accepted"]) for row in VECTORS["long"]]
PIECES = st.sampled_from(
    [
        "a",
        "id",
        "example",
        "com",
        ".",
        "-",
        "_",
        ":",
        "[",
        "]",
        "::",
        "1",
        "0",
        "127",
        "0x",
        "443",
        "80",
        "%",
        "@",
        "/",
        "A",
    ]
)
HOSTILE = st.text() | st.lists(PIECES).map("".join) | st.binary().map(lambda raw: raw.decode("latin-1"))


def _derived(host: str, *, dev_mode: bool = False) -> str:
    return IssuerResolver(None, dev_mode=dev_mode).resolve(host, host_required=True)


@each_of("row", ACCEPTED, ids=lambda row: row["host"])
def test_a_good_host_gives_its_issuer(row: dict[str, str]) -> None:
    """`Host` → `https://<host>`: lower-cased, `:443` dropped, one trailing dot dropped, IPv6
    compressed.
    """
    assert _derived(row["host"]) == row["issuer"]


@each_of("row", ACCEPTED, ids=lambda row: row["host"])
def test_in_dev_mode_a_loopback_host_gives_http(row: dict[str, str]) -> None:
    """In dev mode a loopback host gives `http://<host>` with `:80` dropped; any other stays https."""
    assert _derived(row["host"], dev_mode=True) == row.get("dev", row["issuer"])


@each_of("host", VECTORS["refused"])
def test_anything_else_is_refused(host: str) -> None:
    """Anything else is refused, and the message shows nothing of it."""
    with pytest.raises(InvalidHost) as caught:
        parse_host(host)
    assert str(caught.value) == ""
    with pytest.raises(InvalidHost):
        _derived(host)
    with pytest.raises(InvalidHost):
        _derived(host, dev_mode=True)


@each_of(("host", "accepted"), LONG, ids=[str(len(host)) for host, _ in LONG])
def test_labels_have_63_characters_and_names_253(host: str, accepted: bool) -> None:
    """Labels ≤ 63, whole ≤ 253."""
    if accepted:
        assert _derived(host).startswith("https://a")
    else:
        with pytest.raises(InvalidHost):
            parse_host(host)


@given(HOSTILE)
def test_parse_host_raises_nothing_but_invalid_host(value: str) -> None:
    """RFC 3986 §3.2.2: normalised as docs/settings.md says, or refused; never another failure."""
    try:
        host = parse_host(value)
    except InvalidHost:
        return
    assert isinstance(host, Host)
    assert host.name == host.name.lower()
    assert host.port is None or 1 <= host.port <= 65_535


DNS = st.from_regex(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,10}[A-Za-z0-9])?(\.[A-Za-z]([A-Za-z0-9-]{0,10}[A-Za-z])?){1,3}\.?",
    fullmatch=True,
)
V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]")
NAMED = st.tuples(DNS | V4 | V6, st.none() | st.integers(1, 65_535)).map(
    lambda pair: pair[0] if pair[1] is None else f"{pair[0]}:{pair[1]}"
)


@given(NAMED | HOSTILE, st.sampled_from(["https", "http"]))
def test_parsing_is_idempotent_on_its_own_output(value: str, scheme: str) -> None:
    """RFC 3986 §3.2.2: what is normalised is in its normal form."""
    try:
        host = parse_host(value)
    except InvalidHost:
        return
    authority = host.origin(scheme).removeprefix(f"{scheme}://")
    again = parse_host(authority)
    assert again.name == host.name
    assert again.origin(scheme) == host.origin(scheme)


@given(NAMED)
def test_every_well_formed_host_is_taken(value: str) -> None:
    """A DNS name, an IPv4 address or a bracketed IPv6 address, with an optional port from 1 to 65535."""
    parse_host(value)


@given(NAMED, st.booleans())
def test_a_derived_issuer_is_one_that_could_be_configured(value: str, dev_mode: bool) -> None:
    """One grammar: the derived issuer always parses as a configured one, byte for byte."""
    issuer = _derived(value, dev_mode=dev_mode)
    assert parse_issuer(issuer) == issuer


CONFIGURED = "https://id.example.com"


@each_of(
    ("configured", "host", "required", "issuer"),
    [
        (CONFIGURED, "other.example", True, CONFIGURED),
        (CONFIGURED, "a b", True, CONFIGURED),
        (CONFIGURED, None, False, CONFIGURED),
        (None, "other.example", True, "https://other.example"),
        (None, "other.example", False, "https://other.example"),
        (None, None, False, "http://localhost:4321"),
        (CONFIGURED, None, True, None),
        (None, None, True, None),
        (None, "", True, None),
        (None, "", False, None),
    ],
)
def test_the_first_source_that_applies_gives_the_issuer(
    configured: str | None, host: str | None, required: bool, issuer: str | None
) -> None:
    """The setting, then `Host`, then `http://localhost:4321`; HTTP/1.1 without `Host` is refused in
    any case.
    """
    resolver = IssuerResolver(configured)
    if issuer is None:
        with pytest.raises(InvalidHost):
            resolver.resolve(host, host_required=required)
    else:
        assert resolver.resolve(host, host_required=required) == issuer
