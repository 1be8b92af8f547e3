"""What nginx itself refuses, in the shape of the service's errors; request ids; the log."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.support.cases import each_of
from tests.support.nginx import (
    OUTSIDER,
    NginxSite,
    Reply,
    StubUpstream,
    assert_refused,
    assert_refused_by_oauth,
)

pytestmark = pytest.mark.usefixtures("fresh")

CANARY = "canary-5ecre7"


def raw(site: NginxSite, *lines: str, body: bytes = b"") -> bytes:
    """A request to the site, whose lines are sent as they are."""
    return (
        "\r\n".join([*lines, f"Host: {site.authority}", "Connection: close", "", ""]).encode("latin-1") + body
    )


def test_nginx_accepts_the_configuration(site: NginxSite) -> None:
    """`nginx -t` passes, without a warning."""
    done = subprocess.run(site.command("-t"), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "test is successful" in done.stderr
    assert not re.search(r"\[(warn|emerg|alert|error)\]", done.stderr)


@each_of(
    ("lines", "status"),
    [
        (["GET /x%zz HTTP/1.1"], 400),
        (["G@T /x HTTP/1.1"], 400),
        (["GET x HTTP/1.1"], 400),
        (["GET /x HTTP/1.1", "Content-Length: abc"], 400),
        (["GET /x HTTP/3.0"], 505),
        (["GET /x HTTP/1.1", "Transfer-Encoding: gzip"], 501),
        (["TRACE /x HTTP/1.1"], 405),
        (["CONNECT evil.test:443 HTTP/1.1"], 400),
        (["GET /x\x7f HTTP/1.1"], 400),
        (["GET /x\xe9 HTTP/1.1"], 400),
        (["GET /../x HTTP/1.1"], 400),
        (["GET /" + "x" * 9000 + " HTTP/1.1"], 414),
        (["GET /x HTTP/1.1", "Cookie: " + "x" * 9000], 431),
        (["GET /x HTTP/1.1", *(f"X-{n}: {'x' * 4000}" for n in range(12))], 431),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_malformed_request_is_refused_in_our_shape(
    site: NginxSite, stub: StubUpstream, lines: list[str], status: int
) -> None:
    """What nginx cannot read, or will not pass on, is PROXY_REFUSED, and the application never sees it."""
    (answer,) = site.exchange(raw(site, *lines))
    assert_refused(answer, status)
    assert stub.seen == []


def test_plain_http_on_the_tls_port_is_refused_in_our_shape(site: NginxSite) -> None:
    """HTTP spoken to the https port is 400, not nginx's HTML."""
    (answer,) = site.exchange(raw(site, "GET /x HTTP/1.1"), tls=False, port=site.https_port)
    assert_refused(answer, 400)


def test_a_refusal_of_head_has_no_body(site: NginxSite) -> None:
    """A HEAD request that is refused gets only the headers of the refusal."""
    answer = site.call("HEAD", "/x", host="evil.test")
    assert (answer.status, answer.body) == (421, b"")
    assert answer.headers["content-type"] == "application/json"


def test_the_error_body_cannot_be_asked_for(site: NginxSite, stub: StubUpstream) -> None:
    """The location of the error bodies is nginx's own."""
    assert_refused(site.call("GET", "/.pylon-oidc-refused"), 404)
    assert stub.seen == []


@each_of("status", [400, 401, 403, 404, 405, 413, 415, 421, 429, 500, 501, 502, 503, 504])
def test_the_applications_own_errors_pass_untouched(site: NginxSite, stub: StubUpstream, status: int) -> None:
    """An error of the application keeps its status, headers and body."""
    body = json.dumps({"error": {"code": "OURS"}}).encode()
    headers = (
        ("Content-Type", "application/json"),
        ("Retry-After", "7"),
        ("WWW-Authenticate", "Bearer"),
        ("Cache-Control", "no-store"),
    )
    stub.reply = lambda _seen: Reply(status, headers, body)
    answer = site.call("GET", "/x")
    assert (answer.status, answer.body) == (status, body)
    for name, value in headers:
        assert answer.headers.all(name) == [value]


def test_an_application_that_is_down_is_502(stub: StubUpstream) -> None:
    """Nobody at the socket: PROXY_REFUSED with Retry-After."""
    with NginxSite("unix:/nonexistent/pylon.sock") as alone:
        answer = alone.call("GET", "/x")
        assert_refused(answer, 502)
        assert answer.headers["retry-after"] == "5"
        assert_refused(alone.call("GET", "/oidc/jwks"), 502)


#: Its endpoints, those to come included.
OAUTH = (
    "token",
    "userinfo",
    "introspect",
    "revoke",
    "par",
    "device_authorization",
    "register",
    "register/c_1",
)


