"""Refresh tokens: only for offline_access, rotated on every use, with a grace for the immediate predecessor."""

from __future__ import annotations

from typing import Any

import pytest

from tests.provider.conftest import ServeProvider
from tests.provider.driver import Provider, Signed
from tests.support.cases import each_of
from tests.support.gunicorn import Answer

OFFLINE = "openid profile offline_access"
DAY_S = 86_400


@pytest.fixture
def signed(op: Provider) -> Signed:
    """A user signed in offline."""
    return op.sign_in(scope=OFFLINE)


def _token(answer: Answer) -> str:
    assert answer.status == 200, answer
    return str(answer.json()["refresh_token"])


def _is_the_same(again: Answer, first: Answer, *, waited_s: int = 0) -> None:
    """The same tokens; the access token lives as long as it did, and the ID token may be a new one."""
    assert again.status == 200, again
    made_then, made_now = first.json(), again.json()
    assert made_now.pop("expires_in") == made_then.pop("expires_in") - waited_s
    assert made_now.pop("id_token") and made_then.pop("id_token")
    assert made_now == made_then


def _is_refused(answer: Answer, error: str = "invalid_grant") -> None:
    assert (answer.status, answer.json()["error"]) == (400, error), answer


def test_a_refresh_gives_everything_anew(op: Provider, signed: Signed) -> None:
    """docs/conformance.md 2.36: 200 JSON, no-store, new access and refresh token, and a new ID token of the same sign-in (Core §12.2)."""
    rp = op.rp()
    op.clock.advance(100)
    answer = rp.refresh(signed.tokens["refresh_token"])
    assert (answer.status, answer.headers["Cache-Control"], answer.headers["Pragma"]) == (
        200,
        "no-store",
        "no-cache",
    )
    fresh = answer.json()
    assert set(fresh) == {"access_token", "token_type", "expires_in", "scope", "id_token", "refresh_token"}
    assert fresh["token_type"] == "Bearer" and fresh["scope"] == signed.tokens["scope"]
    assert (
        len(
            {
                fresh["access_token"],
                fresh["refresh_token"],
                signed.access_token,
                signed.tokens["refresh_token"],
            }
        )
        == 4
    )
    assert rp.userinfo(fresh["access_token"]).status == 200
    claims = rp.verified(fresh["id_token"])
    for name in ("iss", "sub", "aud", "auth_time", "sid"):
        assert claims[name] == signed.claims[name]
    assert claims["iat"] == signed.claims["iat"] + 100 and "nonce" not in claims and "azp" not in claims


@each_of(
    ("client_id", "scope", "has_one"),
    [
        ("c-basic", "openid", False),
        ("c-basic", OFFLINE, True),
        ("c-public", OFFLINE, True),
        ("c-third", OFFLINE, True),
        ("c-narrow", OFFLINE, False),
        ("c-no-refresh", OFFLINE, False),
    ],
)
def test_a_refresh_token_comes_only_with_offline_access(
    op: Provider, client_id: str, scope: str, has_one: bool
) -> None:
    """docs/conformance.md 2.36: only with offline_access, granted, to a client that may refresh (Core §11)."""
    assert ("refresh_token" in op.sign_in(client_id=client_id, scope=scope).tokens) is has_one


def test_offline_access_is_said_on_the_consent_page(op: Provider) -> None:
    """A third party gets a refresh token only when the consent page listed it: it asks again for that (Core §11)."""
    browser, rp = op.browser(), op.rp("c-third")
    op.sign_in(browser, client_id="c-third", scope="openid")
    silent = rp.request(scope="openid offline_access", prompt="none")
    assert op.answered(silent, browser.go(silent.url))["error"] == "consent_required"
    page = browser.go(rp.request(scope="openid offline_access").url)
    assert page.is_page() and "stay connected while you are away" in page.text


@pytest.mark.parametrize(
    ("scope", "granted"), [("openid", "openid"), ("profile openid", "openid profile"), (OFFLINE, OFFLINE)]
)
def test_a_refresh_may_ask_for_less(op: Provider, signed: Signed, scope: str, granted: str) -> None:
    """docs/conformance.md 2.36: `scope` narrows the access token, not the grant (RFC 6749 §6)."""
    narrow = op.rp().refresh(signed.tokens["refresh_token"], scope=scope)
    assert narrow.json()["scope"] == granted
    assert op.rp().refresh(_token(narrow)).json()["scope"] == OFFLINE


