"""A token gives what its client, its user and its grant allow at the time of its use, not at the time of the consent.

Spec: RFC 6749 §3.3, §6, §10.4; RFC 7662 §2.2; OpenID Connect Core 1.0 §5.3
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, Provider, RelyingParty

SCOPE = "openid profile email offline_access"


@pytest.fixture
def rp(op: Provider) -> RelyingParty:
    """A client of the database, which the operator may change; Ada's claims are known."""
    metadata = {"client_id": "wiki", "redirect_uris": [CALLBACK], "first_party": True}
    answer = op.app.call("POST", "/api/oidc/clients", metadata)
    assert answer.status == 201, answer
    assert op.app.call("PUT", "/api/auth/users/ada", {"claims": dict(CLAIMS)}).status == 200
    return op.rp("wiki", secret=answer.json()["client_secret"])


def change(op: Provider, **members: Any) -> None:
    """The operator replaces the client's metadata."""
    metadata = {"redirect_uris": [CALLBACK], "first_party": True, **members}
    assert op.app.call("PUT", "/api/oidc/clients/wiki", metadata).status == 200


def sign_in(op: Provider, rp: RelyingParty, **parameters: str | None) -> dict[str, Any]:
    """The tokens of a whole flow."""
    request = rp.request(scope=SCOPE, **parameters)
    answer = rp.redeem(request, op.authorize(op.browser(), request)["code"])
    assert answer.status == 200, answer
    tokens: dict[str, Any] = answer.json()
    return tokens


def assert_no_email(values: Mapping[str, Any]) -> None:
    """Nothing of the scope that was taken away."""
    assert "email" not in values.get("scope", "").split()
    assert "email" not in values and "email_verified" not in values


def test_a_scope_taken_from_a_client_is_gone_from_every_use_of_its_tokens(
    op: Provider, rp: RelyingParty
) -> None:
    """RFC 6749 §3.3: userinfo, introspection and the next refresh are cut; what is left still works."""
    asked_for = '{"userinfo": {"email": null}, "id_token": {"email": null}}'
    tokens = sign_in(op, rp, claims=asked_for)
    assert rp.userinfo(tokens["access_token"]).json()["email"] == CLAIMS["email"]
    change(op, scope="openid profile offline_access")
    info = rp.userinfo(tokens["access_token"])
    assert info.status == 200 and info.json()["name"] == CLAIMS["name"]
    assert_no_email(info.json())
    for name in ("access_token", "refresh_token"):
        seen = rp.introspect(tokens[name]).json()
        assert seen["active"] and "profile" in seen["scope"].split()
        assert_no_email(seen)
    refreshed = rp.refresh(tokens["refresh_token"])
    assert refreshed.status == 200, refreshed
    assert_no_email(refreshed.json())
    assert_no_email(rp.verified(refreshed.json()["id_token"]))
    assert_no_email(rp.userinfo(refreshed.json()["access_token"]).json())


def test_a_code_gives_what_the_client_may_have_when_it_is_exchanged(op: Provider, rp: RelyingParty) -> None:
    """RFC 6749 §3.3: a scope that was taken away between the sign-in and the exchange does not come back by the code."""
    request = rp.request(scope=SCOPE)
    code = op.authorize(op.browser(), request)["code"]
    change(op, scope="openid profile offline_access")
    tokens = rp.redeem(request, code).json()
    assert tokens["scope"].split() == ["openid", "profile", "offline_access"]
    assert_no_email(rp.userinfo(tokens["access_token"]).json())


def test_the_repeated_answer_of_the_grace_is_cut_too(op: Provider, rp: RelyingParty) -> None:
    """RFC 6749 §6: a client that lost its answer gets the same tokens, and nothing that was taken away meanwhile."""
    tokens = sign_in(op, rp, claims='{"id_token": {"email": null}}')
    first = rp.refresh(tokens["refresh_token"]).json()
    change(op, scope="openid profile offline_access")
    again = rp.refresh(tokens["refresh_token"])
    assert again.status == 200, again
    assert again.json()["refresh_token"] == first["refresh_token"]
    assert_no_email(again.json())
    assert_no_email(rp.verified(again.json()["id_token"]) if "id_token" in again.json() else {})


def test_a_client_that_lost_openid_is_told_so_at_userinfo(op: Provider, rp: RelyingParty) -> None:
    """Userinfo is only for OpenID Connect (RFC 6750 §3.1: insufficient_scope)."""
    tokens = sign_in(op, rp)
    change(op, scope="profile offline_access")
    assert rp.userinfo(tokens["access_token"]).status == 403
    assert "id_token" not in rp.refresh(tokens["refresh_token"]).json()


