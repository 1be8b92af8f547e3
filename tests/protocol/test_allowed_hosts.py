"""docs/settings.md: `PYLON_ALLOWED_HOSTS`, entry by entry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.issuer import InvalidHost, IssuerResolver, parse_allowed_host
from tests.support.cases import each_of

# Entry, hosts that it allows, hosts that it does not.
TABLE: list[tuple[str, list[str], list[str]]] = [
    (
        "id.example.com",
        ["id.example.com", "ID.example.com", "id.example.com:443", "id.example.com."],
        [
            "id.example.com:8443",
            "id.example.com:80",
            "example.com",
            "x.id.example.com",
            "xid.example.com",
            "id.example.com.evil",
        ],
    ),
    (
        "id.example.com:8443",
        ["id.example.com:8443"],
        ["id.example.com", "id.example.com:443", "id.example.com:8444", "x.id.example.com:8443"],
    ),
    ("id.example.com:443", ["id.example.com", "id.example.com:443"], ["id.example.com:8443"]),
    (
        "id.example.com:*",
        ["id.example.com", "id.example.com:1", "id.example.com:65535"],
        ["example.com", "x.id.example.com:1"],
    ),
    (
        ".example.com",
        ["example.com", "id.example.com", "a.b.example.com", "example.com:443"],
        ["id.example.com:8443", "badexample.com", "example.com.evil", "com", "example.org"],
    ),
    (".example.com:8443", ["example.com:8443", "id.example.com:8443"], ["example.com", "id.example.com:443"]),
    (".example.com:*", ["example.com", "id.example.com:1"], ["badexample.com", "badexample.com:1"]),
    ("Example.COM", ["example.com"], ["id.example.com"]),
    ("192.0.2.1", ["192.0.2.1"], ["192.0.2.10", "192.0.2.1:8443"]),
    (
        "[2001:DB8::1]",
        ["[2001:db8:0:0:0:0:0:1]", "[2001:db8::1]:443"],
        ["[2001:db8::1]:8443", "[2001:db8::2]"],
    ),
    ("[::1]:*", ["[::1]", "[::1]:4321"], ["localhost", "127.0.0.1"]),
    ("localhost:4321", ["localhost:4321"], ["localhost", "[::1]:4321", "localhost:80"]),
]
CASES = [(entry, host, True) for entry, hosts, _ in TABLE for host in hosts] + [
    (entry, host, False) for entry, _, hosts in TABLE for host in hosts
]


def _allows(entries: list[str], host: str, *, dev_mode: bool = False) -> bool:
    resolver = IssuerResolver(None, tuple(map(parse_allowed_host, entries)), dev_mode)
    try:
        resolver.resolve(host, host_required=True)
    except InvalidHost:
        return False
    return True


@each_of(("entry", "host", "allowed"), CASES)
def test_an_entry_allows_what_it_names_and_nothing_else(entry: str, host: str, allowed: bool) -> None:
    """`name` the default port only, `name:8443` that port, `name:*` any; `.example.com` with
    subdomains.
    """
    assert _allows([entry], host) is allowed


def test_any_entry_of_the_list_may_allow() -> None:
    """A comma list."""
    entries = ["a.example", "b.example:8443"]
    assert _allows(entries, "a.example")
    assert _allows(entries, "b.example:8443")
    assert not _allows(entries, "b.example")
    assert not _allows(entries, "a.example:8443")


@each_of(
    ("host", "allowed"),
    [("localhost", True), ("localhost:80", True), ("localhost:443", False), ("localhost:4321", False)],
)
def test_in_dev_mode_the_default_port_of_a_loopback_host_is_80(host: str, allowed: bool) -> None:
    """`name` matches the default port only, which for an `http://` issuer is 80."""
    assert _allows(["localhost"], host, dev_mode=True) is allowed


def test_no_host_is_refused_where_a_list_is_set() -> None:
    """No `Host` (HTTP/1.0): 400 when an allow-list is set."""
    resolver = IssuerResolver(None, (parse_allowed_host("localhost:4321"),))
    with pytest.raises(InvalidHost):
        resolver.resolve(None, host_required=False)


@each_of(
    "entry",
    [
        "",
        ".",
        "*",
        "*.example.com",
        "..example.com",
        "a b",
        "a:",
        "a:0",
        "a:*:*",
        "a:80:*",
        "a:**",
        ":*",
        ".:*",
        "https://a",
        "a/b",
        "[::1",
        "[fe80::1%1]",
        ".1.2.3.4",
        ".[::1]",
        "é.example",
        "a@b",
    ],
)
def test_anything_else_is_no_entry(entry: str) -> None:
    """Four forms of entry; anything else is a fault, not an entry that never matches."""
    with pytest.raises(InvalidHost):
        parse_allowed_host(entry)


@given(st.text())
def test_parsing_an_entry_raises_nothing_but_invalid_host(entry: str) -> None:
    """docs/cli.md: a wrong configuration is a fault, never a traceback."""
    try:
        parse_allowed_host(entry)
    except InvalidHost:
        return


@given(st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){1,3}", fullmatch=True), st.text("abc.-", max_size=8))
def test_a_domain_allows_its_subdomains_alone(domain: str, prefix: str) -> None:
    """`.example.com` the domain and its subdomains; never a name that merely ends alike."""
    if _allows([f".{domain}"], prefix + domain):
        assert prefix == "" or prefix.endswith(".")
