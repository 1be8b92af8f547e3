"""What only the app's backends may reach, and that no spelling of a path gets around it."""

from __future__ import annotations

import pytest

from tests.support.cases import each_of
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn
from tests.support.nginx import (
    BACKEND,
    OUTSIDER,
    NginxSite,
    StubUpstream,
    assert_refused,
    assert_refused_by_oauth,
)

pytestmark = pytest.mark.usefixtures("fresh")

CLOSED = [
    ("POST", "/api/auth/session"),
    ("GET", "/api/auth/session"),
    ("PUT", "/api/auth/session"),
    ("PATCH", "/api/auth/session"),
    ("GET", "/api/auth/users/u1/sessions"),
    ("DELETE", "/api/auth/users/u1/sessions"),
    ("PUT", "/api/auth/users/u1"),
    ("OPTIONS", "/api/auth/users/u1"),
    ("GET", "/api/auth/users"),
    ("GET", "/api/auth/users/a%2Fb%20c%25/sessions"),
    ("GET", "/api/oidc/clients"),
    ("POST", "/api/oidc/clients"),
    ("POST", "/api/oidc/interactions/i1/login"),
    ("GET", "/api/oidc/grants?user_id=u"),
    ("GET", "/api/oidc"),
    ("GET", "/readyz"),
    ("HEAD", "/readyz"),
]
OPEN = [
    ("DELETE", "/api/auth/session"),
    ("OPTIONS", "/api/auth/session"),
    ("GET", "/api/auth/me"),
    ("POST", "/api/auth/jwt"),
    ("POST", "/api/auth/refresh"),
    ("GET", "/api/auth/sessions"),
    ("DELETE", "/api/auth/sessions"),
    ("DELETE", "/api/auth/sessions/abc"),
    ("POST", "/api/auth/sessions/trusted-mint"),
    ("GET", "/oidc/authorize?x=/api/oidc/clients"),
    ("GET", "/oidc/interaction/abc"),
    ("GET", "/healthz"),
    ("GET", "/oidc/jwks"),
    ("GET", "/.well-known/openid-configuration"),
    ("GET", "/"),
]
# Spellings of a closed path, of which the application may or may not make the same: all are refused.
SPELLINGS = [
    "//api/auth/session",
    "/api//auth/session",
    "/api/auth//session",
    "/api/./auth/session",
    "/api/auth/./session",
    "/api/auth/x/../session",
    "/api/auth/session/",
    "/api/auth/session/.",
    "/api/auth/session/..",
    "/api/auth/session//",
    "/api/auth/session;x",
    "/api/auth/session;x=1/",
    "/api/auth/session.json",
    "/api/auth/session%00",
    "/api/auth/session%20",
    "/api/auth/session%2f",
    "/api/auth/session%3f",
    "/api/auth/session%23",
    "/api/auth/session?x",
    "/api/auth/session?/../../me",
    "/api/auth/session#x",
    "/api/auth/sessio%6e",
    "/api/auth/%73ession",
    "/api/auth%2fsession",
    "/api%2Fauth%2Fsession",
    "/%61pi/auth/session",
    "/api/auth/%2e/session",
    "/api/auth/x/%2e%2e/session",
    "/api/auth/x/.%2E/session",
    "/api/auth/me/..;/session",
    "/api/auth/me%2f..%2fsession",
    "/api/auth/me%252f..%252fsession",
    "/api/auth/%u0073ession",
    "/api/auth\\session",
    "/api/auth/me\\..\\session",
    "/api/auth/me%5c..%5csession",
    "/API/AUTH/SESSION",
    "/Api/auth/Session",
    "/tenant/api/auth/session",
    "/a/b/api/auth/session",
    "/api/auth/session/api/auth/me",
    "/api/oidc/../auth/session",
    "/api/auth/users/../session",
    "/api/auth/users/%2e%2e/me",
    "/api/auth/users/..%2fme",
    "/api/auth/users/x%2f..%2f..%2fme",
    "/api/auth/users/x/../../me/sessions",
    "/api/auth/users/x%2F%2e%2E%2f/sessions",
    "/api/auth/users/u1;x/sessions",
    "/api/auth/users/u1/sessions?x",
    "/api/auth/users;x/u1/sessions",
    "/API/auth/USERS/u1/sessions",
    "/tenant/api/auth/users/u1/sessions",
    "/api/auth/users%2fu1/sessions",
    "/api/oidc/%2e%2e/auth/me",
    "/api/oidc/clients/%00",
    "/api/oidc;x/clients",
    "/tenant/api/oidc/clients",
    "/api/%6fidc/clients",
    "/.well-known/openid-configuration/api/oidc/clients",
    "/oidc/interaction/..%2f..%2fapi/oidc/clients",
    "/api/oidc/clients/.well-known/openid-configuration",
    "/api/auth/users/x/oidc/jwks",
    "/readyz/",
    "//readyz",
    "/readyz;x",
    "/readyz%20",
    "/%72eadyz",
    "/READYZ",
    "/tenant/readyz",
    "/healthz/../readyz",
    "/healthz/..;/readyz",
    "/x/..%2freadyz",
]


