"""Which names, ports and protocols the shipped site answers under, and what it refuses before the application."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.support.cases import each_of
from tests.support.nginx import NAME, NginxSite, StubUpstream, assert_refused

pytestmark = pytest.mark.usefixtures("fresh")

OTHER = "other.example.test"
SECOND = """
server {
    listen 127.0.0.1:{https_port} ssl http2;
    server_name other.example.test;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    access_log {folder}/access.log pylon_oidc;
    error_log {folder}/error.log crit;
    include pylon-oidc/snippets/service.conf;
}
"""


@pytest.fixture(scope="module")
def site(stub: StubUpstream) -> Iterator[NginxSite]:
    """Two names on a non-standard port."""
    with NginxSite(stub.address, more=SECOND) as running:
        yield running


@pytest.fixture(scope="module")
def on_443(stub: StubUpstream) -> Iterator[NginxSite]:
    """Two names whose public port is 443."""
    with NginxSite(stub.address, public_port=443, more=SECOND) as running:
        yield running


@each_of(
    "host",
    ["{name}:{port}", "{NAME}:{port}", "{name}.:{port}"],
    ids=["as configured", "upper case", "trailing dot"],
)
def test_the_right_host_is_handed_on_as_received(site: NginxSite, stub: StubUpstream, host: str) -> None:
    """The application gets `Host` byte for byte, with the port: it derives the issuer from it."""
    sent = host.format(name=site.name, NAME=site.name.upper(), port=site.https_port)
    assert site.call("GET", "/x", host=sent).status == 200
    assert stub.seen[0].headers.all("host") == [sent]


@each_of("host", [NAME, NAME.upper(), f"{NAME}.", f"{NAME}:443", f"{NAME}.:443"])
def test_port_443_may_be_left_out(on_443: NginxSite, stub: StubUpstream, host: str) -> None:
    """Where the public port is 443, `Host` has it or not."""
    assert on_443.call("GET", "/x", host=host).status == 200
    assert stub.seen[0].headers.all("host") == [host]


@each_of(
    "host",
    [
        "{name}",
        "{name}.",
        "{name}:",
        "{name}:443",
        "{name}:abc",
        "{name}:{port}:{port}",
        "{name}:{port}:443",
        "{name}:443:{port}",
        "{name}:{port}0",
        "{name}:0{port}",
        "{name}:+{port}",
        "{name}..:{port}",
        "x{name}:{port}",
        "evil.test",
        "evil.test:{port}",
        "127.0.0.1:{port}",
        "localhost:{port}",
        "user@{name}:{port}",
        "{name}%2eevil.test:{port}",
        "_:{port}",
        "",
    ],
)
def test_another_host_is_refused(site: NginxSite, stub: StubUpstream, host: str) -> None:
    """A `Host` that is not the public name with the public port never reaches the application, and is not echoed."""
    sent = host.format(name=site.name, port=site.https_port)
    answer = site.call("GET", "/x", host=sent)
    assert_refused(answer, answer.status)
    assert answer.status in {400, 421}
    assert stub.seen == []
    assert b"evil" not in answer.body


@each_of("host", [f"{NAME}:8443", f"{NAME}:80", f"{NAME}:443:443", f"{NAME}:", f"{NAME}:0443"])
def test_another_port_than_443_is_refused(on_443: NginxSite, stub: StubUpstream, host: str) -> None:
    """Where the public port is 443, another port in `Host` is refused."""
    assert_refused(on_443.call("GET", "/x", host=host), 421)
    assert stub.seen == []


def test_a_request_without_host_is_refused(site: NginxSite, stub: StubUpstream) -> None:
    """HTTP/1.1 without `Host` is malformed, HTTP/1.0 without it names nobody."""
    (modern,) = site.exchange(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
    (old,) = site.exchange(b"GET /x HTTP/1.0\r\n\r\n")
    assert_refused(modern, 400)
    assert_refused(old, 421)
    assert stub.seen == []


@each_of(
    "authority", ["evil.test", "{host}", "other.example.test:{port}", "{name}", "{name}:9999", "user@{host}"]
)
def test_an_absolute_form_target_is_refused(site: NginxSite, stub: StubUpstream, authority: str) -> None:
    """`GET https://name/ HTTP/1.1` cannot bring a second authority in: it is refused, whatever it names."""
    named = authority.format(host=site.authority, name=site.name, port=site.https_port)
    answer = site.call("GET", f"https://{named}/x")
    assert answer.status in {400, 421}
    assert_refused(answer, answer.status)
    assert stub.seen == []


def test_two_names_are_served_side_by_side(site: NginxSite, stub: StubUpstream) -> None:
    """A second server block with the same snippets serves its own name (the control of the next test)."""
    payload = f"GET /x HTTP/1.1\r\nHost: {OTHER}:{site.https_port}\r\nConnection: close\r\n\r\n".encode()
    assert [answer.status for answer in site.exchange(payload, sni=OTHER)] == [200]
    assert stub.seen[0].headers["host"] == f"{OTHER}:{site.https_port}"


def test_a_host_other_than_the_tls_name_is_refused(site: NginxSite, stub: StubUpstream) -> None:
    """The name of the TLS handshake and `Host` are the same, also where both are served here."""
    assert_refused(site.call("GET", "/x", host=f"{OTHER}:{site.https_port}"), 421)
    assert stub.seen == []


def test_a_host_other_than_the_tls_name_is_refused_on_443(on_443: NginxSite, stub: StubUpstream) -> None:
    """The same without a port in `Host`, and with one."""
    assert_refused(on_443.call("GET", "/x", host=OTHER), 421)
    assert_refused(on_443.call("GET", "/x", host=f"{OTHER}:443"), 421)
    assert stub.seen == []


@each_of("sni", ["evil.test", None], ids=["unknown", "none"])
def test_tls_for_an_unknown_name_ends_in_the_handshake(site: NginxSite, sni: str | None) -> None:
    """No certificate is shown to who asks for a name that is not served, or for none."""
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        site.connect(sni=sni)


def test_plain_http_is_redirected_to_the_public_url(site: NginxSite, stub: StubUpstream) -> None:
    """Port 80 answers 308 with the configured name and port, and the path and query that were asked for."""
    answer = site.call("POST", "/api/auth/jwt?x=1", host=site.name, tls=False, body=b"{}")
    assert answer.status == 308
    assert answer.headers.all("location") == [f"{site.origin}/api/auth/jwt?x=1"]
    assert stub.seen == []


def test_the_redirect_leaves_443_out(on_443: NginxSite) -> None:
    """Where the public port is 443 the redirect has no port."""
    answer = on_443.call("GET", "/", host=NAME, tls=False)
    assert answer.headers.all("location") == [f"https://{NAME}/"]


@each_of("host", ["{name}:9999", "{name}:evil.test", "{NAME}."])
def test_the_redirect_never_repeats_the_clients_host(site: NginxSite, host: str) -> None:
    """Nothing of the client's `Host` is in the redirect."""
    answer = site.call("GET", "//evil.test/", host=host.format(name=NAME, NAME=NAME.upper()), tls=False)
    assert answer.headers.all("location") == [f"{site.origin}//evil.test/"]


