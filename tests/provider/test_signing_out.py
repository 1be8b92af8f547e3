"""What ends with a session, and what only a lock-out ends."""

from __future__ import annotations

import pytest

from tests.http.driver import refused
from tests.provider.browser import Browser
from tests.provider.driver import Provider, Signed

OFFLINE = "openid offline_access"
ENDS = pytest.mark.parametrize("how", ["own deletion", "deletion by sid", "others deleted", "logout"])


def _sign_out(op: Provider, browser: Browser, signed: Signed, token: str, how: str) -> None:
    if how == "logout":
        browser.go(f"{op.issuer}/oidc/logout?id_token_hint={signed.tokens['id_token']}")
        return
    other = op.app.session()["token"]
    path, bearer = {
        "own deletion": ("/api/auth/session", token),
        "deletion by sid": (f"/api/auth/sessions/{signed.claims['sid']}", other),
        "others deleted": ("/api/auth/sessions", other),
    }[how]
    assert op.ask("DELETE", path, token=bearer).status == 200


def _signed(op: Provider) -> tuple[Browser, str, Signed]:
    browser = op.browser()
    token = op.app.sign_in(browser)["token"]
    return browser, token, op.sign_in(browser, way="cookie", scope=OFFLINE)


@ENDS
def test_signing_out_ends_access_tokens_and_keeps_refresh_tokens(op: Provider, how: str) -> None:
    """Access tokens end with the session; refresh tokens, offline by definition, stay (Logout §2, Core §11)."""
    browser, token, signed = _signed(op)
    _sign_out(op, browser, signed, token, how)
    assert op.rp().userinfo(signed.access_token).status == 401
    assert op.rp().introspect(signed.access_token).json() == {"active": False}
    fresh = op.rp().refresh(signed.tokens["refresh_token"])
    assert fresh.status == 200
    assert op.rp().userinfo(fresh.json()["access_token"]).status == 200


@ENDS
def test_signing_out_ends_codes(op: Provider, how: str) -> None:
    """docs/sessions.md: a code that was not redeemed yet ends with the session."""
    browser, token, signed = _signed(op)
    request = op.rp().request()
    code = op.answered(request, browser.go(request.url))["code"]
    _sign_out(op, browser, signed, token, how)
    assert op.rp().redeem(request, code).json()["error"] == "invalid_grant"


@ENDS
def test_a_code_that_comes_again_after_signing_out_ends_the_offline_grant(op: Provider, how: str) -> None:
    """RFC 6749 §4.1.2: reuse of a spent code revokes what came of it, also when its session has ended since."""
    browser, token, signed = _signed(op)
    _sign_out(op, browser, signed, token, how)
    assert op.rp().redeem(signed.request, signed.code).json()["error"] == "invalid_grant"
    assert op.rp().refresh(signed.tokens["refresh_token"]).json()["error"] == "invalid_grant"


@ENDS
def test_signing_out_leaves_nobody_signed_in(op: Provider, how: str) -> None:
    """docs/sessions.md: prompt=none fails afterwards, with the cookie still there."""
    browser, token, signed = _signed(op)
    _sign_out(op, browser, signed, token, how)
    request = op.rp().request(prompt="none")
    assert op.answered(request, browser.go(request.url))["error"] == "login_required"


def test_the_session_of_a_reported_sign_in_is_listed_and_revocable(op: Provider) -> None:
    """docs/sessions.md: `login` makes a session as the app's own do, listed and revocable, its `sid` in the ID token, its token never shown."""
    browser = op.browser()
    signed = op.sign_in(browser, fields={"device": "Firefox", "amr": ["pwd"], "expires_in": 600})
    (listed,) = op.app.call("GET", "/api/auth/users/ada/sessions").json()["sessions"]
    assert (listed["sid"], listed["device"]) == (signed.claims["sid"], "Firefox")
    assert listed["expires_at"] == int(op.clock()) + 600
    assert op.app.call("DELETE", "/api/auth/users/ada/sessions").json() == {"revoked_count": 1}
    request = op.rp().request(prompt="none")
    assert op.answered(request, browser.go(request.url))["error"] == "login_required"


def test_locking_out_ends_everything(op: Provider) -> None:
    """docs/sessions.md: deleting all sessions of a user by the admin ends their grants, offline ones and consents too."""
    browser = op.browser()
    held = [op.sign_in(browser, client_id=client_id, scope=OFFLINE) for client_id in ("c-basic", "c-third")]
    assert op.app.call("DELETE", "/api/auth/users/ada/sessions").status == 200
    for signed in held:
        rp = op.rp(signed.request.parameters["client_id"])
        assert rp.userinfo(signed.access_token).status == 401
        assert rp.refresh(signed.tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert not op.app.grants()
    op.app.sign_in(browser)
    assert browser.go(op.rp("c-third").request().url).is_page(200), "asked to consent again"


def test_locking_one_out_leaves_the_others(op: Provider) -> None:
    """docs/security.md: another user's tokens live."""
    bob = op.sign_in(user="bob", scope=OFFLINE)
    op.app.call("DELETE", "/api/auth/users/ada/sessions")
    assert op.rp().userinfo(bob.access_token).status == 200
    assert op.rp().refresh(bob.tokens["refresh_token"]).status == 200


def test_one_sign_out_leaves_the_other_devices(op: Provider) -> None:
    """docs/security.md: what hangs on another session of the same user lives."""
    first, _, here = _signed(op)
    elsewhere = op.sign_in()
    _sign_out(op, first, here, "", "logout")
    assert op.rp().userinfo(elsewhere.access_token).status == 200


def test_refreshing_the_apps_session_keeps_what_hangs_on_it(op: Provider) -> None:
    """docs/sessions.md: sid and what hangs on it stay, and the new cookie is signed in at the provider."""
    browser, token, signed = _signed(op)
    renewed = op.ask("POST", "/api/auth/refresh", token=token).json()["token"]
    browser.set_cookie("pylon_session", renewed)
    assert op.rp().userinfo(signed.access_token).status == 200
    request = op.rp().request(prompt="none")
    code = op.answered(request, browser.go(request.url))["code"]
    claims = op.rp().verified(op.rp().redeem(request, code).json()["id_token"])
    assert (claims["sid"], claims["auth_time"]) == (signed.claims["sid"], signed.claims["auth_time"])


def test_a_grant_ended_by_the_operator_is_over(op: Provider) -> None:
    """docs/sessions.md: `DELETE /api/oidc/grants/{id}` 204: tokens end, and a third party asks for consent again."""
    browser = op.browser()
    signed = op.sign_in(browser, client_id="c-third", scope=OFFLINE)
    (grant,) = op.app.grants()
    answer = op.app.call("DELETE", f"/api/oidc/grants/{grant['id']}")
    assert (answer.status, answer.body) == (204, b"")
    assert op.rp("c-third").userinfo(signed.access_token).status == 401
    assert op.rp("c-third").refresh(signed.tokens["refresh_token"]).status == 400
    assert browser.go(op.rp("c-third").request(scope=OFFLINE).url).is_page(200)
    refused(op.app.call("DELETE", f"/api/oidc/grants/{grant['id']}"), 404, "NOT_FOUND")
