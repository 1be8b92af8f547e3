"""Introspection (RFC 7662) and revocation (RFC 7009): a client's own tokens, and no oracle."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.provider.browser import FORM
from tests.provider.conftest import ServeProvider
from tests.provider.driver import Provider, Signed
from tests.support.cases import each_of
from tests.support.gunicorn import Answer

INACTIVE = {"active": False}
OFFLINE = "openid offline_access"
HINTS = pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "nonsense"])


def _hinted(hint: str | None) -> dict[str, str]:
    return {} if hint is None else {"token_type_hint": hint}


def _by_admin(op: Provider, token: str) -> Answer:
    return op.ask(
        "POST", "/oidc/introspect", admin=True, body=urlencode({"token": token}).encode(), content_type=FORM
    )


@pytest.fixture
def signed(op: Provider) -> Signed:
    """A user signed in offline."""
    return op.sign_in(scope=OFFLINE)


@HINTS
def test_a_client_may_ask_about_its_access_token(op: Provider, signed: Signed, hint: str | None) -> None:
    """200 with what it is worth; a hint, known or not, changes nothing (RFC 7662 §2.1, §2.2)."""
    answer = op.rp().introspect(signed.access_token, **_hinted(hint))
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    now = int(op.clock())
    assert answer.json() == {
        "active": True, "scope": OFFLINE, "client_id": "c-basic", "sub": "ada", "iss": op.issuer, "iat": now,
        "exp": now + 3600, "token_type": "Bearer",
    }  # fmt: skip


@HINTS
def test_a_client_may_ask_about_its_refresh_token(op: Provider, signed: Signed, hint: str | None) -> None:
    """A refresh token is active until it idles, is spent or revoked (RFC 7662 §2.2)."""
    token, now = signed.tokens["refresh_token"], int(op.clock())
    shown = op.rp().introspect(token, **_hinted(hint)).json()
    assert shown["active"] is True and shown["exp"] == now + 30 * 86_400
    op.rp().refresh(token)
    assert op.rp().introspect(token).json() == INACTIVE


@pytest.mark.parametrize("client_id", ["c-post", "c-resource", "c-third"])
def test_another_clients_token_is_inactive(op: Provider, signed: Signed, client_id: str) -> None:
    """Neither issued to the asker nor for it: exactly `{"active": false}`, as for an unknown one (RFC 7662 §2.2, §4)."""
    for token in (signed.access_token, signed.tokens["refresh_token"], "unknown", "\0", "é" * 99):
        assert op.rp(client_id).introspect(token).json() == INACTIVE


def test_the_admin_may_ask_about_any(op: Provider, signed: Signed) -> None:
    """docs/endpoints.md: the admin token any; a wrong one is 401."""
    assert _by_admin(op, signed.access_token).json()["client_id"] == "c-basic"
    assert _by_admin(op, signed.tokens["refresh_token"]).json()["active"] is True
    assert _by_admin(op, "unknown").json() == INACTIVE
    wrong = op.ask("POST", "/oidc/introspect", token="x" * 40, body=b"token=x", content_type=FORM)
    assert (wrong.status, wrong.json()["error"]) == (401, "invalid_client")


def test_an_access_token_opens_no_introspection(op: Provider, signed: Signed) -> None:
    """docs/security.md: a bearer other than the admin token is refused: an access token does not authenticate a client."""
    body = urlencode({"token": signed.access_token}).encode()
    answer = op.ask("POST", "/oidc/introspect", token=signed.access_token, body=body, content_type=FORM)
    assert answer.status == 401


def test_a_public_client_may_not_ask(op: Provider) -> None:
    """Public clients may not introspect, not even their own tokens (RFC 7662 §2.1)."""
    token = op.sign_in(client_id="c-public").access_token
    answer = op.rp("c-public").introspect(token)
    assert answer.status in {400, 401, 403} and "active" not in answer.json()
    assert answer.json()["error"] == "unauthorized_client"


@each_of("path", ["/oidc/introspect", "/oidc/revoke"])
def test_a_missing_token_is_invalid_request(op: Provider, path: str) -> None:
    """RFC 7662 §2.1, RFC 7009 §2.1: `token` is REQUIRED."""
    for form in ({}, {"token": ""}):
        answer = op.rp().post(path, form)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_request")


@each_of("alg", ["RS256", "HS256"])
def test_a_minted_token_is_active_for_the_resource_it_is_for(serve_provider: ServeProvider, alg: str) -> None:
    """docs/endpoints.md: a token whose `aud` is among the asker's resource_ids; others see `{"active": false}`."""
    op = serve_provider(PYLON_JWT_ALG=alg, PYLON_JWT_AUDIENCE="api")
    minted = op.ask("POST", "/api/auth/jwt", token=op.app.session()["token"]).json()["token"]
    shown = op.rp("c-resource").introspect(minted).json()
    assert shown["active"] is True
    assert (shown["aud"], shown["sub"], shown["iss"]) == ("api", "ada", op.issuer)
    assert op.rp("c-basic").introspect(minted).json() == INACTIVE
    assert _by_admin(op, minted).json()["active"] is True