@pytest.mark.parametrize(
    "members",
    [{"scope": "openid profile"}, {"grant_types": ["authorization_code"]}],
    ids=["scope", "grant type"],
)
def test_a_client_that_may_no_longer_be_offline_refreshes_nothing(
    op: Provider, rp: RelyingParty, members: Mapping[str, Any]
) -> None:
    """RFC 6749 §6: its refresh tokens do not work while it may not have them, and are not used up by the attempt."""
    tokens = sign_in(op, rp)
    change(op, **members)
    assert rp.refresh(tokens["refresh_token"]).status == 400
    assert rp.introspect(tokens["refresh_token"]).json() == {"active": False}
    change(op)
    assert rp.refresh(tokens["refresh_token"]).status == 200


def test_a_redirect_uri_taken_from_a_client_ends_its_codes(op: Provider, rp: RelyingParty) -> None:
    """RFC 6749 §4.1.3: a code that went to an address which is no longer the client's is not redeemed."""
    request = rp.request(scope=SCOPE)
    code = op.authorize(op.browser(), request)["code"]
    change(op, redirect_uris=["https://rp.example.org/elsewhere"])
    assert rp.redeem(request, code).json()["error"] == "invalid_grant"


def test_a_claim_taken_from_a_user_is_gone_from_the_next_answer(op: Provider, rp: RelyingParty) -> None:
    """OpenID Connect Core §5.3: what the app says now of a user is what userinfo and a refreshed ID token say."""
    tokens = sign_in(op, rp, claims='{"id_token": {"email": null}}')
    op.app.call("PUT", "/api/auth/users/ada", {"claims": {"name": "Ada"}})
    assert_no_email(rp.userinfo(tokens["access_token"]).json())
    assert_no_email(rp.verified(rp.refresh(tokens["refresh_token"]).json()["id_token"]))


def test_a_grant_whose_code_nobody_redeems_ends_with_the_code(op: Provider, rp: RelyingParty) -> None:
    """RFC 6749 §4.1.2: it is not listed as something that the user lets the client have, for ninety days."""
    request = rp.request(scope=SCOPE)
    op.authorize(op.browser(), request)
    op.clock.now += 61
    assert op.app.grants() == []


def test_a_redeemed_grant_lives_as_long_as_its_refresh_token(op: Provider, rp: RelyingParty) -> None:
    """RFC 6749 §10.5: ninety days from the sign-in, as before; and its code is recognised when it comes back."""
    request = rp.request(scope=SCOPE)
    code = op.authorize(op.browser(), request)["code"]
    tokens = rp.redeem(request, code).json()
    op.clock.now += 29 * 86_400
    assert len(op.app.grants()) == 1
    tokens = rp.refresh(tokens["refresh_token"]).json()
    op.clock.now += 3600
    assert rp.redeem(request, code).json()["error"] == "invalid_grant"
    assert op.app.grants() == []
    assert rp.refresh(tokens["refresh_token"]).status == 400


def test_what_a_client_of_the_environment_held_is_not_the_next_ones_of_its_id(
    serve_provider: ServeProvider,
) -> None:
    """docs/security.md: a client that is registered under the id of one that stood in the environment finds no tokens and no consent."""
    gone = {"client_id": "c-gone", "redirect_uris": [CALLBACK]}
    before = serve_provider([*CLIENTS, gone])
    tokens = before.sign_in(client_id="c-gone", scope=SCOPE).tokens
    after = serve_provider(PYLON_DATA_DIR=str(before.house.settings.data_dir))
    metadata = gone | {"token_endpoint_auth_method": "none"}
    assert after.app.call("POST", "/api/oidc/clients", metadata).status == 201
    rp = after.rp("c-gone", secret=None)
    assert rp.userinfo(tokens["access_token"]).status == 401
    assert rp.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert after.app.grants() == []
    browser = after.browser()
    after.app.sign_in(browser)
    assert "decision" in browser.go(rp.request(scope=SCOPE).url).text
    # One that is there already keeps what it holds: registering it again is refused, and changes nothing.
    tokens = sign_in(after, rp)
    assert after.app.call("POST", "/api/oidc/clients", metadata).status == 409
    assert rp.userinfo(tokens["access_token"]).status == 200