@each_of("target", ["/", "/oidc/jwks", "http://evil.test/"])
def test_plain_http_for_an_unknown_name_is_refused(site: NginxSite, target: str) -> None:
    """The default server of port 80 redirects nobody."""
    answer = site.call("GET", target, host="evil.test", tls=False)
    assert_refused(answer, 421)
    assert "location" not in answer.headers


def test_http2_has_the_same_guards(site: NginxSite, stub: StubUpstream) -> None:
    """Over HTTP/2 `:authority` is what `Host` is: passed on when right, refused when not."""
    assert site.call_h2("/x") == 200
    assert stub.seen[0].headers.all("host") == [site.authority]
    assert site.call_h2("/x", authority=site.name) == 421
    assert site.call_h2("/x", authority=f"{OTHER}:{site.https_port}") == 421
    assert site.call_h2("/x", authority="evil.test") == 421
    assert len(stub.seen) == 1


def test_http2_host_beside_authority_cannot_differ(site: NginxSite, stub: StubUpstream) -> None:
    """A `host` header next to `:authority` brings no second name in."""
    assert site.call_h2("/x", headers={"host": "evil.test"}) in {400, 421}
    assert site.call_h2("/x", headers={"host": f"{OTHER}:{site.https_port}"}) in {400, 421}
    assert stub.seen == []


@each_of("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_tls_is_spoken(site: NginxSite, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3, with forward secrecy."""
    context = site.trust()
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", site.https_port), timeout=5) as wire,
        context.wrap_socket(wire, server_hostname=site.name) as tls,
    ):
        cipher = tls.cipher()
        assert cipher is not None
        assert cipher[0].startswith(("TLS_", "ECDHE-"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@each_of("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(site: NginxSite, version: str) -> None:
    """TLS 1.0 and 1.1 are refused, though the surrounding nginx.conf switches them on, as Debian's does."""
    context = site.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = getattr(ssl.TLSVersion, version)
    with (
        socket.create_connection(("127.0.0.1", site.https_port), timeout=5) as wire,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(wire, server_hostname=site.name)


def test_hsts_is_sent_for_the_served_name_alone(site: NginxSite) -> None:
    """Answers and refusals of the service carry HSTS once; plain HTTP and unknown names carry none."""
    assert site.call("GET", "/x").headers.all("strict-transport-security") == ["max-age=31536000"]
    assert site.call("GET", "/x", host=NAME).headers.all("strict-transport-security") == ["max-age=31536000"]
    assert site.call("GET", "/x", host="evil.test").headers.all("strict-transport-security") == []
    assert site.call("GET", "/x", tls=False).headers.all("strict-transport-security") == []