def test_a_minted_token_without_audience_is_for_nobody(serve_provider: ServeProvider) -> None:
    """docs/security.md: without an `aud` only the admin may ask; with only HS256 such tokens and clients exist together."""
    op = serve_provider(PYLON_JWT_ALG="HS256")
    minted = op.ask("POST", "/api/auth/jwt", token=op.app.session()["token"]).json()["token"]
    assert op.rp("c-resource").introspect(minted).json() == INACTIVE
    assert _by_admin(op, minted).json()["active"] is True


@each_of("how", ["signed out", "locked out", "expired session", "expired token"])
def test_a_minted_token_is_active_only_while_its_session_lives(
    serve_provider: ServeProvider, how: str
) -> None:
    """docs/endpoints.md: signing out, locking out or the end of the session end it, though its signature stays good."""
    op = serve_provider(PYLON_JWT_ALG="RS256", PYLON_JWT_AUDIENCE="api", PYLON_JWT_LIFETIME_SECS="100")
    session = op.app.session(expires_in=50 if how == "expired session" else 5000)
    minted = op.ask("POST", "/api/auth/jwt", token=session["token"]).json()["token"]
    assert op.rp("c-resource").introspect(minted).json()["active"] is True
    if how == "signed out":
        op.ask("DELETE", "/api/auth/session", token=session["token"])
    elif how == "locked out":
        op.app.call("DELETE", "/api/auth/users/ada/sessions")
    else:
        op.clock.advance(50 if how == "expired session" else 100)
    assert op.rp("c-resource").introspect(minted).json() == INACTIVE


def test_a_minted_token_of_another_issuer_name_is_known_by_it(serve_provider: ServeProvider) -> None:
    """docs/endpoints.md: with `PYLON_JWT_ISSUER` minted tokens carry that, and introspection expects it."""
    op = serve_provider(PYLON_JWT_ALG="RS256", PYLON_JWT_AUDIENCE="api", PYLON_JWT_ISSUER="the-app")
    minted = op.ask("POST", "/api/auth/jwt", token=op.app.session()["token"]).json()["token"]
    assert op.rp("c-resource").introspect(minted).json()["iss"] == "the-app"


@HINTS
def test_revoking_an_access_token_ends_it_alone(op: Provider, signed: Signed, hint: str | None) -> None:
    """200 without a word; the refresh token lives on (RFC 7009 §2.1, §2.2)."""
    answer = op.rp().revoke(signed.access_token, **_hinted(hint))
    assert answer.status == 200
    assert op.rp().userinfo(signed.access_token).status == 401
    assert op.rp().introspect(signed.access_token).json() == INACTIVE
    assert op.rp().refresh(signed.tokens["refresh_token"]).status == 200


@HINTS
def test_revoking_a_refresh_token_ends_the_grant(op: Provider, signed: Signed, hint: str | None) -> None:
    """The access tokens of the grant end with it (RFC 7009 §2.1)."""
    fresh = op.rp().refresh(signed.tokens["refresh_token"]).json()
    assert op.rp().revoke(fresh["refresh_token"], **_hinted(hint)).status == 200
    for tokens in (signed.tokens, fresh):
        assert op.rp().userinfo(tokens["access_token"]).status == 401
        assert op.rp().refresh(tokens["refresh_token"]).status == 400
    assert not op.app.grants()


@pytest.mark.parametrize("client_id", ["c-post", "c-public", "c-third"])
def test_another_clients_token_is_not_revoked_and_not_told_of(
    op: Provider, signed: Signed, client_id: str
) -> None:
    """A client's own tokens only; the answer is that for an unknown token, byte for byte (RFC 7009 §2.1)."""
    unknown = op.rp(client_id).revoke("unknown")
    assert unknown.status == 200
    for token in (signed.access_token, signed.tokens["refresh_token"]):
        answer = op.rp(client_id).revoke(token)
        assert (answer.status, answer.body) == (unknown.status, unknown.body)
    assert op.rp().userinfo(signed.access_token).status == 200
    assert op.rp().refresh(signed.tokens["refresh_token"]).status == 200


def test_a_public_client_revokes_its_own(op: Provider) -> None:
    """RFC 7009 §2.1: a public client identifies itself, and revokes what is its own."""
    signed = op.sign_in(client_id="c-public", scope=OFFLINE)
    assert op.rp("c-public").revoke(signed.tokens["refresh_token"]).status == 200
    assert op.rp("c-public").userinfo(signed.access_token).status == 401


@each_of("token", ["", "x", "\0", "é", "a.b.c", "pylon_" + "0" * 64])
def test_no_token_breaks_them(op: Provider, token: str) -> None:
    """docs/security.md: whatever is asked about, the answer keeps its shape."""
    body: dict[str, Any] = op.rp().introspect(token).json()
    assert body == INACTIVE or body["error"] == "invalid_request"
    assert op.rp().revoke(token).status in {200, 400}


def test_a_session_token_is_not_introspected(op: Provider) -> None:
    """docs/security.md: the app's session token is not an OAuth token: introspection says inactive, even to the admin."""
    assert _by_admin(op, op.app.session()["token"]).json() == INACTIVE
