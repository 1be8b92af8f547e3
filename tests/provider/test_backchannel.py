"""Back-channel logout: every service that got tokens by a session gets a logout token when it ends, however it ends.

Spec: OpenID Connect Back-Channel Logout 1.0
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import jwt as pyjwt
import pytest

from tests.provider.browser import Browser
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, SECRET, SIGNED_OUT, Provider, Signed
from tests.support.pace import in_time
from tests.support.told import EVENT, Listener, Told, wait_for

_RP: Final[dict[str, Any]] = {"client_secret": SECRET, "first_party": True, "redirect_uris": [CALLBACK]}
BEGUN_S: Final = 1.0


@pytest.fixture
def listener() -> Iterator[Listener]:
    """One service that gets notices."""
    with Listener() as listening:
        yield listening


@pytest.fixture
def op(serve_provider: ServeProvider, listener: Listener) -> Provider:
    """A provider with two clients that get notices, and one that does not."""
    clients = [
        _RP
        | {
            "client_id": "told",
            "backchannel_logout_uri": f"{listener.uri}?of=told",
            "post_logout_redirect_uris": [SIGNED_OUT],
        },
        _RP | {"client_id": "too", "backchannel_logout_uri": listener.uri},
        _RP | {"client_id": "not"},
    ]
    return serve_provider(clients, PYLON_OUTBOUND_ALLOW="127.0.0.1")


def _by_logout(op: Provider, browser: Browser, signed: Signed, _token: str) -> None:
    browser.go(f"{op.issuer}/oidc/logout?id_token_hint={signed.tokens['id_token']}")


def _by_delete(op: Provider, _browser: Browser, _signed: Signed, token: str) -> None:
    assert op.ask("DELETE", "/api/auth/session", token=token).status == 200


def _by_sid(op: Provider, _browser: Browser, signed: Signed, _token: str) -> None:
    other = op.app.session()["token"]
    assert op.ask("DELETE", f"/api/auth/sessions/{signed.claims['sid']}", token=other).status == 200


def _with_the_others(op: Provider, _browser: Browser, _signed: Signed, _token: str) -> None:
    assert op.ask("DELETE", "/api/auth/sessions", token=op.app.session()["token"]).status == 200


def _by_lock_out(op: Provider, _browser: Browser, _signed: Signed, _token: str) -> None:
    assert op.app.call("DELETE", "/api/auth/users/ada/sessions").status == 200


WAYS: Final[Mapping[str, Callable[[Provider, Browser, Signed, str], None]]] = {
    "logout": _by_logout,
    "the app's DELETE": _by_delete,
    "one by its sid": _by_sid,
    "all others": _with_the_others,
    "a lock-out": _by_lock_out,
}


def _signed_in(op: Provider, *clients: str) -> tuple[Browser, str, list[Signed]]:
    browser = op.browser()
    token = op.app.sign_in(browser)["token"]
    return browser, token, [op.sign_in(browser, client_id, way="cookie") for client_id in clients]


def _verified(op: Provider, told: Told, client_id: str) -> dict[str, Any]:
    key = pyjwt.PyJWKSet.from_dict(op.ask("GET", "/oidc/jwks").json())[told.header["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    verified: dict[str, Any] = pyjwt.decode(
        told.token, key, algorithms=["RS256"], audience=client_id, issuer=op.issuer, options=options
    )
    return verified


def _deliveries(op: Provider) -> list[dict[str, Any]]:
    answer = op.app.call("GET", "/api/oidc/deliveries")
    assert answer.status == 200
    listed: list[dict[str, Any]] = answer.json()["deliveries"]
    return listed


@pytest.mark.parametrize("way", WAYS)
def test_each_client_that_got_tokens_is_told(op: Provider, listener: Listener, way: str) -> None:
    """docs/conformance.md 6.2, 6.3, 6.4: one token each, immediately, in a form that has nothing else; none for a client without an address (Logout §2.4, §2.5)."""
    browser, token, signed = _signed_in(op, "told", "too", "not")
    began, began_at = time.monotonic(), time.time()
    WAYS[way](op, browser, signed[0], token)
    assert in_time(time.monotonic() - began, BEGUN_S)
    assert in_time(listener.wait(2)[-1].at - began_at, 2.0)
    assert wait_for(lambda: _deliveries(op) == [])
    assert len(listener.told) == 2
    for told in listener.told:
        assert [name for name, _ in told.form] == ["logout_token"]
        assert told.content_type.partition(";")[0] == "application/x-www-form-urlencoded"
        client_id = told.claims["aud"]
        assert told.path == ("/backchannel?of=told" if client_id == "told" else "/backchannel")
        claims = _verified(op, told, client_id)
        assert told.header["typ"] == "logout+jwt"
        assert claims.keys() == {"iss", "aud", "iat", "exp", "jti", "events", "sub", "sid"}
        assert claims["events"] == {EVENT: {}}
        assert (claims["sub"], claims["sid"]) == ("ada", signed[0].claims["sid"])
        assert (claims["iat"], claims["exp"]) == (int(op.clock()), int(op.clock()) + 120)
    assert {told.claims["aud"] for told in listener.told} == {"told", "too"}
    assert len({told.claims["jti"] for told in listener.told}) == 2


def test_a_client_that_got_no_tokens_gets_no_logout_token(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: a code that was never exchanged, or only with a wrong verifier, gave its client nothing."""
    browser, token, _ = _signed_in(op, "told")
    request = op.rp("too").request()
    code = op.answered(request, browser.go(request.url))["code"]
    assert op.rp("too").redeem(request, code, code_verifier="v" * 43).status == 400
    assert op.ask("DELETE", "/api/auth/session", token=token).status == 200
    assert op.rp("too").redeem(request, code).status == 400
    listener.wait(1)
    assert wait_for(lambda: _deliveries(op) == [])
    assert [told.claims["aud"] for told in listener.told] == ["told"]