@each_of("prefix", ["", "/id/one"])
@each_of("endpoint", OAUTH)
def test_what_is_refused_at_an_oauth_endpoint_has_its_shape(
    site: NginxSite, stub: StubUpstream, endpoint: str, prefix: str
) -> None:
    """There `error` is always a string (RFC 6749 §5.2), whether nginx or the service refuses."""
    path = f"{prefix}/oidc/{endpoint}"
    assert_refused_by_oauth(site.call("POST", path, body=b"x" * 70_000), 413, "invalid_request")
    for host in ("evil.test", site.name, f"{site.name}:9999"):
        assert_refused_by_oauth(site.call("POST", path, host=host, body=b"x=y"), 400, "invalid_request")
    (long,) = site.exchange(raw(site, f"POST {path}?{'x' * 9000} HTTP/1.1"))
    assert_refused_by_oauth(long, 414, "invalid_request")
    for lines, status in (
        (["Cookie: " + "x" * 9000], 431),
        (["Content-Length: abc"], 400),
        (["Transfer-Encoding: gzip"], 501),
    ):
        (answer,) = site.exchange(raw(site, f"POST {path} HTTP/1.1", *lines))
        assert_refused_by_oauth(answer, status, "invalid_request")
    (traced,) = site.exchange(raw(site, f"TRACE {path} HTTP/1.1"))
    assert_refused_by_oauth(traced, 405, "invalid_request")
    assert "POST" in traced.headers["allow"]
    assert stub.seen == []
    stub.reply = lambda _seen: Reply(drop=True)
    away = site.call("POST", path, body=b"x=y")
    assert_refused_by_oauth(away, 502, "temporarily_unavailable")
    assert away.headers["retry-after"] == "5"


def test_a_refusal_of_userinfo_says_it_in_the_challenge(site: NginxSite) -> None:
    """RFC 6750 §3."""
    refused = site.call("GET", "/oidc/userinfo", host="evil.test")
    assert refused.headers.all("www-authenticate") == ['Bearer error="invalid_request"']
    assert "www-authenticate" not in site.call("GET", "/oidc/token", host="evil.test").headers


@each_of(
    "path",
    [
        "/oidc/tokens",
        "/x/oidc/token/y",
        "/token",
        "/oidc/jwks",
        "/oidc/authorize",
        "/x?y=/oidc/token",
        "/oidc/TOKEN",
    ],
)
def test_what_is_refused_elsewhere_has_our_own_shape(site: NginxSite, path: str) -> None:
    """Everything else that nginx refuses is PROXY_REFUSED."""
    assert_refused(site.call("POST", path, host="evil.test"), 421)


@each_of("prefix", ["", "/id/one"])
@each_of("endpoint", ["token", "userinfo", "revoke", "jwks"])
def test_a_page_elsewhere_can_read_what_is_refused(
    site: NginxSite, stub: StubUpstream, endpoint: str, prefix: str
) -> None:
    """CORS `*` where no cookie counts, for errors too, of nginx and of the service (Fetch §3.2)."""
    path = f"{prefix}/oidc/{endpoint}"
    too_large = site.call("POST", path, body=b"x" * 70_000)
    stub.reply = lambda _seen: Reply(drop=True)
    away = site.call("POST", path, body=b"x=y")
    assert [too_large.status, away.status] == [413, 502]
    for answer in (too_large, away):
        assert answer.headers.all("access-control-allow-origin") == ["*"]
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


@each_of("path", ["/oidc/introspect", "/oidc/authorize", "/api/auth/jwt", "/x/oidc/token/y", "/token"])
def test_what_is_refused_elsewhere_is_nobody_elses(site: NginxSite, stub: StubUpstream, path: str) -> None:
    """docs/endpoints.md: CORS `*` is for the endpoints where no cookie counts, and for no other."""
    answer = site.call("POST", path, body=b"x" * 70_000)
    assert answer.status == 413
    assert "access-control-allow-origin" not in answer.headers


def test_an_application_that_hangs_up_is_502(site: NginxSite, stub: StubUpstream) -> None:
    """A connection that ends without an answer: PROXY_REFUSED with Retry-After."""
    stub.reply = lambda _seen: Reply(drop=True)
    answer = site.call("GET", "/x")
    assert_refused(answer, 502)
    assert answer.headers["retry-after"] == "5"


def test_a_post_is_never_sent_twice(stub: StubUpstream) -> None:
    """With two servers and both hanging up, a GET is tried once more, a POST is not."""
    twice = f"{stub.address} max_fails=0;\n    server {stub.address} max_fails=0"
    with NginxSite(twice) as site:
        stub.reply = lambda _seen: Reply(drop=True)
        assert_refused(site.call("GET", "/x"), 502)
        assert [seen.method for seen in stub.seen] == ["GET", "GET"]
        stub.seen.clear()
        assert_refused(site.call("POST", "/x", body=b"{}"), 502)
        assert [seen.method for seen in stub.seen] == ["POST"]


