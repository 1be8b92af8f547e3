"""What the application is given: headers set and not appended, the request unchanged, the sizes that pass."""

from __future__ import annotations

import base64

import pytest

from tests.support.cases import each_of
from tests.support.nginx import OUTSIDER, NginxSite, Reply, StubUpstream, assert_refused

pytestmark = pytest.mark.usefixtures("fresh")

HOSTILE_HEADERS = [
    "CF-Connecting-IP",
    "Client-IP",
    "Forwarded",
    "Path-Info",
    "PATH_INFO",
    "Proxy",
    "Remote-User",
    "REMOTE_USER",
    "Script-Name",
    "SCRIPT_NAME",
    "True-Client-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Forwarded",
    "X_Forwarded_For",
    "X-Forwarded-Host",
    "X-Forwarded-Path",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-Uri",
    "X-Forwarded-User",
    "X-Host",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Original-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Remote-User",
    "X-Script-Name",
    "X-Scheme",
    "X-Url-Scheme",
]


@each_of("path", ["/api/auth/jwt", "/oidc/jwks", "/api/auth/session", "/readyz", "/api/oidc/clients"])
def test_forwarding_headers_are_ours_alone(site: NginxSite, stub: StubUpstream, path: str) -> None:
    """Address and scheme are set to what nginx sees; what the client sent of them is gone, on every path."""
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http", "X-Real-IP": "6.6.6.6"}
    site.call("GET", path, headers=forged)
    (seen,) = stub.seen
    assert seen.headers.all("x-forwarded-for") == ["127.0.0.1"]
    assert seen.headers.all("x-forwarded-proto") == ["https"]
    assert seen.headers.all("x-real-ip") == ["127.0.0.1"]


def test_the_address_is_the_clients(site: NginxSite, stub: StubUpstream) -> None:
    """X-Forwarded-For is the address that the connection came from."""
    site.call("GET", "/x", source=OUTSIDER, headers={"X-Forwarded-For": "127.0.0.1"})
    assert stub.seen[0].headers.all("x-forwarded-for") == [OUTSIDER]


@each_of("name", HOSTILE_HEADERS)
def test_headers_that_some_software_would_believe_are_dropped(
    site: NginxSite, stub: StubUpstream, name: str
) -> None:
    """A client's forwarding, path, method and user headers do not reach the application, whatever their spelling."""
    site.call("GET", "/x", headers={name: "evil.test"})
    assert "evil.test" not in str(stub.seen[0].headers)


def test_credentials_and_cookies_arrive_unchanged(site: NginxSite, stub: StubUpstream) -> None:
    """Authorization, Cookie, Origin, the trusted-mint headers and conditions are passed on as sent."""
    sent = {
        "Authorization": "Bearer pylon_" + "a" * 64,
        "Cookie": 'pylon_session=abc; other="q;x"',
        "Origin": "https://app.example.test",
        "Sec-Fetch-Site": "same-origin",
        "X-Pylon-Trusted-Timestamp": "1700000000",
        "X-Pylon-Trusted-Signature": "ab" * 32,
        "Content-Type": "application/json; charset=utf-8",
        "If-None-Match": '"x"',
    }
    site.call("POST", "/api/auth/sessions/trusted-mint", headers=sent, body=b"{}")
    for name, value in sent.items():
        assert stub.seen[0].headers.all(name) == [value]


@each_of(
    "target",
    [
        "/oidc/authorize?a=%2e%2F&b=c+d&a=2&",
        "/x?",
        "/a;b=1/c",
        "/x?http://evil.test/../",
        "/oidc/interaction/A-_~.9",
    ],
)
def test_the_target_arrives_as_sent(site: NginxSite, stub: StubUpstream, target: str) -> None:
    """Path and query are passed on byte for byte."""
    assert site.call("GET", target).status == 200
    assert stub.seen[0].target == target


@each_of("size", [0, 1, 4096, 65_536])
def test_a_body_of_64_kib_passes_unchanged(site: NginxSite, stub: StubUpstream, size: int) -> None:
    """65,536 bytes are the application's to judge; every byte arrives."""
    body = bytes(n * 31 % 256 for n in range(size))
    assert site.call("POST", "/x", body=body).status == 200
    assert stub.seen[0].body == body


def test_one_byte_more_is_refused(site: NginxSite, stub: StubUpstream) -> None:
    """65,537 bytes are 413, and none of them reach the application."""
    assert_refused(site.call("POST", "/x", body=b"x" * 65_537), 413)
    assert stub.seen == []


