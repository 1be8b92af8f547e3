"""No kind of token is taken for another, and nothing that an app says replaces a claim of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.http.driver import refused
from tests.protocol.forge import OWN_CLAIMS
from tests.provider.browser import FORM
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, Provider, Signed
from tests.support.cases import each_of


@pytest.fixture
def every(serve_provider: ServeProvider) -> tuple[Provider, Signed, dict[str, str]]:
    """A provider that mints with the key of its ID tokens, and one token of each kind."""
    op = serve_provider(PYLON_JWT_ALG="RS256", PYLON_JWT_AUDIENCE="api")
    browser = op.browser()
    session = op.app.sign_in(browser)["token"]
    signed = op.sign_in(browser, way="cookie", scope="openid offline_access")
    minted = op.ask("POST", "/api/auth/jwt", token=session).json()["token"]
    kinds = {"id token": signed.tokens["id_token"], "access token": signed.access_token, "code": signed.code}
    return (
        op,
        signed,
        kinds | {"refresh token": signed.tokens["refresh_token"], "minted": minted, "session": session},
    )


@each_of("kind", ["id token", "code", "refresh token", "minted", "session"])
def test_only_an_access_token_opens_userinfo(
    every: tuple[Provider, Signed, dict[str, str]], kind: str
) -> None:
    """401 invalid_token for any other kind (RFC 8725 §3.12)."""
    op, _, tokens = every
    answer = op.rp().userinfo(tokens[kind])
    assert (answer.status, answer.json()["error"]) == (401, "invalid_token")


@each_of("kind", ["id token", "access token", "code", "refresh token", "minted"])
@each_of(
    ("method", "path"),
    [
        ("GET", "/api/auth/me"),
        ("POST", "/api/auth/jwt"),
        ("POST", "/api/auth/refresh"),
        ("DELETE", "/api/auth/session"),
    ],
)
def test_only_a_session_token_is_a_session(
    every: tuple[Provider, Signed, dict[str, str]], kind: str, method: str, path: str
) -> None:
    """A token for others is not good for the app's own API (RFC 9700 §2.3)."""
    op, _, tokens = every
    refused(op.ask(method, path, token=tokens[kind]), 401, "AUTH_REQUIRED")


@each_of("kind", ["access token", "code", "refresh token", "minted", "session"])
def test_only_an_id_token_is_a_hint(every: tuple[Provider, Signed, dict[str, str]], kind: str) -> None:
    """A minted token, signed by the same key, is no ID token: as a hint it says of nobody who it must be (Core §3.1.2.1)."""
    op, _, tokens = every
    request = op.rp().request(id_token_hint=tokens[kind])
    assert "code" in op.authorize(op.browser(), request, user="somebody-else")


@each_of("kind", ["id token", "code", "session"])
def test_introspection_knows_neither_id_tokens_nor_codes(
    every: tuple[Provider, Signed, dict[str, str]], kind: str
) -> None:
    """A token that is not an access token is inactive, even for the operator (RFC 7662 §2.2)."""
    op, _, tokens = every
    body = f"token={tokens[kind]}".encode()
    assert op.ask("POST", "/oidc/introspect", admin=True, body=body, content_type=FORM).json() == {
        "active": False
    }
    assert op.rp("c-resource").introspect(tokens[kind]).json() == {"active": False}


@each_of("name", OWN_CLAIMS)
@each_of("path", ["/api/auth/session", "/api/auth/users/ada", "login"])
def test_a_claim_of_ours_cannot_be_given(op: Provider, name: str, path: str) -> None:
    """400 `INVALID_BODY` naming the claim, wherever the app may speak (RFC 8725 §3.12)."""
    body: dict[str, Any] = {"claims": {name: "x"}}
    if path == "login":
        path = f"/api/oidc/interactions/{op.app.interaction(op.browser().go(op.rp().request().url))}/login"
    if "users" not in path:
        body["user_id"] = "ada"
    error = refused(op.app.call("PUT" if "users" in path else "POST", path, body), 400, "INVALID_BODY")
    assert f"claims.{name}" in error["message"]


def test_a_claims_request_cannot_change_a_claim_of_ours(op: Provider) -> None:
    """Asking for `iss`, `aud`, `exp` and the like by value changes nothing (Core §5.5.1)."""
    wanted = {name: {"value": "evil"} for name in OWN_CLAIMS if name not in {"sub", "acr"}}
    plain = op.sign_in().claims
    asked = op.sign_in(claims=json.dumps({"id_token": wanted, "userinfo": wanted}))
    assert set(asked.claims) == set(plain)
    assert {name: asked.claims[name] for name in ("iss", "aud", "sub", "exp", "iat")} == {
        name: plain[name] for name in ("iss", "aud", "sub", "exp", "iat")
    }
    assert op.rp().userinfo(asked.access_token).json() == {"sub": "ada"}


def test_roles_cannot_be_smuggled_in(op: Provider) -> None:
    """docs/security.md: `roles` and `tenant_id` are fields of their own, never claims."""
    for name in ("roles", "tenant_id"):
        refused(op.app.call("PUT", "/api/auth/users/ada", {"claims": {name: "admin"}}), 400, "INVALID_BODY")


def test_a_minted_token_never_has_a_clients_name(serve_provider: ServeProvider) -> None:
    """docs/security.md: a minted audience can never be a client id: refused when minting, as when registering."""
    op = serve_provider(PYLON_JWT_ALG="RS256", PYLON_JWT_AUDIENCE="api")
    session = op.app.session()["token"]
    refused(
        op.ask("POST", "/api/auth/jwt", token=session, json={"audience": "c-basic"}), 400, "UNKNOWN_AUDIENCE"
    )


def test_userinfos_subject_is_the_users(op: Provider) -> None:
    """docs/security.md: `sub` stays, whatever claims are known."""
    signed = op.sign_in(scope="openid profile", fields={"claims": dict(CLAIMS)})
    assert op.rp().userinfo(signed.access_token).json()["sub"] == "ada"
    assert CALLBACK not in str(signed.claims)