@each_of(("method", "target"), CLOSED)
def test_admin_paths_are_closed_to_others(
    site: NginxSite, stub: StubUpstream, method: str, target: str
) -> None:
    """From an address that is not in allow-app.conf it is 403, and the application never sees it."""
    answer = site.call(method, target, source=OUTSIDER, headers={"Authorization": f"Bearer {ADMIN}"})
    assert answer.status == 403
    if method != "HEAD":
        assert_refused(answer, 403)
    assert stub.seen == []


@each_of(("method", "target"), CLOSED)
def test_admin_paths_are_open_to_the_backends(
    site: NginxSite, stub: StubUpstream, method: str, target: str
) -> None:
    """From an address in allow-app.conf they pass as sent."""
    assert site.call(method, target, source=BACKEND).status == 200
    assert [seen.target for seen in stub.seen] == [target]


@each_of(("method", "target"), OPEN)
def test_everything_else_is_open_to_everybody(
    site: NginxSite, stub: StubUpstream, method: str, target: str
) -> None:
    """Signing out, minting, the protocol and the public documents are not closed."""
    assert site.call(method, target, source=OUTSIDER).status == 200
    assert [seen.target for seen in stub.seen] == [target]


@each_of("target", SPELLINGS)
@each_of("method", ["POST", "GET"])
def test_no_spelling_gets_around_it(site: NginxSite, stub: StubUpstream, target: str, method: str) -> None:
    """However the path is written, nothing of it reaches the application from elsewhere."""
    answer = site.call(method, target, source=OUTSIDER)
    assert answer.status in {400, 403, 404}
    assert_refused(answer, answer.status)
    assert stub.seen == []


@each_of("forged", ["127.0.0.1", "::1", "unix:"])
@each_of("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP"])
def test_no_header_makes_an_outsider_a_backend(
    site: NginxSite, stub: StubUpstream, header: str, forged: str
) -> None:
    """The address is the connection's."""
    assert_refused(site.call("GET", "/readyz", source=OUTSIDER, headers={header: forged}), 403)
    assert stub.seen == []


