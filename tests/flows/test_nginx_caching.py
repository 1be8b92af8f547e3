"""Discovery and JWKS through the shipped site: kept as long as the application says, and not a second longer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import jwt
import pytest
import requests

from tests.support.cases import each_of
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn, hold_port, rsa_pem
from tests.support.nginx import (
    OUTSIDER,
    NginxSite,
    Reply,
    Seen,
    StubUpstream,
    assert_refused,
    http_date,
    names_resolve_here,
)
from tests.support.pace import in_time

PUBLIC = ("Cache-Control", "public, max-age=300")
DOCUMENTS = [
    "{}/.well-known/openid-configuration",
    "{}/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration{}",
    "/.well-known/oauth-authorization-server{}",
    "{}/oidc/jwks",
]
OTHER = "other.example.test"
SECOND = """
server {
    listen 127.0.0.1:{https_port} ssl http2;
    server_name other.example.test;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    access_log {folder}/access.log pylon_oidc;
    include pylon-oidc/snippets/service.conf;
}
"""


class Numbered:
    """An application that answers 1, 2, 3, … with the given headers."""

    def __init__(self, *headers: tuple[str, str], status: int = 200) -> None:
        self._headers, self._status, self._count = headers, status, itertools.count(1)

    def __call__(self, _seen: Seen) -> Reply:
        return Reply(
            self._status, (("Content-Type", "application/json"), *self._headers), b"%d" % next(self._count)
        )


@pytest.fixture(scope="module")
def site(stub: StubUpstream) -> Iterator[NginxSite]:
    with NginxSite(stub.address, more=SECOND) as running:
        yield running


_paths = itertools.count()


@pytest.fixture
def prefix(stub: StubUpstream) -> str:
    """An issuer path that nothing is cached under yet."""
    stub.forget()
    return f"/t{next(_paths)}"


@each_of("document", DOCUMENTS)
def test_a_public_document_is_kept(site: NginxSite, stub: StubUpstream, prefix: str, document: str) -> None:
    """With `public, max-age=300` the application is asked once, at the root of an issuer path and inserted."""
    stub.reply = Numbered(PUBLIC)
    path = document.format(prefix)
    answers = [site.call("GET", path) for _ in range(4)]
    assert [answer.body for answer in answers] == [b"1"] * 4
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4


def test_the_documents_of_a_root_issuer_are_kept(stub: StubUpstream) -> None:
    """The exact paths too."""
    stub.forget()
    with NginxSite(stub.address) as site:
        for document in DOCUMENTS:
            stub.reply = Numbered(PUBLIC)
            assert {site.call("GET", document.format("")).body for _ in range(3)} == {b"1"}
            stub.reply = Numbered(("Cache-Control", "no-store"))


@each_of("document", DOCUMENTS)
@each_of(
    "header",
    [
        ("Cache-Control", "no-store"),
        ("Cache-Control", "private, max-age=300"),
        ("Cache-Control", "public, max-age=0"),
        ("X-Nothing", "no cache header at all"),
    ],
    ids=lambda header: header[1],
)
def test_what_may_not_be_kept_is_not(
    site: NginxSite, stub: StubUpstream, prefix: str, document: str, header: tuple[str, str]
) -> None:
    """Without the application's leave every request reaches it."""
    stub.reply = Numbered(header, ("Vary", "Host"))
    assert [site.call("GET", document.format(prefix)).body for _ in range(3)] == [b"1", b"2", b"3"]