@each_of(("size", "status"), [(65_536, 200), (65_537, 413)])
def test_a_chunked_body_has_the_same_cap(site: NginxSite, stub: StubUpstream, size: int, status: int) -> None:
    """Without a Content-Length it is the bytes received that count; the application gets a length."""
    head = f"POST /x HTTP/1.1\r\nHost: {site.authority}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (b"a" * 30_000, b"b" * (size - 30_000), b"")
    )
    (answer,) = site.exchange(head.encode() + chunks)
    assert answer.status == status
    assert [len(seen.body) for seen in stub.seen] == ([size] if status == 200 else [])


def test_a_request_line_of_8_kib_passes(site: NginxSite, stub: StubUpstream) -> None:
    """A request line of 8,190 bytes, which gunicorn takes, arrives whole."""
    target = "/oidc/authorize?state=" + "s" * (8190 - len("GET /oidc/authorize?state= HTTP/1.1"))
    assert site.call("GET", target).status == 200
    assert stub.seen[0].target == target


@each_of(
    "target",
    [
        "/" + "a/" * 4000 + "a",
        "/" + "a" * 8000,
        "/api/auth/users/" + "%20" * 2600,
        "/a" * 3900 + "/api/oidc/%20",
    ],
    ids=["segments", "one segment", "escapes", "deep admin path"],
)
def test_the_longest_paths_pass_the_guard(site: NginxSite, stub: StubUpstream, target: str) -> None:
    """The guard's expressions decide any path that nginx reads, also where they must look far."""
    assert site.call("GET", target).status == 200
    assert stub.seen[0].target == target


def test_the_longest_paths_are_refused_by_the_guard(site: NginxSite, stub: StubUpstream) -> None:
    """And a fault at the very end of one is found."""
    for target in ("/" + "a/" * 4000 + "%2e", "/api/auth/users/" + "%20" * 2600 + "%00", "/a" * 3900 + "//"):
        assert_refused(site.call("GET", target), 400)
    assert stub.seen == []


def test_a_large_answer_header_passes(site: NginxSite, stub: StubUpstream) -> None:
    """A redirect that repeats 8 KiB of parameters and sets cookies fits."""
    location = "https://rp.example.test/cb?state=" + "s" * 8000
    stub.reply = lambda _seen: Reply(303, (("Location", location), ("Set-Cookie", "a=" + "b" * 3000)))
    answer = site.call("GET", "/oidc/authorize")
    assert answer.status == 303
    assert answer.headers.all("location") == [location]


def test_a_redirect_of_the_application_is_not_rewritten(site: NginxSite, stub: StubUpstream) -> None:
    """nginx changes no Location, also where it names the upstream."""
    stub.reply = lambda seen: Reply(303, (("Location", seen.headers["x-to"]),))
    for location in ("http://pylon_oidc/x", "/relative", "https://rp.example.test/"):
        assert site.call("GET", "/x", headers={"X-To": location}).headers.all("location") == [location]


def test_the_connection_to_the_application_is_kept(stub: StubUpstream) -> None:
    """HTTP/1.1 and no `Connection: close`: many requests, few connections."""
    with NginxSite(stub.address) as site:
        before = stub.connections
        for _ in range(20):
            site.call("GET", "/x")
        assert stub.connections - before <= 2  # one a worker
        assert {seen.version for seen in stub.seen} == {"HTTP/1.1"}
        assert all("connection" not in seen.headers for seen in stub.seen)


def test_nothing_is_compressed(site: NginxSite, stub: StubUpstream) -> None:
    """Answers are sent as they are, though the surrounding nginx.conf has gzip on."""
    stub.reply = lambda _seen: Reply(
        headers=(("Content-Type", "text/html"), ("ETag", '"strong"')), body=b"x" * 5000
    )
    answer = site.call("GET", "/x", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.headers["etag"] == '"strong"'
    assert len(answer.body) == 5000


def test_basic_credentials_arrive_unchanged(site: NginxSite, stub: StubUpstream) -> None:
    """nginx takes no part in client authentication."""
    basic = "Basic " + base64.b64encode(b"client:s%3Acret").decode()
    site.call("POST", "/oidc/token", headers={"Authorization": basic}, body=b"grant_type=x")
    assert stub.seen[0].headers.all("authorization") == [basic]