@each_of("header", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
def test_no_header_makes_a_delete_a_post(site: NginxSite, stub: StubUpstream, header: str) -> None:
    """The open DELETE stays one: a header that some frameworks take for the method is dropped."""
    site.call("DELETE", "/api/auth/session", source=OUTSIDER, headers={header: "POST"})
    assert header not in stub.seen[0].headers


def test_the_session_path_is_guarded_like_every_other(site: NginxSite, stub: StubUpstream) -> None:
    """Host and path are checked on the closed methods of the session path too, for the backends as well."""
    for method in ("POST", "DELETE"):
        assert_refused(site.call(method, "/api/auth/session", host=site.name), 421)
        assert_refused(site.call(method, "//api/auth/session"), 400)
    assert stub.seen == []


@each_of("target", ["/dev/sign-in", "/dev/sign-in/", "/DEV/sign-in", "/tenant/dev/sign-in", "/dev/sign-in?x"])
@each_of("source", [BACKEND, OUTSIDER])
def test_the_dev_sign_in_is_closed_to_all(
    site: NginxSite, stub: StubUpstream, target: str, source: str
) -> None:
    """The sign-in page of dev mode never answers through nginx."""
    for method in ("GET", "POST"):
        assert_refused(site.call(method, target, source=source), 404)
    assert stub.seen == []


@each_of(
    ("allow_app", "backend", "outsider"),
    [("allow 127.0.0.2;\n", 200, 403), ("", 403, 403), ("allow 127.0.0.0/8;\n", 200, 200)],
    ids=["another address", "nobody", "a network"],
)
def test_allow_app_conf_says_who_is_a_backend(
    stub: StubUpstream, allow_app: str, backend: int, outsider: int
) -> None:
    """The operator's file is what counts; without a line in it nobody passes."""
    with NginxSite(stub.address, allow_app=allow_app) as site:
        assert site.call("GET", "/readyz", source="127.0.0.2").status == backend
        assert site.call("GET", "/readyz", source="127.0.0.3").status == outsider
        assert site.call("POST", "/api/auth/session", source="127.0.0.2", body=b"{}").status == backend
        assert site.call("POST", "/api/auth/session", source="127.0.0.3", body=b"{}").status == outsider
        assert site.call("DELETE", "/api/auth/session", source="127.0.0.3").status == 200


def test_sessions_through_nginx_with_the_real_application() -> None:
    """A backend signs a user in and anybody with the token signs out; an outsider with the admin token signs nobody in."""
    with (
        Gunicorn(unix=True, PYLON_JWT_SECRET=SECRET, PYLON_ADMIN_TOKEN=ADMIN) as server,
        NginxSite(f"unix:{server.socket_path}") as site,
    ):
        admin = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
        body = b'{"user_id": "u1"}'
        assert_refused(site.call("POST", "/api/auth/session", source=OUTSIDER, headers=admin, body=body), 403)
        made = site.call("POST", "/api/auth/session", source=BACKEND, headers=admin, body=body)
        assert made.status == 201
        mine = {"Authorization": f"Bearer {made.json()['token']}"}
        assert site.call("GET", "/api/auth/me", source=OUTSIDER, headers=mine).json()["user_id"] == "u1"
        assert site.call("DELETE", "/api/auth/session", source=OUTSIDER, headers=mine).json() == {
            "revoked": True
        }
        assert site.call("GET", "/api/auth/me", source=OUTSIDER, headers=mine).status == 401
        assert_refused(site.call("GET", "/readyz", source=OUTSIDER), 403)
        assert site.call("GET", "/readyz", source=BACKEND).status == 200


@each_of("prefix", ["", "/id/one"])
@each_of(
    "shown",
    [
        "Bearer {admin}",
        "bearer {admin}",
        "BEARER  {admin}",
        "Bearer\t{admin}",
        "DPoP {admin}",
        "Basicx {admin}",
    ],
)
def test_introspection_by_the_admin_token_is_the_backends(
    site: NginxSite, stub: StubUpstream, shown: str, prefix: str
) -> None:
    """Credentials other than a client's Basic are refused from elsewhere, in OAuth's form, and accepted from the backends."""
    path, headers = f"{prefix}/oidc/introspect", {"Authorization": shown.format(admin=ADMIN)}
    refused = site.call("POST", path, source=OUTSIDER, headers=headers, body=b"token=x")
    assert_refused_by_oauth(refused, 403, "access_denied")
    assert stub.seen == []
    assert site.call("POST", path, source=BACKEND, headers=headers, body=b"token=x").status == 200
    (seen,) = stub.seen
    assert (seen.method, seen.target, seen.body) == ("POST", path, b"token=x")
    assert seen.headers["authorization"] == headers["Authorization"]


@each_of("shown", [None, "Basic Yzpz", "basic Yzpz"])
def test_introspection_by_a_client_is_open(site: NginxSite, stub: StubUpstream, shown: str | None) -> None:
    """Relying parties ask from anywhere: by Basic, or in the form."""
    headers = {} if shown is None else {"Authorization": shown}
    assert site.call("POST", "/oidc/introspect", source=OUTSIDER, headers=headers, body=b"x=y").status == 200
    assert stub.seen[0].body == b"x=y"


def test_a_second_credential_does_not_hide_the_admin_token(site: NginxSite, stub: StubUpstream) -> None:
    """Two `Authorization` headers are refused before anybody chooses between them."""
    lines = ["POST /oidc/introspect HTTP/1.1", f"Host: {site.authority}", "Authorization: Basic Yzpz"]
    lines += [f"Authorization: Bearer {ADMIN}", "Connection: close", "", ""]
    (answer,) = site.exchange("\r\n".join(lines).encode(), source=OUTSIDER)
    assert_refused_by_oauth(answer, 400, "invalid_request")
    assert stub.seen == []
