"""Where a request of ours may go: every form of an address, by the list and without it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.outbound.addresses import NOTHING, Refused, is_public, parse_address, parse_target
from service.outbound.fetcher import Outbound, Unreachable
from service.outbound.reading import parse_allowed, parse_ca_file, parse_proxy

_CLOSED = (
    *(
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
    ),
    *("172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1"),
    *("240.0.0.1", "255.255.255.255", "168.63.129.16", "192.0.2.1", "192.88.99.1"),
    *("::", "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1"),
    *(
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
    ),
    *("ff02::1", "100::1", "3fff::1", "4000::1"),
)
_OPEN = (
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
)


def _url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def test_addresses_that_are_not_public_are_refused_and_the_others_are_not() -> None:
    for address in _CLOSED:
        assert not is_public(parse_address(address)), address
        with pytest.raises(Refused, match=r"^address_not_public$"):
            parse_target(f"https://{_url_host(address)}/jwks", NOTHING)
    for address in _OPEN:
        assert is_public(parse_address(address)), address
        assert parse_target(f"https://{_url_host(address)}/jwks", NOTHING).literal is not None
    with pytest.raises(Refused):
        parse_address("fe80::1%eth0")


def test_forms_that_two_libraries_read_differently_are_refused() -> None:
    for authority in (
        *("2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0", "0x"),
        *(
            "127.0.0.1.",
            "localhost.",
            "example.com.",
            ".example.com",
            "a..b",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.0x4",
        ),
        *(
            "user@example.com",
            "user:pw@example.com",
            "example.com:0",
            "example.com:65536",
            "example.com:",
            "a:b",
        ),
        *("example.com:80:80", "[::1", "::1", "[fe80::1%25eth0]", "[::ffff:127.0.0.1.]", "[1.2.3.4]", ""),
        *(
            "exa mple.com",
            "bücher.example",
            "ｅxample.com",
            "127。0。0。1",
            "①②⑦.0.0.1",
            "example.com\\@evil.example",
        ),
        *(
            "ex%61mple.com",
            "-a.example",
            "a-.example",
            "a" * 64 + ".example",
            "exam\tple.com",
            "example.com\r\n",
        ),
    ):
        with pytest.raises(Refused, match=r"^url_malformed$"):
            parse_target(f"https://{authority}/", NOTHING)
    for url in (
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "https:example.com",
        "https://a.b/#x",
        "https://a.b/\x00",
        "https://a.b/a\\b",
        "https://a.b/" + "x" * 2048,
    ):
        with pytest.raises(Refused, match=r"^url_malformed$"):
            parse_target(url, NOTHING)
    for name in ("localhost", "LOCALHOST", "app.localhost"):
        with pytest.raises(Refused, match=r"^address_not_public$"):
            parse_target(f"https://{name}/", NOTHING)
    with pytest.raises(Refused, match=r"^not_https$"):
        parse_target("http://example.com/", NOTHING)
    found = parse_target("HTTPS://Client.Example.com:8443?a=b", NOTHING)
    assert (found.url, found.authority) == ("https://client.example.com:8443/?a=b", "client.example.com:8443")


def test_the_operators_list() -> None:
    allowed = parse_allowed("app.internal, 10.1.2.3,10.8.0.0/16,[fd00::1],fd00:8::/32,localhost")
    for url in (
        "http://app.internal/",
        "http://10.1.2.3:8080/",
        "https://10.8.1.1/",
        "http://[fd00::1]/",
        "https://[fd00:8::5]/",
        "http://localhost/",
    ):
        parse_target(url, allowed)
    for url in (
        "http://10.8.1.1/",
        "https://10.9.0.1/",
        "https://[fd00::2]/",
        "http://sub.app.internal/",
        "https://[::ffff:10.8.1.1]/",
    ):
        with pytest.raises(Refused):
            parse_target(url, allowed)
    # The list counts for an operator's URLs; for a stranger's only in dev mode.
    for outbound, operators, is_refused in (
        (Outbound(allowed), True, False),
        (Outbound(allowed), False, True),
        (Outbound(allowed, dev_mode=True), False, False),
    ):
        try:
            outbound.check("http://app.internal/", operators=operators)
            assert not is_refused
        except Unreachable as error:
            assert is_refused
            assert error.cause == "not_https"
    for wrong in (
        "",
        "a b",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "http://a",
        "a.internal.",
        "*.internal",
        "a:8080",
        "0x7f.1",
    ):
        with pytest.raises(ValueError, match="write names, addresses and CIDRs"):
            parse_allowed(wrong)


def test_the_other_settings(tmp_path: object) -> None:
    proxy = parse_proxy("http://us%40er:p%3Aw@proxy.internal:3128")
    assert (proxy.url, proxy.credentials) == ("http://proxy.internal:3128", (b"us@er", b"p:w"))
    assert "p:w" not in repr(proxy)
    for wrong in (
        "https://proxy:3128",
        "proxy:3128",
        "http://proxy",
        "http://proxy:0",
        "http://proxy:1/x",
        "socks5://p:1",
    ):
        with pytest.raises(ValueError, match="HTTP proxy"):
            parse_proxy(wrong)
    for wrong in ("/nowhere.pem", __file__):
        with pytest.raises(ValueError, match="CA certificates"):
            parse_ca_file(wrong)


_V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
_V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@given(st.one_of(_V4, _V6))
def test_what_is_public_here_is_global_by_the_registries(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not (address.is_private or address.is_loopback or address.is_multicast or address.is_reserved)
        embedded = [getattr(address, name, None) for name in ("ipv4_mapped", "sixtofour", "teredo")]
        assert embedded == [None] * 3


@given(st.sampled_from([each for each in _CLOSED if ":" not in each]), st.data())
def test_no_spelling_of_a_closed_address_passes(address: str, data: st.DataObject) -> None:
    number = int(ipaddress.IPv4Address(address))
    octets = address.split(".")
    spelled = data.draw(
        st.sampled_from(
            [
                *(
                    str(number),
                    hex(number),
                    f"0{number:o}",
                    f"{octets[0]}.{number & 0xFFFFFF}",
                    address + ".",
                ),
                ".".join(f"0{int(octet):o}" for octet in octets),
                ".".join(hex(int(octet)) for octet in octets),
                ".".join(octet.zfill(3) for octet in octets),
                f"[::ffff:{address}]",
                f"[64:ff9b::{address}]",
                f"[::{address}]",
                f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::]",
                f"user@{address}",
                f"{address}:443@example.com",
                address.replace(".", "。"),
                address.replace("0", "０").replace("1", "１")
                if set("01") & set(address)
                else f"{address}%00",
            ]
        )
    )
    port = data.draw(st.sampled_from(["", ":443", ":8443"]))
    with pytest.raises(Refused):
        parse_target(f"https://{spelled}{port}/", NOTHING)


@given(st.text(max_size=60))
def test_nothing_but_a_refusal_comes_of_any_text(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com{text}"):
        try:
            found = parse_target(url, NOTHING)
        except Refused:
            continue
        assert found.scheme == "https"
        assert found.url.isascii()