@pytest.mark.parametrize("scope", ["openid email", "phone", "nonsense", " "])
def test_a_refresh_may_not_ask_for_more(op: Provider, signed: Signed, scope: str) -> None:
    """docs/conformance.md 2.36: a scope that was not granted is invalid_scope, and nothing is spent (RFC 6749 §6)."""
    _is_refused(op.rp().refresh(signed.tokens["refresh_token"], scope=scope), "invalid_scope")
    assert op.rp().refresh(signed.tokens["refresh_token"]).status == 200


def test_another_clients_refresh_token_is_invalid_grant(op: Provider, signed: Signed) -> None:
    """docs/conformance.md 2.36: bound to its client; trying ends nothing (RFC 6749 §10.4)."""
    for client_id in ("c-post", "c-public"):
        _is_refused(op.rp(client_id).refresh(signed.tokens["refresh_token"]))
    assert op.rp().refresh(signed.tokens["refresh_token"]).status == 200


def test_within_the_grace_the_answer_is_the_same(op: Provider, signed: Signed) -> None:
    """For 30 s the immediate predecessor gets the same tokens again, however often (docs/endpoints.md); an ID token as of now."""
    first = op.rp().refresh(signed.tokens["refresh_token"])
    waited_s = 0
    for wait_s in (0, 15, 14):
        op.clock.advance(wait_s)
        waited_s += wait_s
        again = op.rp().refresh(signed.tokens["refresh_token"])
        _is_the_same(again, first, waited_s=waited_s)
        assert again.headers["Cache-Control"] == "no-store"
        assert op.rp().verified(again.json()["id_token"])["sid"] == signed.claims["sid"]
    assert op.rp().userinfo(first.json()["access_token"]).status == 200
    assert op.rp().refresh(_token(first)).status == 200


@pytest.mark.parametrize("wait_s", [30, 31, DAY_S])
def test_after_the_grace_reuse_ends_the_grant(op: Provider, signed: Signed, wait_s: int) -> None:
    """After 30 s a spent token revokes the grant, successor and access tokens too (RFC 9700 §4.14.2)."""
    successor = op.rp().refresh(signed.tokens["refresh_token"]).json()
    op.clock.advance(wait_s)
    _is_refused(op.rp().refresh(signed.tokens["refresh_token"]))
    _is_refused(op.rp().refresh(successor["refresh_token"]))
    assert op.rp().userinfo(successor["access_token"]).status == 401
    assert not op.app.grants()


def test_the_grace_is_over_once_the_successor_is_used(op: Provider, signed: Signed) -> None:
    """docs/endpoints.md: the predecessor of the predecessor revokes the grant, even within 30 s."""
    second = _token(op.rp().refresh(signed.tokens["refresh_token"]))
    third = _token(op.rp().refresh(second))
    _is_refused(op.rp().refresh(signed.tokens["refresh_token"]))
    _is_refused(op.rp().refresh(third))


@pytest.mark.parametrize(
    ("client_id", "asked"),
    [
        ("c-basic", {"scope": "openid"}),
        ("c-basic", {"scope": "openid phone"}),
        ("c-basic", {"scope": " "}),
        ("c-basic", {"resource": "https://api.example"}),
        ("c-post", {}),
        ("c-public", {}),
    ],
)
def test_within_the_grace_another_request_ends_the_grant(
    op: Provider, signed: Signed, client_id: str, asked: dict[str, str]
) -> None:
    """The same client, scope and resource get the answer again; any other reuse revokes the grant (RFC 9700 §4.14.2)."""
    first = op.rp().refresh(signed.tokens["refresh_token"])
    _is_refused(op.rp(client_id).refresh(signed.tokens["refresh_token"], **asked))
    _is_refused(op.rp().refresh(_token(first)))
    assert op.rp().userinfo(first.json()["access_token"]).status == 401


def test_within_the_grace_the_same_request_may_be_written_otherwise(op: Provider, signed: Signed) -> None:
    """The whole scope is the same as none (RFC 6749 §6); the order of words says nothing (§3.3)."""
    asked = {"resource": op.issuer}
    first = op.rp().refresh(signed.tokens["refresh_token"], **asked)
    for scope in (OFFLINE, "offline_access profile openid"):
        _is_the_same(op.rp().refresh(signed.tokens["refresh_token"], scope=scope, **asked), first)


