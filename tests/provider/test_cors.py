"""CORS: `*` without credentials on token, userinfo, revoke and device authorization, for errors too; nowhere that a cookie counts."""

from __future__ import annotations

from tests.http.driver import refused
from tests.provider.browser import FORM
from tests.provider.conftest import ServeProvider
from tests.provider.driver import Provider
from tests.support.cases import each_of
from tests.support.gunicorn import Answer

ORIGIN = {"Origin": "https://spa.example.net"}
OPEN = ["/oidc/token", "/oidc/userinfo", "/oidc/revoke", "/oidc/device_authorization"]


def _is_open(answer: Answer) -> None:
    assert answer.headers.all("Access-Control-Allow-Origin") == ["*"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@each_of("path", OPEN)
def test_a_preflight_is_answered(op: Provider, path: str) -> None:
    """`OPTIONS` with `*`, the methods, and `Authorization` (Fetch §3.2.3)."""
    asked = ORIGIN | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = op.ask("OPTIONS", path, headers=asked)
    assert answer.status in {200, 204}
    _is_open(answer)
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert "content-type" in answer.headers["Access-Control-Allow-Headers"].lower()


@each_of("path", OPEN)
@each_of(
    ("body", "content_type"),
    [(b"x=1", FORM), (b"x=1&x=1", FORM), (b"{}", "application/json"), (b"x" * 70_000, FORM), (b"\xff", FORM)],
)
def test_errors_can_be_read(op: Provider, path: str, body: bytes, content_type: str) -> None:
    """docs/endpoints.md: 400, 401, 413, 415: a script sees what was wrong."""
    answer = op.ask("POST", path, headers=ORIGIN, body=body, content_type=content_type)
    assert answer.status >= 400
    _is_open(answer)


@each_of("method", ["PUT", "DELETE", "PATCH"])
@each_of("path", OPEN)
def test_a_wrong_method_can_be_read_too(op: Provider, path: str, method: str) -> None:
    """docs/endpoints.md: `*` for errors too, 405 included."""
    answer = op.ask(method, path, headers=ORIGIN)
    assert answer.status == 405
    _is_open(answer)


@each_of("path", OPEN)
def test_a_wrong_host_can_be_read_too(serve_provider: ServeProvider, path: str) -> None:
    """docs/endpoints.md: `*` for errors too, `INVALID_HOST` included, which comes before everything else."""
    op = serve_provider(PYLON_DEV_MODE="1", PYLON_OIDC_ISSUER=None, PYLON_ALLOWED_HOSTS="localhost:*")
    answer = op.ask("POST", path, headers=ORIGIN, host="evil.example")
    refused(answer, 400, "INVALID_HOST")
    _is_open(answer)


def test_successes_can_be_read(op: Provider) -> None:
    """docs/endpoints.md: token, userinfo and revoke answer a single-page app; `WWW-Authenticate` may be read."""
    rp = op.rp("c-public")
    request = rp.request()
    tokens = rp.redeem(request, op.authorize(op.browser(), request)["code"])
    _is_open(tokens)
    told = rp.userinfo(tokens.json()["access_token"])
    _is_open(told)
    assert "WWW-Authenticate" in told.headers["Access-Control-Expose-Headers"]
    _is_open(rp.revoke(tokens.json()["access_token"]))


@each_of(
    ("method", "path"),
    [
        ("GET", "/oidc/authorize"), ("POST", "/oidc/authorize"), ("GET", "/oidc/logout"), ("POST", "/oidc/logout"),
        ("GET", "/oidc/interaction/x"), ("POST", "/oidc/introspect"), ("GET", "/api/oidc/clients"), ("GET", "/api/oidc/grants"),
        ("GET", "/api/oidc/interactions/x"), ("PUT", "/api/auth/users/x"), ("OPTIONS", "/oidc/authorize"), ("OPTIONS", "/oidc/logout"),
        ("OPTIONS", "/oidc/introspect"), ("OPTIONS", "/api/oidc/clients"),
    ],
)  # fmt: skip
def test_nothing_else_is_open(op: Provider, method: str, path: str) -> None:
    """docs/security.md: no CORS where a cookie or the admin token counts."""
    answer = op.ask(
        method, path, headers=ORIGIN, **({"body": b"", "content_type": FORM} if method == "POST" else {})
    )
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_cookie_counts_for_nothing_there(op: Provider) -> None:
    """docs/security.md: neither the app's cookie nor the provider's opens userinfo."""
    browser = op.browser()
    op.sign_in(browser, way="cookie")
    op.sign_in(browser, prompt="login")
    assert browser.ask("GET", f"{op.issuer}/oidc/userinfo").status == 401


@each_of("path", [*OPEN, "/oidc/jwks", "/.well-known/openid-configuration"])
def test_a_preflight_may_name_headers_of_its_own(op: Provider, path: str) -> None:
    """docs/endpoints.md: what is asked for is allowed as far as it is tokens of 64 characters, 32 of them; `Vary` says so to caches."""
    wanted = 'x-trace, DPoP ,,bad name, a"b, ' + "y" * 64 + ", " + "z" * 65
    answer = op.ask("OPTIONS", path, headers=ORIGIN | {"Access-Control-Request-Headers": wanted})
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"x-trace", "DPoP", "y" * 64} < set(allowed)
    assert {name.lower() for name in allowed} == {
        "x-trace",
        "dpop",
        "y" * 64,
        "authorization",
        "content-type",
    }
    assert answer.headers["Vary"] == "Access-Control-Request-Headers"
    many = ", ".join(f"x-{number}" for number in range(100))
    answer = op.ask("OPTIONS", path, headers=ORIGIN | {"Access-Control-Request-Headers": many})
    assert answer.headers["Access-Control-Allow-Headers"].count("x-") == 32


def test_no_other_path_allows_headers(op: Provider) -> None:
    """docs/endpoints.md: where a cookie or the admin token counts, nothing is open."""
    for path in ("/oidc/introspect", "/oidc/authorize", "/oidc/logout", "/api/auth/me", "/api/oidc/clients"):
        answer = op.ask("OPTIONS", path, headers=ORIGIN | {"Access-Control-Request-Headers": "x-trace"})
        assert "Access-Control-Allow-Headers" not in answer.headers, path
