"""docs/settings.md, docs/security.md: trusted origins get CORS with credentials on `/api/auth/*`, and nobody else does."""

from __future__ import annotations

import pytest

from tests.http.conftest import Serve
from tests.http.driver import House
from tests.support.cases import each_of
from tests.support.gunicorn import Answer

APP = "https://app.example.test"
ADMIN_UI = "https://admin.example.test:8443"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.fixture
def house(serve: Serve) -> House:
    """An application with two trusted origins."""
    return serve(PYLON_TRUSTED_ORIGINS=f"{APP}, {ADMIN_UI}")


def _cors(answer: Answer) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


@each_of("origin", [APP, ADMIN_UI])
def test_a_trusted_origin_may_read_the_answer_with_credentials(house: House, origin: str) -> None:
    """They get CORS with credentials on `/api/auth/*` (Fetch §3.2.5: the origin itself, never `*`)."""
    token = house.sign_in()["token"]
    answer = house.ask("GET", "/api/auth/me", cookie=token, headers={"Origin": origin})
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in answer.headers["Vary"]


@each_of(
    ("method", "path", "status"),
    [
        ("GET", "/api/auth/me", 401),
        ("POST", "/api/auth/session", 403),
        ("POST", "/api/auth/jwt", 401),
        ("PUT", "/api/auth/me", 405),
        ("GET", "/api/auth/nothing", 404),
        ("POST", "/api/auth/sessions/trusted-mint", 415),
    ],
)
def test_errors_can_be_read_by_a_trusted_origin_too(
    house: House, method: str, path: str, status: int
) -> None:
    """CORS with credentials on `/api/auth/*`, for errors as well, or the front end could not tell them
    apart.
    """
    answer = house.ask(method, path, headers={"Origin": APP})
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"


@each_of(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        APP + "/",
        APP.upper(),
        APP + ":443",
        APP.replace("https", "http"),
        "*",
        "\xff",
    ],
)
@each_of("method", ["GET", "OPTIONS"])
def test_another_origin_gets_none(house: House, origin: str, method: str) -> None:
    """docs/security.md: CORS with credentials only for the trusted origins; `Vary` keeps caches from mixing them up."""
    answer = house.ask(method, "/api/auth/me", headers={"Origin": origin, **PREFLIGHT})
    assert _cors(answer) == set()
    assert answer.headers["Vary"] == "Origin"


def test_without_trusted_origins_there_is_no_cors_on_the_api(serve: Serve) -> None:
    """docs/security.md: CORS `*` only where no cookie counts."""
    house = serve()
    for origin in (APP, "null"):
        assert _cors(house.ask("GET", "/api/auth/me", headers={"Origin": origin})) == set()
        assert _cors(house.ask("OPTIONS", "/api/auth/me", headers={"Origin": origin, **PREFLIGHT})) == set()


def test_an_own_origin_needs_no_cors(house: House) -> None:
    """docs/security.md: the issuer's own origin is same-origin and gets no CORS header."""
    assert _cors(house.ask("GET", "/api/auth/me", headers={"Origin": "https://id.example.test"})) == set()


@each_of("path", ["/api/auth/jwt", "/api/auth/session", "/api/auth/refresh", "/api/auth/sessions/x"])
def test_a_preflight_of_a_trusted_origin_is_answered(house: House, path: str) -> None:
    """Fetch §3.2.2: the preflight names origin, credentials, methods and headers, and asks for no session."""
    answer = house.ask("OPTIONS", path, headers={"Origin": APP, **PREFLIGHT})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert {"GET", "POST", "DELETE"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    allowed = {name.lower() for name in answer.headers["Access-Control-Allow-Headers"].split(", ")}
    assert {"authorization", "content-type"} <= allowed
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"]


@each_of("path", ["/healthz", "/api/nothing", "/oidc/authorize", "/api/authx/me", "/"])
def test_elsewhere_a_trusted_origin_gets_none(house: House, path: str) -> None:
    """CORS with credentials only on `/api/auth/*`."""
    assert _cors(house.ask("GET", path, headers={"Origin": APP})) == set()


@each_of("path", ["/oidc/jwks", "/.well-known/openid-configuration"])
def test_public_documents_stay_public_without_credentials(house: House, path: str) -> None:
    """docs/security.md: CORS `*` without credentials only where no cookie counts."""
    answer = house.ask("GET", path, headers={"Origin": APP})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_under_a_path_issuer_the_api_is_under_the_path(serve: Serve) -> None:
    """An issuer with a path serves everything under that path, CORS too."""
    house = serve(PYLON_TRUSTED_ORIGINS=APP, PYLON_OIDC_ISSUER="https://id.example.test/tenant")
    headers = {"Origin": APP}
    assert _cors(house.ask("GET", "/tenant/api/auth/me", headers=headers))
    assert not _cors(house.ask("GET", "/api/auth/me", headers=headers))


def test_a_trusted_front_end_refreshes_with_the_cookie(house: House) -> None:
    """The app's front end on a sibling host may use the session cookie across origins."""
    token = house.sign_in()["token"]
    headers = {"Origin": APP, "Sec-Fetch-Site": "same-site"}
    answer = house.ask("POST", "/api/auth/refresh", cookie=token, headers=headers)
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert answer.headers.all("Set-Cookie")