def test_within_the_grace_a_revoked_grant_stays_revoked(op: Provider, signed: Signed) -> None:
    """docs/security.md: never a revoked token: after revocation the predecessor gets no answer (Keycloak CVE-2026-1035)."""
    first = op.rp().refresh(signed.tokens["refresh_token"]).json()
    assert op.rp().revoke(first["refresh_token"]).status == 200
    _is_refused(op.rp().refresh(signed.tokens["refresh_token"]))


def test_the_grace_may_be_none(serve_provider: ServeProvider) -> None:
    """docs/settings.md: `PYLON_OIDC_REFRESH_GRACE_SECS=0`: every reuse ends the grant."""
    op = serve_provider(PYLON_OIDC_REFRESH_GRACE_SECS="0")
    token = op.sign_in(scope=OFFLINE).tokens["refresh_token"]
    successor = _token(op.rp().refresh(token))
    _is_refused(op.rp().refresh(token))
    _is_refused(op.rp().refresh(successor))


def test_the_grace_survives_a_restart(op: Provider, signed: Signed, serve_provider: ServeProvider) -> None:
    """docs/security.md: rotation and grace live in the store: another process gives the same answer."""
    first = op.rp().refresh(signed.tokens["refresh_token"])
    later = serve_provider(PYLON_DATA_DIR=str(op.house.settings.data_dir))
    _is_the_same(later.rp().refresh(signed.tokens["refresh_token"]), first)


@pytest.mark.parametrize(("age_s", "good"), [(30 * DAY_S - 1, True), (30 * DAY_S, False)])
def test_an_idle_refresh_token_ends_after_30_days(
    op: Provider, signed: Signed, age_s: int, good: bool
) -> None:
    """docs/endpoints.md: 30 days idle, to the second."""
    op.clock.advance(age_s)
    assert (op.rp().refresh(signed.tokens["refresh_token"]).status == 200) is good


def test_a_used_one_ends_after_90_days(op: Provider, signed: Signed) -> None:
    """docs/endpoints.md: 90 days absolute, however often it is used; access tokens end with it."""
    token = signed.tokens["refresh_token"]
    for _ in range(4):
        op.clock.advance(22 * DAY_S)
        token = _token(op.rp().refresh(token))
    op.clock.advance(2 * DAY_S - 10)
    last = op.rp().refresh(token).json()
    assert last["expires_in"] == 10
    op.clock.advance(10)
    _is_refused(op.rp().refresh(last["refresh_token"]))
    assert op.rp().userinfo(last["access_token"]).status == 401


@each_of(
    ("name", "value", "check"),
    [
        ("PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS", "100", "refresh_token"),
        ("PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS", "100", "refresh_token"),
        ("PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS", "100", "access_token"),
    ],
)
def test_lifetimes_are_settings(serve_provider: ServeProvider, name: str, value: str, check: str) -> None:
    """docs/settings.md: each lifetime has its setting."""
    op = serve_provider(**{name: value})
    tokens = op.sign_in(scope=OFFLINE).tokens

    def works() -> bool:
        answer: Any = (
            op.rp().userinfo(tokens[check]) if check == "access_token" else op.rp().refresh(tokens[check])
        )
        return bool(answer.status == 200)

    op.clock.advance(100)
    assert not works()


def test_the_id_token_lifetime_is_a_setting(serve_provider: ServeProvider) -> None:
    """docs/settings.md: `PYLON_OIDC_ID_TOKEN_LIFETIME_SECS`."""
    claims = serve_provider(PYLON_OIDC_ID_TOKEN_LIFETIME_SECS="77").sign_in().claims
    assert claims["exp"] - claims["iat"] == 77


@each_of("token", ["x", "x" * 43, "\0", "é", "pylon_" + "0" * 64])
def test_a_made_up_refresh_token_is_invalid_grant(op: Provider, token: str) -> None:
    """One answer whatever is wrong with it (RFC 6749 §5.2)."""
    _is_refused(op.rp().refresh(token))


def test_neither_code_nor_access_token_refreshes(op: Provider, signed: Signed) -> None:
    """docs/security.md: no kind of token is taken for another at the token endpoint."""
    for token in (signed.code, signed.access_token, signed.tokens["id_token"]):
        _is_refused(op.rp().refresh(token))
    _is_refused(op.rp().redeem(signed.request, signed.tokens["refresh_token"]))


def test_refreshing_without_authentication_is_invalid_client(op: Provider, signed: Signed) -> None:
    """A confidential client authenticates to refresh (RFC 6749 §6)."""
    answer = op.rp(secret=None).refresh(signed.tokens["refresh_token"])
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