def test_the_browser_goes_back_too(op: Provider, listener: Listener) -> None:
    """docs/conformance.md 6.5: with the notice sent, the browser also returns to its client, with the `state`, signed out."""
    browser, _, (signed,) = _signed_in(op, "told")
    hint = signed.tokens["id_token"]
    landing = browser.go(
        f"{op.issuer}/oidc/logout?id_token_hint={hint}&post_logout_redirect_uri={SIGNED_OUT}&state=xyz"
    )
    assert landing.url == f"{SIGNED_OUT}?state=xyz"
    listener.wait(1)
    request = op.rp("told").request(prompt="none")
    assert op.answered(request, browser.go(request.url))["error"] == "login_required"


def test_a_logout_token_is_no_other_token(op: Provider, listener: Listener) -> None:
    """RFC 8725 §3.11: it is not accepted as a hint, an access token or a session, and introspection calls it inactive."""
    _end(op)
    token = listener.wait(1)[0].token
    browser = op.browser()
    kept = op.app.sign_in(browser)["token"]
    assert browser.go(f"{op.issuer}/oidc/logout?id_token_hint={token}").is_page()
    assert op.ask("GET", "/api/auth/me", token=kept).status == 200
    assert op.rp("told").userinfo(token).status == 401
    assert op.rp("told").introspect(token).json() == {"active": False}
    assert op.ask("GET", "/api/auth/me", token=token).status == 401


