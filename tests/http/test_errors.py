"""docs/errors.md: one shape for every refusal, and the headers of every answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from service.handles import with_secret
from service.storage.interface import StoreUnavailable
from tests.http.broken_store import BrokenStore
from tests.http.conftest import Serve
from tests.http.driver import House, check_standing_headers, refused
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

pytestmark = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
GRANT_ID = "0" * 26
ACCESS_TOKEN = with_secret("access token", GRANT_ID, "a" * 43)
FORM = "application/x-www-form-urlencoded"
WITH_CLIENTS = {
    "PYLON_OIDC_ISSUER": "https://id.example.test",
    "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
    "PYLON_LOGIN_URL": "https://app.example.test/sign-in",
}

# Path, methods. HEAD goes with GET where looking does nothing, OPTIONS with every route.
ROUTES: dict[str, set[str]] = {
    "/.well-known/openid-configuration": {"GET"},
    "/.well-known/oauth-authorization-server": {"GET"},
    "/oidc/jwks": {"GET"},
    "/oidc/authorize": {"GET", "POST"},
    "/oidc/interaction/some-id": {"GET", "POST"},
    "/oidc/token": {"POST"},
    "/oidc/userinfo": {"GET", "POST"},
    "/oidc/introspect": {"POST"},
    "/oidc/revoke": {"POST"},
    "/oidc/logout": {"GET", "POST"},
    "/oidc/style.css": {"GET"},
    "/api/oidc/clients": {"GET", "POST"},
    "/api/oidc/clients/some-client": {"GET", "PUT", "DELETE"},
    "/api/oidc/clients/some-client/secret": {"POST"},
    "/api/oidc/grants": {"GET"},
    "/api/oidc/grants/some-grant": {"DELETE"},
    "/api/oidc/interactions/some-id": {"GET"},
    "/api/oidc/interactions/some-id/login": {"POST"},
    "/api/oidc/interactions/some-id/consent": {"POST"},
    "/api/oidc/interactions/some-id/reject": {"POST"},
    "/api/auth/users/user-1": {"PUT"},
    "/api/auth/session": {"POST", "DELETE"},
    "/api/auth/sessions": {"GET", "DELETE"},
    "/api/auth/sessions/trusted-mint": {"POST"},
    "/api/auth/sessions/some-sid": {"DELETE"},
    "/api/auth/users/user-1/sessions": {"GET", "DELETE"},
    "/api/auth/me": {"GET"},
    "/api/auth/refresh": {"POST"},
    "/api/auth/jwt": {"POST"},
    "/healthz": {"GET"},
    "/readyz": {"GET"},
}
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "FOO",
    "get",
    "\xc9",
    "X" * 300,
]


#: Looking at these does something: a code is given, a user signed out.
NO_HEAD = {"/oidc/authorize", "/oidc/interaction/some-id", "/oidc/logout"}
#: Another name under these, with a slash at its end or anything else, is another user or client.
NAMES = ("/api/auth/users/", "/api/oidc/clients/")


def _allowed(path: str) -> set[str]:
    head = {"HEAD"} if "GET" in ROUTES[path] and path not in NO_HEAD else set()
    return ROUTES[path] | {"OPTIONS"} | head


@each_of("path", ROUTES)
def test_another_method_is_405_with_allow(house: House, path: str) -> None:
    """405 (`METHOD_NOT_ALLOWED`) with `Allow` (RFC 9110 §15.5.6), in the `/api` shape everywhere."""
    allowed = _allowed(path)
    for method in METHODS:
        if method in allowed:
            continue
        answer = house.ask(method, path)
        assert answer.status == 405, (method, answer)
        if method != "HEAD":
            refused(answer, 405, "METHOD_NOT_ALLOWED")
        assert set(answer.headers["Allow"].split(", ")) == allowed, method


@each_of("path", ROUTES)
def test_a_405_needs_no_credential(house: House, path: str) -> None:
    """405 comes before 401 and 403: which methods exist is not secret."""
    refused(house.ask("PATCH", path, body=b"{", content_type="text/plain"), 405, "METHOD_NOT_ALLOWED")


def test_head_of_what_acts_is_refused(house: House) -> None:
    """Nobody looks at these without doing it: HEAD is 405, and `Allow` does not name it."""
    for path in NO_HEAD:
        answer = house.ask("HEAD", path)
        assert answer.status == 405
        assert "HEAD" not in answer.headers["Allow"].split(", ")


@each_of("path", ROUTES)
def test_options_names_the_methods(house: House, path: str) -> None:
    """RFC 9110 §9.3.7: OPTIONS says which methods are allowed; with the headers of every answer."""
    answer = house.ask("OPTIONS", path)
    assert answer.status in {200, 204}
    assert set(answer.headers["Allow"].split(", ")) | {"OPTIONS"} == _allowed(path)
    check_standing_headers(answer)


NOWHERE = [
    "/",
    "/nothing",
    "/api",
    "/api/",
    "/api/auth",
    "/api/auth/",
    "/api/auth/me/",
    "/API/auth/me",
    "/api/auth/me/x",
    "/oidc/",
    "/oidc/jwks/",
    "/.well-known/",
    "/.well-known/jwks.json",
    "/healthz/",
    "/favicon.ico",
    "/robots.txt",
    "//healthz",
    "/../healthz",
    "/api/auth/sessions/a/b",
    "/<script>alert(1)</script>",
    "/\xff\xfe",
    "/\0",
    "/a" * 4000,
    "/api/auth//me",
]


@each_of("path", NOWHERE)
def test_an_unknown_path_is_404(house: House, path: str) -> None:
    """404 (`NOT_FOUND`), and no echo of the path."""
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "FOO"):
        answer = house.ask(method, path)
        assert answer.status == 404, (method, answer)
        if method != "HEAD":
            assert refused(answer, 404, "NOT_FOUND")["message"] == "There is nothing here."


@each_of("path", ROUTES)
def test_no_route_has_a_second_spelling(house: House, path: str) -> None:
    """404: a proxy that guards a path by its name guards all of it."""
    first, _, rest = path.removeprefix("/").partition("/")
    for other in (
        f"/{path}",
        f"//{path}",
        f"{path}/",
        f"/./{first}/{rest}",
        f"/{first}//{rest}",
        path.upper(),
    ):
        if other == "/api/auth/sessions/":  # that is an empty sid, which no session has
            continue
        if other.startswith(NAMES) or other in {"/api/oidc/clients/", "/api/oidc/grants/"}:
            continue
        for method in ("GET", "POST", "DELETE"):
            refused(house.ask(method, other, admin=True), 404, "NOT_FOUND")


GOOD_IDS = ["a" * 8, "A1._-b2c", "0" * 64, "f47ac10b-58cc-4372-a567-0e02b2c3d479"]
BAD_IDS = [
    "",
    "a" * 7,
    "a" * 65,
    "has space",
    "a/b/c/d/e",
    "<script>",
    "é" * 8,
    "aaaaaaaa\n",
    "12345678\x00",
    "aaaa,bbbb",
    "{}{}{}{}",
]


@each_of("request_id", GOOD_IDS)
def test_a_good_request_id_is_kept(house: House, request_id: str) -> None:
    """An incoming one is kept when it is 8–64 of `[A-Za-z0-9._-]`: in header, body and log."""
    answer = house.ask("GET", "/nothing", headers={"X-Request-Id": request_id})
    assert refused(answer, 404, "NOT_FOUND")["request_id"] == request_id
    assert house.requests_logged[-1]["request_id"] == request_id


@each_of("request_id", BAD_IDS)
def test_another_request_id_is_replaced(house: House, request_id: str) -> None:
    """An incoming one is kept when it is 8–64 of `[A-Za-z0-9._-]`, else it is ours, and new each time."""
    given = {"X-Request-Id": request_id.encode().decode("latin-1")}
    ids = {house.ask("GET", "/nothing", headers=given).headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{8,64}", each) and each != request_id for each in ids)


ONE_OF_EACH: list[tuple[int, dict[str, Any]]] = [
    (200, {"method": "GET", "path": "/healthz"}),
    (200, {"method": "GET", "path": "/oidc/jwks"}),
    (204, {"method": "OPTIONS", "path": "/oidc/jwks"}),
    (304, {"method": "GET", "path": "/oidc/jwks", "headers": {"If-None-Match": "*"}}),
    (400, {"method": "GET", "path": "/oidc/jwks", "host": "a b"}),
    (400, {"method": "POST", "path": "/oidc/token", "body": b"", "content_type": FORM}),
    (400, {"method": "GET", "path": "/oidc/interaction/nobodys"}),
    (401, {"method": "GET", "path": "/oidc/userinfo"}),
    (401, {"method": "POST", "path": "/oidc/introspect", "body": b"token=x", "content_type": FORM}),
    (403, {"method": "GET", "path": "/api/oidc/clients"}),
    (409, {"method": "PUT", "path": "/api/oidc/clients/fixed", "admin": True, "json": {}}),
    (400, {"method": "POST", "path": "/oidc/token", "body": b"x"}),
    (401, {"method": "GET", "path": "/api/auth/me"}),
    (403, {"method": "POST", "path": "/api/auth/session"}),
    (404, {"method": "GET", "path": "/nothing"}),
    (405, {"method": "PUT", "path": "/healthz"}),
    (413, {"method": "POST", "path": "/api/auth/session", "admin": True, "body": b" " * 65_537}),
    (
        415,
        {"method": "POST", "path": "/api/auth/session", "admin": True, "body": b"a", "content_type": "a/b"},
    ),
    (501, {"method": "GET", "path": "/oidc/authorize"}),
]


@each_of(("status", "request_of"), ONE_OF_EACH, ids=lambda value: str(value)[:30])
def test_every_answer_has_a_request_id_and_nosniff(
    serve: Serve, status: int, request_of: dict[str, Any]
) -> None:
    """Every answer has `X-Request-Id` and `X-Content-Type-Options: nosniff`, and says what may be
    stored.
    """
    fixed = json.dumps([{"client_id": "fixed", "redirect_uris": ["https://rp.example/cb"]}])
    house = serve(**WITH_CLIENTS, PYLON_OIDC_CLIENTS=fixed) if status == 409 else serve()
    answer = house.ask(**request_of)
    assert answer.status == status
    check_standing_headers(answer)
    assert answer.headers["Cache-Control"] in {"no-store", "public, max-age=300"}
    if status >= 400:
        assert answer.headers["Cache-Control"] == "no-store"


def test_401_asks_for_a_bearer_and_403_does_not(house: House) -> None:
    """docs/endpoints.md: 401 answers carry `WWW-Authenticate: Bearer`."""
    assert house.ask("GET", "/api/auth/me").headers["WWW-Authenticate"] == "Bearer"
    assert "WWW-Authenticate" not in house.ask("POST", "/api/auth/session").headers


NEEDS_STORE: list[dict[str, Any]] = [
    {"method": "POST", "path": "/api/auth/session", "admin": True, "json": {"user_id": "u"}},
    {"method": "GET", "path": "/api/auth/me", "token": "pylon_" + "a" * 64},
    {"method": "POST", "path": "/api/auth/jwt", "token": "pylon_" + "a" * 64},
    {"method": "POST", "path": "/api/auth/jwt", "cookie": "pylon_" + "a" * 64},
    {"method": "POST", "path": "/api/auth/refresh", "token": "pylon_" + "a" * 64},
    {"method": "DELETE", "path": "/api/auth/session", "token": "pylon_" + "a" * 64},
    {"method": "GET", "path": "/api/auth/sessions", "token": "pylon_" + "a" * 64},
    {"method": "DELETE", "path": "/api/auth/sessions", "token": "pylon_" + "a" * 64},
    {"method": "GET", "path": "/api/auth/users/u/sessions", "admin": True},
    {"method": "DELETE", "path": "/api/auth/users/u/sessions", "admin": True},
    {"method": "PUT", "path": "/api/auth/users/u", "admin": True, "json": {"roles": ["a"]}},
    {"method": "GET", "path": "/api/oidc/clients", "admin": True},
    {
        "method": "POST",
        "path": "/api/oidc/clients",
        "admin": True,
        "json": {"redirect_uris": ["https://a.example"]},
    },
    {"method": "GET", "path": "/api/oidc/clients/c", "admin": True},
    {"method": "POST", "path": "/api/oidc/clients/c/secret", "admin": True},
    {"method": "GET", "path": "/api/oidc/grants", "query": "user_id=u", "admin": True},
    {"method": "DELETE", "path": f"/api/oidc/grants/{GRANT_ID}", "admin": True},
    {"method": "GET", "path": "/api/oidc/interactions/i", "admin": True},
    {"method": "POST", "path": "/api/oidc/interactions/i/login", "admin": True, "json": {"user_id": "u"}},
    {"method": "GET", "path": "/oidc/userinfo", "token": ACCESS_TOKEN},
    {"method": "POST", "path": "/oidc/token", "body": b"grant_type=x&client_id=c", "content_type": FORM},
    {"method": "POST", "path": "/oidc/introspect", "body": b"token=x&client_id=c", "content_type": FORM},
    {"method": "POST", "path": "/oidc/revoke", "body": b"token=x&client_id=c", "content_type": FORM},
]

#: The same for people.
PAGES_NEED_STORE: list[dict[str, Any]] = [
    {"method": "GET", "path": "/oidc/authorize", "query": "client_id=c"},
    {"method": "POST", "path": "/oidc/authorize", "body": b"client_id=c", "content_type": FORM},
    {"method": "GET", "path": "/oidc/interaction/i"},
    {"method": "POST", "path": "/oidc/interaction/i", "body": b"decision=allow", "content_type": FORM},
    {"method": "GET", "path": "/oidc/logout", "cookie": "pylon_session=pylon_" + "a" * 64},
]


@each_of(
    ("error", "status", "code"),
    [(StoreUnavailable(), 503, "STORE_UNAVAILABLE"), (ZeroDivisionError("peculiar"), 500, "INTERNAL")],
)
@each_of("request_of", PAGES_NEED_STORE, ids=lambda row: f"{row['method']} {row['path']}")
def test_a_browser_is_shown_a_page_of_what_failed_here(
    serve: Serve, request_of: dict[str, Any], error: Exception, status: int, code: str
) -> None:
    """`/oidc/authorize`, `interaction` and `logout` are for browsers: an HTML page; 500 and 503 are not
    among what has the API's shape everywhere.
    """
    house = serve(store_of=lambda _: BrokenStore(error), PYLON_OIDC_PRIVATE_KEY=rsa_pem())
    answer = house.ask(**request_of, headers={"X-Request-Id": "my-request-1"})
    page = answer.body.decode()
    assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert code in page and "my-request-1" in page and "peculiar" not in page and "ZeroDivision" not in page
    assert answer.headers["X-Request-Id"] == "my-request-1" and answer.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Set-Cookie" not in answer.headers
    (logged,) = [line for line in house.lines if line["event"] in {"request_failed", "store_unavailable"}]
    assert logged["request_id"] == "my-request-1" and house.requests_logged[-1]["status"] == status


@each_of("request_of", NEEDS_STORE, ids=lambda row: f"{row['method']} {row['path']}")
def test_a_store_that_cannot_be_reached_is_503(serve: Serve, request_of: dict[str, Any]) -> None:
    """A store that cannot be reached is 503 `STORE_UNAVAILABLE` with `Retry-After`."""
    house = serve(store_of=lambda _: BrokenStore(StoreUnavailable()), PYLON_OIDC_PRIVATE_KEY=rsa_pem())
    answer = house.ask(**request_of)
    refused(answer, 503, "STORE_UNAVAILABLE")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "Set-Cookie" not in answer.headers


@each_of("request_of", NEEDS_STORE, ids=lambda row: f"{row['method']} {row['path']}")
def test_an_unknown_failure_is_500_and_tells_nothing(serve: Serve, request_of: dict[str, Any]) -> None:
    """An unknown failure is 500 `INTERNAL`, its cause in the log under the request id; no stack, no
    secret.
    """
    house = serve(
        store_of=lambda _: BrokenStore(ZeroDivisionError("peculiar")), PYLON_OIDC_PRIVATE_KEY=rsa_pem()
    )
    answer = house.ask(**request_of, headers={"X-Request-Id": "my-request-1"})
    refused(answer, 500, "INTERNAL")
    assert "peculiar" not in answer.body.decode() and "ZeroDivisionError" not in answer.body.decode()
    assert answer.headers["X-Request-Id"] == "my-request-1"
    (cause,) = [line for line in house.lines if line["event"] == "request_failed"]
    assert (cause["request_id"], cause["error"], cause["detail"]) == (
        "my-request-1",
        "ZeroDivisionError",
        "peculiar",
    )
    assert cause["level"] == "error"
    assert house.requests_logged[-1]["status"] == 500


@each_of(
    "error",
    [OSError("x"), RecursionError("x"), KeyError("x"), AttributeError(), MemoryError(), UnicodeError("x")],
)
def test_whatever_is_raised_the_shape_is_kept(serve: Serve, error: Exception) -> None:
    """An unknown failure is 500 `INTERNAL`, of whatever kind."""
    house = serve(store_of=lambda _: BrokenStore(error))
    refused(house.ask("GET", "/api/auth/me", token="pylon_" + "a" * 64), 500, "INTERNAL")


@each_of(
    "path",
    ["/healthz", "/oidc/jwks", "/.well-known/openid-configuration", "/oidc/authorize", "/oidc/style.css"],
)
def test_what_needs_no_store_answers_without_one(serve: Serve, path: str) -> None:
    """With the database gone, JWKS and discovery answer."""
    broken, well = serve(store_of=lambda _: BrokenStore(StoreUnavailable())), serve()
    assert broken.ask("GET", path).status == well.ask("GET", path).status