def test_an_answer_that_sets_a_cookie_is_not_kept(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """Whatever its Cache-Control says."""
    stub.reply = Numbered(PUBLIC, ("Set-Cookie", "a=b"))
    assert [site.call("GET", f"{prefix}/oidc/jwks").body for _ in range(2)] == [b"1", b"2"]


@each_of("status", [404, 500, 503])
def test_an_error_is_not_kept(site: NginxSite, stub: StubUpstream, prefix: str, status: int) -> None:
    """Errors carry no max-age, and are asked for again."""
    stub.reply = Numbered(("Cache-Control", "no-store"), status=status)
    answers = [site.call("GET", f"{prefix}/oidc/jwks") for _ in range(2)]
    assert [(answer.status, answer.body) for answer in answers] == [(status, b"1"), (status, b"2")]


@each_of("path", ["/oidc/authorize", "/api/auth/me", "/oidc/userinfo", "/oidc/jwks/x", "/healthz", "/"])
def test_nothing_else_is_kept(site: NginxSite, stub: StubUpstream, prefix: str, path: str) -> None:
    """Only the public documents are, though another answer should say that it may be."""
    stub.reply = Numbered(PUBLIC)
    assert [site.call("GET", prefix + path).body for _ in range(2)] == [b"1", b"2"]


def test_a_document_is_kept_for_its_max_age_and_no_longer(
    site: NginxSite, stub: StubUpstream, prefix: str
) -> None:
    """After max-age the application is asked again, and its new answer is what everybody gets."""
    stub.reply = Numbered(("Cache-Control", "public, max-age=1"))
    path = f"{prefix}/oidc/jwks"
    assert site.call("GET", path).body == b"1"
    end = time.monotonic() + 60
    while (body := site.call("GET", path).body) == b"1" and time.monotonic() < end:
        time.sleep(0.05)
    assert body == b"2"
    # No worker has the old file still open.
    assert b"1" not in {site.call("GET", path).body for _ in range(8)}


def test_nothing_stale_is_served(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """When the application is gone after max-age, the answer is its error and not the old document."""
    stub.reply = Numbered(("Cache-Control", "public, max-age=1"))
    path = f"{prefix}/oidc/jwks"
    assert site.call("GET", path).body == b"1"
    stub.reply = lambda _seen: Reply(drop=True)
    end = time.monotonic() + 60
    while (answer := site.call("GET", path)).status == 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert_refused(answer, 502)


def test_the_date_of_a_kept_document_is_when_it_was_made(
    site: NginxSite, stub: StubUpstream, prefix: str
) -> None:
    """So that a cache behind nginx computes the age, and both together do not exceed max-age (RFC 9111 §4.2.3)."""
    made = http_date(time.time() - 100)
    stub.reply = Numbered(PUBLIC, ("Date", made))
    answers = [site.call("GET", f"{prefix}/oidc/jwks") for _ in range(2)]
    assert [answer.headers.all("date") for answer in answers] == [[made], [made]]


def test_the_query_string_counts_for_nothing(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """It makes no entry of its own, and the application never sees it."""
    stub.reply = Numbered(PUBLIC)
    path = f"{prefix}/oidc/jwks"
    assert {
        site.call("GET", path + query).body for query in ("?poison=1", "", "?", "?cb=2", "?a=1&b=%zz")
    } == {b"1"}
    assert [seen.target for seen in stub.seen] == [path]


def test_credentials_do_not_reach_a_public_document(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """Authorization and Cookie are dropped: the document is the same for everybody."""
    site.call(
        "GET", f"{prefix}/oidc/jwks", headers={"Authorization": "Bearer x", "Cookie": "pylon_session=x"}
    )
    assert stub.seen[0].credential_free()


@each_of(
    "header",
    ["X-Forwarded-Host", "X-Forwarded-Prefix", "X-Original-URL", "X-Rewrite-URL", "Forwarded", "X-Host"],
)
def test_no_header_poisons_a_document(site: NginxSite, stub: StubUpstream, prefix: str, header: str) -> None:
    """A header that is not in the key does not reach the application."""
    stub.reply = lambda seen: Reply(headers=(PUBLIC,), body=str(seen.headers).encode())
    assert b"evil" not in site.call("GET", f"{prefix}/oidc/jwks", headers={header: "evil"}).body


def test_each_name_has_its_own_entry(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """Two names on one nginx do not share documents."""
    stub.reply = lambda seen: Reply(headers=(PUBLIC,), body=seen.headers["host"].encode())
    path = f"{prefix}/.well-known/openid-configuration"
    other = f"{OTHER}:{site.https_port}"
    for _ in range(2):
        assert site.call("GET", path).body == site.authority.encode()
        (answer,) = site.exchange(f"GET {path} HTTP/1.0\r\nHost: {other}\r\n\r\n".encode(), sni=OTHER)
        assert answer.body == other.encode()


def test_spellings_of_one_name_share_an_entry(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """Upper case and a trailing dot multiply nothing."""
    stub.reply = Numbered(PUBLIC)
    port = site.https_port
    hosts = [f"{site.name}:{port}", f"{site.name.upper()}:{port}", f"{site.name}.:{port}"]
    assert {site.call("GET", f"{prefix}/oidc/jwks", host=host).body for host in hosts} == {b"1"}


def test_vary_is_honoured(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """An answer that varies by a header is kept for each of its values."""
    stub.reply = Numbered(PUBLIC, ("Vary", "Accept-Language"))
    path = f"{prefix}/oidc/jwks"
    languages = ["en", "de", "en", "de"]
    bodies = [site.call("GET", path, headers={"Accept-Language": language}).body for language in languages]
    assert bodies == [b"1", b"2", b"1", b"2"]


def test_head_and_get_share_an_entry(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """HEAD fills the entry with the whole document, and has no body itself."""
    stub.reply = Numbered(PUBLIC)
    head = site.call("HEAD", f"{prefix}/oidc/jwks")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "1")
    assert site.call("GET", f"{prefix}/oidc/jwks").body == b"1"


@each_of("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_another_method_passes_by_the_cache(
    site: NginxSite, stub: StubUpstream, prefix: str, method: str
) -> None:
    """It neither takes nor leaves an entry."""
    stub.reply = Numbered(PUBLIC)
    path = f"{prefix}/{method.lower()}/oidc/jwks"
    assert site.call(method, path).body == b"1"
    assert [site.call("GET", path).body for _ in range(2)] == [b"2", b"2"]
    assert site.call(method, path).body == b"3"
    assert [seen.method for seen in stub.seen] == [method, "GET", method]


def test_a_condition_fills_no_entry_with_304(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """If-None-Match is answered by nginx from the whole document, kept under its strong ETag."""
    stub.reply = lambda seen: (
        Reply(304, (PUBLIC, ("ETag", '"v1"')))
        if "if-none-match" in seen.headers
        else Reply(200, (PUBLIC, ("ETag", '"v1"')), b"document")
    )
    path = f"{prefix}/oidc/jwks"
    conditional = [site.call("GET", path, headers={"If-None-Match": '"v1"'}) for _ in range(2)]
    assert [answer.status for answer in conditional] == [304, 304]
    assert [answer.headers["etag"] for answer in conditional] == ['"v1"', '"v1"']
    whole = site.call("GET", path, headers={"If-None-Match": '"other"', "Accept-Encoding": "gzip"})
    assert (whole.status, whole.body, whole.headers["etag"]) == (200, b"document", '"v1"')


def test_requests_for_what_is_not_kept_do_not_queue(site: NginxSite, stub: StubUpstream, prefix: str) -> None:
    """Discovery of a derived issuer (no-store) is answered to many at once, none waiting for another."""
    stub.reply = lambda _seen: Reply(headers=(("Cache-Control", "no-store"),), delay_s=0.05)

    def ask(_: int) -> float:
        begun = time.monotonic()
        assert site.call("GET", f"{prefix}/.well-known/openid-configuration").status == 200
        return time.monotonic() - begun

    with ThreadPoolExecutor(10) as pool:
        # In a queue of nginx's, which advances every 0.5 s, the last waits 5 s.
        assert in_time(max(pool.map(ask, range(20))), 2.5)


# With the real application


@pytest.fixture(scope="module")
def configured() -> Iterator[NginxSite]:
    """The application with PYLON_OIDC_ISSUER, behind the site."""
    with hold_port() as held:
        port = held.getsockname()[1]
    with (
        Gunicorn(
            unix=True,
            PYLON_OIDC_ISSUER=f"https://id.example.test:{port}",
            PYLON_ADMIN_TOKEN=ADMIN,
            PYLON_JWT_ALG="RS256",
            PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        ) as server,
        NginxSite(f"unix:{server.socket_path}", public_port=port) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def derived() -> Iterator[tuple[NginxSite, Gunicorn]]:
    """The application without an issuer, which takes it from `Host`."""
    with (
        Gunicorn(
            unix=True,
            PYLON_ADMIN_TOKEN=ADMIN,
            PYLON_JWT_SECRET=SECRET,
            PYLON_JWT_ALG="RS256",
            PYLON_JWT_AUDIENCE="api",
            PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        ) as server,
        NginxSite(f"unix:{server.socket_path}") as running,
    ):
        yield running, server


@each_of(
    "path", ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/oidc/jwks"]
)
def test_a_configured_issuers_documents_come_from_the_cache(configured: NginxSite, path: str) -> None:
    """The second answer is nginx's, equal to the first in everything but the request id; CORS `*` once, ETag and 304."""
    first = configured.call("GET", path, headers={"Origin": "https://spa.example.test"})
    second = configured.call("GET", path)
    assert first.status == second.status == 200
    assert first.body == second.body
    for answer in (first, second):
        assert answer.headers.all("access-control-allow-origin") == ["*"]
        assert answer.headers.all("cache-control") == ["public, max-age=300"]
        assert len(answer.headers.all("date")) == 1
        assert answer.headers.all("x-content-type-options") == ["nosniff"]
        assert answer.headers["etag"].startswith('"')
    (line,) = configured.log_lines(second.headers["x-request-id"])
    assert line["cache"] == "HIT"
    again = configured.call("GET", path, headers={"If-None-Match": second.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_a_configured_issuer_ignores_nothing_of_the_guard(configured: NginxSite) -> None:
    """The port guard is in front of the cache too."""
    configured.call("GET", "/oidc/jwks")
    assert_refused(configured.call("GET", "/oidc/jwks", host="id.example.test"), 421)


def test_an_issuer_with_a_path_is_served_and_kept_below_it() -> None:
    """Discovery under the path and in the inserted form, JWKS, and 404 outside, through the same snippets."""
    with hold_port() as held:
        port = held.getsockname()[1]
    issuer = f"https://id.example.test:{port}/tenant"
    with (
        Gunicorn(
            unix=True, PYLON_OIDC_ISSUER=issuer, PYLON_JWT_ALG="RS256", PYLON_OIDC_PRIVATE_KEY=rsa_pem()
        ) as server,
        NginxSite(f"unix:{server.socket_path}", public_port=port) as site,
    ):
        for document in DOCUMENTS:
            answers = [site.call("GET", document.format("/tenant"), source=OUTSIDER) for _ in range(2)]
            assert [answer.status for answer in answers] == [200, 200]
            (line,) = site.log_lines(answers[1].headers["x-request-id"])
            assert line["cache"] == "HIT"
        discovery = site.call("GET", "/.well-known/openid-configuration/tenant").json()
        assert discovery["issuer"] == issuer
        assert site.call("GET", "/.well-known/openid-configuration").status == 404
        assert site.call("GET", "/oidc/jwks").status == 404


def test_a_derived_issuer_is_the_public_name_and_port(derived: tuple[NginxSite, Gunicorn]) -> None:
    """Through the site, at a name and port of its own, discovery's issuer is that name and port, and is not kept."""
    site, _ = derived
    for _ in range(2):
        answer = site.call("GET", "/.well-known/openid-configuration", source=OUTSIDER)
        assert answer.json()["issuer"] == site.origin
        assert answer.json()["jwks_uri"] == f"{site.origin}/oidc/jwks"
        assert answer.headers.all("cache-control") == ["no-store"]
        (line,) = site.log_lines(answer.headers["x-request-id"])
        assert line["cache"] == "MISS"
    spelled = site.call(
        "GET", "/.well-known/openid-configuration", host=f"{site.name.upper()}.:{site.https_port}"
    )
    assert spelled.json()["issuer"] == site.origin


def test_a_stock_library_verifies_a_token_through_nginx(derived: tuple[NginxSite, Gunicorn]) -> None:
    """Minted through nginx, `iss` is byte-identical to discovery's, and PyJWT verifies it by `jwks_uri` over TLS."""
    site, server = derived
    session = {"Authorization": f"Bearer {server.sign_in('u1')}"}
    token = site.call("POST", "/api/auth/jwt", source=OUTSIDER, headers=session).json()["token"]
    with names_resolve_here(site.name):
        discovery = requests.get(
            f"{site.origin}/.well-known/openid-configuration", verify=str(site.ca), timeout=10
        ).json()
        key = jwt.PyJWKClient(discovery["jwks_uri"], ssl_context=site.trust()).get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, algorithms=["RS256"], audience="api", issuer=discovery["issuer"])
    assert claims["iss"] == discovery["issuer"] == site.origin
    assert claims["sub"] == "u1"


def test_log_and_answer_and_application_log_agree(derived: tuple[NginxSite, Gunicorn]) -> None:
    """One request id in the answer, in nginx's line and in the application's, with the client's address in both."""
    site, server = derived
    answer = site.call("GET", "/api/auth/me", source=OUTSIDER)
    request_id = answer.headers["x-request-id"]
    assert answer.json()["error"]["request_id"] == request_id
    (ours,) = site.log_lines(request_id)
    (theirs,) = [line for line in server.log_lines() if line.get("request_id") == request_id]
    assert ours["status"] == theirs["status"] == 401
    assert ours["ip"] == theirs["ip"] == OUTSIDER


def test_the_date_of_the_real_application_goes_along(configured: NginxSite) -> None:
    """gunicorn's Date is what nginx keeps."""
    path = "/oidc/jwks"
    dates = {configured.call("GET", path).headers["date"] for _ in range(2)}
    assert len(dates) == 1
    assert abs(parsedate_to_datetime(dates.pop()).timestamp() - time.time()) < 60