def test_nobody_is_told_of_a_session_that_lives(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: another session of the user stays, without a notice; a second sign-out of the same session sends nothing again."""
    _, kept, _ = _signed_in(op, "told")
    browser, token, signed = _signed_in(op, "told")
    _by_delete(op, browser, signed[0], token)
    _by_delete(op, browser, signed[0], token)
    listener.wait(1)
    assert op.ask("GET", "/api/auth/me", token=kept).status == 200
    assert wait_for(lambda: _deliveries(op) == [])
    assert [told.claims["sid"] for told in listener.told] == [signed[0].claims["sid"]]


def test_who_ends_all_other_sessions_stays_signed_in(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: the session that the user keeps continues, at its clients too."""
    _, kept, (stays,) = _signed_in(op, "told")
    _, _, (goes,) = _signed_in(op, "told")
    assert op.ask("DELETE", "/api/auth/sessions", token=kept).json() == {"revoked_count": 1}
    listener.wait(1)
    assert wait_for(lambda: _deliveries(op) == [])
    assert not wait_for(lambda: len(listener.told) > 1, within_s=0.2)
    assert [told.claims["sid"] for told in listener.told] == [goes.claims["sid"]]
    assert stays.claims["sid"] != goes.claims["sid"]


def test_a_logout_token_is_signed_as_the_id_tokens_of_its_client(
    serve_provider: ServeProvider, listener: Listener
) -> None:
    """Back-Channel Logout §2.4: by the algorithm that the client registered, with a key of the JWKS."""
    told = _RP | {"backchannel_logout_uri": listener.uri}
    clients = [told | {"client_id": alg, "id_token_signed_response_alg": alg} for alg in ("RS256", "ES256")]
    op = serve_provider(
        clients,
        PYLON_OIDC_PRIVATE_KEY=None,
        PYLON_OIDC_KEYS="managed",
        PYLON_KEY_ENCRYPTION_KEY=base64.b64encode(secrets.token_bytes(32)).decode(),
        PYLON_OIDC_ALGS="RS256,ES256",
        PYLON_OUTBOUND_ALLOW="127.0.0.1",
    )
    browser = op.browser()
    token = op.app.sign_in(browser)["token"]
    for client_id in ("RS256", "ES256"):
        request = op.rp(client_id).request()
        code = op.answered(request, browser.go(request.url))["code"]
        assert op.rp(client_id).redeem(request, code).status == 200
    assert op.ask("DELETE", "/api/auth/session", token=token).status == 200
    keys = pyjwt.PyJWKSet.from_dict(op.ask("GET", "/oidc/jwks").json())
    for each in listener.wait(2):
        alg = each.claims["aud"]
        assert each.header["alg"] == alg
        options: Any = {"verify_exp": False, "verify_iat": False}
        pyjwt.decode(each.token, keys[each.header["kid"]], algorithms=[alg], audience=alg, options=options)


def test_a_client_is_told_hours_after_its_last_token(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: the grant and its tokens have ended long ago; the session has not."""
    browser, token, signed = _signed_in(op, "told")
    op.clock.advance(8 * 3600)
    _by_delete(op, browser, signed[0], token)
    (told,) = listener.wait(1)
    assert _verified(op, told, "told")["iat"] == int(op.clock())


def test_an_expired_session_tells_nobody(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: no client is notified when a session expires."""
    browser = op.browser()
    token = op.app.sign_in(browser, expires_in=600)["token"]
    op.sign_in(browser, "told", way="cookie")
    op.clock.advance(601)
    assert op.ask("DELETE", "/api/auth/session", token=token).status == 200
    assert _deliveries(op) == []
    assert not wait_for(lambda: bool(listener.told), within_s=0.2)


# --- what answers mean ---


def _look(op: Provider) -> None:
    """Look at the queue now: the test's clock has moved, not the time of day."""
    op.house.app.begin_work.__self__.look()


def _tried(op: Provider, tries: int) -> dict[str, Any]:
    """The only delivery, after that many tries."""
    assert wait_for(lambda: [each["tries"] for each in _deliveries(op)] == [tries])
    (delivery,) = _deliveries(op)
    return delivery


def _end(op: Provider, client_id: str = "told") -> Signed:
    browser, token, (signed,) = _signed_in(op, client_id)
    _by_delete(op, browser, signed, token)
    return signed


RETRIES: Final = (5, 30, 120, 600, 3600, 21_600)


def test_what_fails_is_tried_again_and_then_given_up(
    op: Provider, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """docs/sign-in.md: after 5 s, 30 s, 2 min, 10 min, 1 h and 6 h: the same `jti`, a new `iat`; then it is kept to be read, and logged."""
    listener.status = 503
    signed = _end(op)
    for number, after_s in enumerate(RETRIES, 1):
        delivery = _tried(op, number)
        assert (delivery["state"], delivery["failure"]) == ("waiting", "status 503")
        assert delivery["next_try_at"] == int(op.clock()) + after_s
        op.clock.advance(after_s - 1)
        _look(op)
        assert not wait_for(lambda n=number: len(listener.told) > n, within_s=0.1)
        op.clock.advance(1)
        _look(op)
        told = listener.wait(number + 1)[-1]
        assert told.claims["iat"] == int(op.clock())
        assert told.claims["exp"] == told.claims["iat"] + 120
    delivery = _tried(op, len(RETRIES) + 1)
    assert (delivery["state"], delivery["next_try_at"]) == ("given_up", None)
    assert (delivery["client_id"], delivery["user_id"], delivery["sid"]) == (
        "told", "ada", signed.claims["sid"],
    )  # fmt: skip
    assert {told.claims["jti"] for told in listener.told} == {delivery["id"]}
    assert op.house.log.getvalue().count('"delivery_given_up"') == 1
    assert not any(told.token in op.house.log.getvalue() for told in listener.told)
    op.clock.advance(86_400)
    _look(op)
    assert not wait_for(lambda: len(listener.told) > len(RETRIES) + 1, within_s=0.1)


@pytest.mark.parametrize("status", [200, 204, 299])
def test_every_2xx_is_success(op: Provider, listener: Listener, status: int) -> None:
    """docs/conformance.md 6.6: it gets one notice, and nothing is kept (Back-Channel Logout §2.8)."""
    listener.status = status
    _end(op)
    listener.wait(1)
    assert wait_for(lambda: _deliveries(op) == [])


def test_a_400_is_final(op: Provider, listener: Listener) -> None:
    """Back-Channel Logout §2.8: the client does not take it; it is kept to be read, and not tried again."""
    listener.status = 400
    _end(op)
    delivery = _tried(op, 1)
    assert (delivery["state"], delivery["failure"], delivery["next_try_at"]) == (
        "refused",
        "status 400",
        None,
    )
    op.clock.advance(21_600)
    _look(op)
    assert not wait_for(lambda: len(listener.told) > 1, within_s=0.2)


@pytest.mark.parametrize("status", [302, 401, 404, 429, 500, 501])
def test_all_else_is_tried_again(op: Provider, listener: Listener, status: int) -> None:
    """docs/sign-in.md: every other status is tried again, and the next try can succeed."""
    listener.status = status
    _end(op)
    assert _tried(op, 1)["failure"] == f"status {status}"
    listener.status = 200
    op.clock.advance(5)
    _look(op)
    listener.wait(2)
    assert wait_for(lambda: _deliveries(op) == [])


def test_a_service_that_is_down_gets_its_token_when_it_is_back(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: a host that refuses the connection is tried again."""
    listener.stop()
    _end(op)
    assert _tried(op, 1)["state"] == "waiting"
    listener.start()
    op.clock.advance(5)
    _look(op)
    listener.wait(1)
    assert wait_for(lambda: _deliveries(op) == [])


def test_one_slow_service_holds_up_nobody(serve_provider: ServeProvider) -> None:
    """docs/sign-in.md: while one takes 3 s for each of twenty tokens, the others get theirs immediately."""
    with Listener() as slow, Listener() as quick:
        slow.slow_s = 3.0
        clients = [
            _RP | {"client_id": "slow", "backchannel_logout_uri": slow.uri},
            _RP | {"client_id": "quick", "backchannel_logout_uri": quick.uri},
        ]
        op = serve_provider(clients, PYLON_OUTBOUND_ALLOW="127.0.0.1")
        ends = [_signed_in(op, "slow") for _ in range(20)] + [_signed_in(op, "slow", "quick")]
        began = time.time()
        for browser, token, signed in ends:
            _by_delete(op, browser, signed[0], token)
        assert in_time(time.time() - began, 20 * 0.2)
        last = time.time()
        (told,) = quick.wait(1)
        assert in_time(told.at - last, 0.5)
        assert 1 <= len(slow.told) <= 4


def test_many_slow_services_hold_up_nobody(serve_provider: ServeProvider) -> None:
    """docs/security.md: one that was slow has one try at a time, and all of these have half of the threads at most."""
    with ExitStack() as stack:
        slow = [stack.enter_context(Listener()) for _ in range(8)]
        quick = stack.enter_context(Listener())
        told = {f"slow-{number}": each for number, each in enumerate(slow)} | {"quick": quick}
        clients = [
            _RP | {"client_id": name, "backchannel_logout_uri": each.uri} for name, each in told.items()
        ]
        op = serve_provider(clients, PYLON_OUTBOUND_ALLOW="127.0.0.1")
        for each in slow:
            each.slow_s = 1.5
        browser, token, signed = _signed_in(op, *told)
        _by_delete(op, browser, signed[0], token)
        quick.wait(1)
        assert wait_for(lambda: _deliveries(op) == [])  # now they are known to be slow
        ends = [_signed_in(op, *told) for _ in range(4)]
        for browser, token, signed in ends:
            _by_delete(op, browser, signed[0], token)
        last = time.time()
        assert in_time(quick.wait(5)[-1].at - last, 1.0)
        assert wait_for(lambda: sum(len(each.told) for each in slow) == 5 * len(slow), 15)


# --- what is taken away ---


def test_a_client_that_is_removed_is_told_nothing_more(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: its waiting tokens are removed, and a later client with the same id does not get them."""
    metadata = {
        "client_id": "gone", "redirect_uris": [CALLBACK], "first_party": True, "client_secret": SECRET,
        "backchannel_logout_uri": listener.uri,
    }  # fmt: skip
    assert op.app.call("POST", "/api/oidc/clients", metadata).status == 201
    listener.status = 503
    _end(op, "gone")
    _tried(op, 1)
    assert op.app.call("DELETE", "/api/oidc/clients/gone").status == 204
    assert _deliveries(op) == []
    op.clock.advance(5)
    _look(op)
    assert not wait_for(lambda: len(listener.told) > 1, within_s=0.2)


def test_an_address_counts_as_it_is_now(op: Provider, listener: Listener) -> None:
    """docs/sign-in.md: a client that adds one after the sign-in gets notices, one that removes it does not."""
    metadata = {"redirect_uris": [CALLBACK], "first_party": True, "client_secret": SECRET}
    for client_id in ("late", "never"):
        assert op.app.call("POST", "/api/oidc/clients", metadata | {"client_id": client_id}).status == 201
    browser, token, signed = _signed_in(op, "late", "never")
    changed = {name: value for name, value in metadata.items() if name != "client_secret"}
    named = op.app.call("PUT", "/api/oidc/clients/late", changed | {"backchannel_logout_uri": listener.uri})
    assert named.status == 200
    assert named.json()["backchannel_logout_uri"] == listener.uri
    assert named.json()["backchannel_logout_session_required"] is True
    _by_delete(op, browser, signed[0], token)
    (told,) = listener.wait(1)
    assert told.claims["aud"] == "late"


def test_an_address_that_no_request_goes_to_is_refused(serve_provider: ServeProvider) -> None:
    """docs/settings.md: http only where the operator names the host, no address of a private network; with what to write instead."""
    op = serve_provider([], PYLON_OUTBOUND_ALLOW="rp.internal,10.1.0.0/16")
    metadata = {"redirect_uris": [CALLBACK], "client_secret": SECRET}
    for uri, status in {
        "https://rp.example.org/out": 201, "http://rp.internal:8080/out": 201, "https://10.1.2.3/out": 201,
        "http://rp.example.org/out": 400, "https://10.2.2.3/out": 400, "https://[::1]/out": 400,
        "https://127.0.0.1/out": 400, "http://10.2.2.3/out": 400, "https://2130706433/out": 400,
    }.items():  # fmt: skip
        answer = op.app.call("POST", "/api/oidc/clients", metadata | {"backchannel_logout_uri": uri})
        assert answer.status == status, uri
        if status == 400:
            assert answer.json()["error"]["code"] == "INVALID_CLIENT_METADATA"
            assert "backchannel_logout_uri" in answer.json()["error"]["hint"]


def test_the_list_is_for_the_admin_alone(op: Provider) -> None:
    """docs/endpoints.md: 403 without the admin token."""
    assert op.ask("GET", "/api/oidc/deliveries").status == 403
    assert op.ask("GET", "/api/oidc/deliveries", token=op.app.session()["token"]).status == 403
