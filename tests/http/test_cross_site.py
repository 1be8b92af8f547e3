"""docs/endpoints.md, docs/security.md: a change made with the cookie comes from the same origin."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.conftest import Serve
from tests.http.driver import ISSUER, House, refused
from tests.support.cases import each_of

TRUSTED = "https://app.example.test"
EVIL = "https://evil.example"
CHANGES = [
    ("POST", "/api/auth/refresh"),
    ("POST", "/api/auth/jwt"),
    ("DELETE", "/api/auth/session"),
    ("DELETE", "/api/auth/sessions"),
    ("DELETE", "/api/auth/sessions/{sid}"),
]
READS = [("GET", "/api/auth/me"), ("GET", "/api/auth/sessions")]

# Sec-Fetch-Site, Origin, passes. The trusted origins are [TRUSTED].
MATRIX: list[tuple[str | None, str | None, bool]] = [
    (None, None, True),
    (None, ISSUER, True),
    (None, TRUSTED, True),
    (None, EVIL, False),
    (None, "null", False),
    (None, "", False),
    (None, ISSUER.upper(), False),
    (None, ISSUER + "/", False),
    (None, ISSUER + ":443", False),
    (None, ISSUER + ":8443", False),
    (None, ISSUER.replace("https", "http"), False),
    (None, f"{ISSUER}, {EVIL}", False),
    (None, ISSUER + ".evil.example", False),
    (None, "\xff", False),
    ("same-origin", None, True),
    ("same-origin", ISSUER, True),
    ("none", None, True),
    ("none", "null", True),
    ("same-site", None, False),
    ("same-site", ISSUER, False),
    ("same-site", TRUSTED, True),
    ("same-site", EVIL, False),
    ("same-site", "null", False),
    ("cross-site", None, False),
    ("cross-site", ISSUER, False),
    ("cross-site", TRUSTED, False),
    ("cross-site", EVIL, False),
    ("", None, False),
    ("Same-Origin", None, False),
    ("same-origin, cross-site", None, False),
    ("unheard-of", ISSUER, False),
]


def _headers(site: str | None, origin: str | None) -> dict[str, str]:
    return {
        name: value for name, value in {"Sec-Fetch-Site": site, "Origin": origin}.items() if value is not None
    }


@pytest.fixture
def house(serve: Serve) -> House:
    """An application that trusts one origin in addition to its own."""
    return serve(PYLON_TRUSTED_ORIGINS=TRUSTED)


@each_of(("site", "origin", "passes"), MATRIX)
def test_where_a_cookies_change_may_come_from(
    house: House, site: str | None, origin: str | None, passes: bool
) -> None:
    """The same-origin check of a change authenticated by cookie, every case of it."""
    begun = house.sign_in()
    answer = house.ask("POST", "/api/auth/jwt", cookie=begun["token"], headers=_headers(site, origin))
    if passes:
        assert answer.status == 200
    else:
        refused(answer, 403, "CROSS_SITE")


@each_of(("method", "path"), CHANGES)
def test_every_change_is_checked_and_changes_nothing_when_refused(
    house: House, method: str, path: str
) -> None:
    """A change under `/api/auth/*` authenticated by cookie must be same-origin."""
    begun, other = house.sign_in(), house.sign_in()
    path = path.format(sid=other["sid"])
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": EVIL}
    answer = house.ask(method, path, cookie=begun["token"], headers=headers)
    refused(answer, 403, "CROSS_SITE")
    assert "Set-Cookie" not in answer.headers
    assert house.me(begun["token"]).status == 200
    assert house.me(other["token"]).status == 200


@each_of(("method", "path"), CHANGES)
def test_a_change_by_bearer_is_not_checked(house: House, method: str, path: str) -> None:
    """Only a change authenticated by cookie: no browser adds a bearer token by itself."""
    begun, other = house.sign_in(), house.sign_in()
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": EVIL}
    answer = house.ask(
        method, path.format(sid=other["sid"]), token=begun["token"], cookie=begun["token"], headers=headers
    )
    assert answer.status == 200


@each_of(("method", "path"), READS)
def test_a_read_is_not_checked(house: House, method: str, path: str) -> None:
    """A change must be same-origin; a read is the browser's to protect (Fetch §3.2)."""
    token = house.sign_in()["token"]
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": EVIL}
    assert house.ask(method, path, cookie=token, headers=headers).status == 200


ORDER: list[dict[str, Any]] = [
    {"body": b"{", "content_type": "application/json"},
    {"body": b"x" * 70_000, "content_type": "application/json"},
    {"body": b"a=b", "content_type": "text/plain"},
]


@each_of("body", ORDER)
def test_cross_site_comes_after_401_and_before_the_body(house: House, body: dict[str, Any]) -> None:
    """Checked in this order: `INVALID_HOST`, 401 or 403, `CROSS_SITE`, 413/415/400."""
    token = house.sign_in()["token"]
    evil: dict[str, Any] = {"headers": {"Sec-Fetch-Site": "cross-site"}, **body}
    jwt = "/api/auth/jwt"
    refused(house.ask("POST", jwt, cookie=token, **evil, host="a b"), 400, "INVALID_HOST")
    refused(house.ask("POST", jwt, cookie="pylon_" + "0" * 64, **evil), 401, "AUTH_REQUIRED")
    refused(house.ask("POST", jwt, cookie=token, **evil), 403, "CROSS_SITE")
    assert house.ask("POST", jwt, cookie=token, **body).status in {400, 413, 415}


def test_ending_a_dead_session_from_another_site_is_refused_too(house: House) -> None:
    """A change must be same-origin also when the token in the cookie is unknown: no oracle, no logout
    CSRF.
    """
    answer = house.ask(
        "DELETE", "/api/auth/session", cookie="pylon_" + "0" * 64, headers={"Sec-Fetch-Site": "cross-site"}
    )
    refused(answer, 403, "CROSS_SITE")


@each_of(
    ("issuer", "origin"),
    [
        ("https://id.example.com/tenant", "https://id.example.com"),
        ("https://id.example.com:8443", "https://id.example.com:8443"),
        ("http://localhost:4321", "http://localhost:4321"),
    ],
)
def test_the_own_origin_is_the_configured_issuers(serve: Serve, issuer: str, origin: str) -> None:
    """An `Origin` must be the issuer's: scheme, host and port of it, whatever the `Host` was."""
    house = serve(PYLON_OIDC_ISSUER=issuer)
    prefix = issuer.removeprefix(origin)
    path = f"{prefix}/api/auth/jwt"
    token = house.ask("POST", f"{prefix}/api/auth/session", admin=True, json={"user_id": "u"}).json()["token"]
    assert house.ask("POST", path, cookie=token, headers={"Origin": origin}).status == 200
    refused(house.ask("POST", path, cookie=token, headers={"Origin": ISSUER}), 403, "CROSS_SITE")


def test_nobody_is_trusted_by_default(serve: Serve) -> None:
    """docs/settings.md: `PYLON_TRUSTED_ORIGINS` is unset: same-site fails whatever its origin."""
    house = serve()
    headers = {"Sec-Fetch-Site": "same-site", "Origin": TRUSTED}
    answer = house.ask("POST", "/api/auth/jwt", cookie=house.sign_in()["token"], headers=headers)
    refused(answer, 403, "CROSS_SITE")