def test_an_application_that_is_late_is_504(stub: StubUpstream) -> None:
    """No answer within the read timeout: PROXY_REFUSED with Retry-After, and not asked again."""
    # The shipped timeout is 30 s; local.conf may set a shorter one for a server block of its own.
    more = """
server {
    listen 127.0.0.1:{https_port} ssl http2;
    server_name late.example.test;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    include pylon-oidc/snippets/connection.conf;
    include pylon-oidc/snippets/errors.conf;
    proxy_next_upstream error;
    proxy_read_timeout 100ms;
    location / {
        include pylon-oidc/snippets/proxy-headers.conf;
        proxy_pass http://pylon_oidc;
    }
}
"""
    with NginxSite(stub.address, more=more) as site:
        stub.reply = lambda _seen: Reply(delay_s=0.3)
        payload = (
            f"POST /x HTTP/1.1\r\nHost: late.example.test:{site.https_port}\r\nConnection: close\r\n\r\n"
        )
        (answer,) = site.exchange(payload.encode(), sni="late.example.test")
        assert_refused(answer, 504)
        assert answer.headers["retry-after"] == "5"
        assert len(stub.seen) == 1


@each_of("given", ["abcdefgh", "A1._-" * 12, "x" * 64])
def test_a_wellformed_request_id_is_kept(site: NginxSite, stub: StubUpstream, given: str) -> None:
    """The client's id reaches the application, the answer, the log, and a refusal."""
    answer = site.call("GET", "/x", headers={"X-Request-Id": given})
    assert answer.headers.all("x-request-id") == [given]
    assert stub.seen[0].headers.all("x-request-id") == [given]
    assert site.log_lines(given)
    refused = site.call("GET", "/x", host="evil.test", headers={"X-Request-Id": given})
    assert refused.json()["error"]["request_id"] == given


@each_of("given", ["", "abcdefg", "x" * 65, "with space", 'quo"te-quote', "käse-käse", "a,b,c,d,e"])
def test_any_other_request_id_is_replaced(site: NginxSite, stub: StubUpstream, given: str) -> None:
    """An id of another form is dropped; one of nginx's takes its place everywhere."""
    answer = site.call("GET", "/x", headers={"X-Request-Id": given})
    (made,) = answer.headers.all("x-request-id")
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert stub.seen[0].headers.all("x-request-id") == [made]


def test_the_applications_request_id_header_is_not_doubled(site: NginxSite, stub: StubUpstream) -> None:
    """The answer has one X-Request-Id, though both know it."""
    stub.reply = lambda seen: Reply(headers=(("X-Request-Id", seen.headers["x-request-id"]),))
    assert len(site.call("GET", "/x").headers.all("x-request-id")) == 1


def test_a_log_line_says_what_happened(site: NginxSite) -> None:
    """One JSON object: time, id, method, path, status, sizes, durations, address, host."""
    answer = site.call("POST", "/api/auth/jwt", source=OUTSIDER, body=b"{}")
    (line,) = site.log_lines(answer.headers["x-request-id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", line["ts"])
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/auth/jwt", 200)
    assert (line["ip"], line["host"], line["bytes"]) == (OUTSIDER, site.authority, len(answer.body))
    assert line["upstream_status"] == "200"
    assert float(line["duration_s"]) >= 0
    assert float(line["upstream_s"]) >= 0


def test_the_log_line_of_a_refusal_keeps_method_and_path(site: NginxSite) -> None:
    """The error page changes neither in the log."""
    answer = site.call("POST", "/api/auth/session", source=OUTSIDER, body=b"{}")
    (line,) = site.log_lines(answer.headers["x-request-id"])
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/auth/session", 403)


def test_no_log_has_a_query_string_or_a_credential(stub: StubUpstream) -> None:
    """Queries, fragments, Referer, Cookie and Authorization are in no log, whether the request succeeds or fails."""
    headers = {
        "Authorization": f"Bearer {CANARY}",
        "Cookie": f"pylon_session={CANARY}",
        "Referer": f"https://app.example.test/?{CANARY}",
    }
    with NginxSite(stub.address) as site:
        targets = [
            f"/oidc/authorize?state={CANARY}",
            f"/x?{CANARY}",
            f"/readyz?{CANARY}",
            f"/a//b?{CANARY}",
            f"/%zz?{CANARY}",
        ]
        for target in targets:
            site.call("GET", target, headers=headers, source=OUTSIDER)
            site.call("GET", target, headers=headers, host="evil.test")
            site.call("GET", target, headers=headers, tls=False)
        stub.reply = lambda _seen: Reply(drop=True)
        last = site.call("GET", f"/x?{CANARY}", headers=headers)
        assert last.status == 502
        assert site.log_lines(last.headers["x-request-id"])
        logs = {log.name: log.read_text() for log in site.folder.glob("*.log")}
    assert "access.log" in logs
    assert "/oidc/authorize" in logs["access.log"]
    assert CANARY not in "".join(logs.values())
    assert logs["main-access.log"] == ""


@each_of("hostile", ['"},{"x', "\\", "\x7f", "\xe9\xff", "'$uri"])
def test_a_hostile_log_line_stays_one_json_object(site: NginxSite, hostile: str) -> None:
    """Quotes, control characters and bytes that are no UTF-8 break no line, in the path and in `Host`."""
    answer = site.call("GET", f"/a{hostile}", host=f"e{hostile}.test")
    assert answer.status in {400, 421}
    (line,) = site.log_lines(answer.headers["x-request-id"])
    assert line["status"] == answer.status
