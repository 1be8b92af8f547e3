"""A stranger tries everything that it does not get: one test for each line of docs/registration.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from service.outbound import wire
from tests.http.driver import unverified_claims
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import ISSUER, Provider
from tests.provider.registering import CALLBACK, Stranger, refusal, register, registered
from tests.provider.test_private_key_jwt import ask, assertion, public
from tests.support.told import wait_for

OPEN: Final = "https://open.example.com/mcp"
CLOSED: Final = "https://closed.example.com"
NAMED: Final = "https://named.example.com"
POLICIES: Final = f"""
[default]
alg = "RS256"
grants = ["authorization_code"]

[audience."{OPEN}"]
strangers = true
scopes = ["tools:call", "read"]

[audience."{CLOSED}"]
scopes = ["secret:read", "read"]

[audience."https://machine.example.com"]
grants = ["client_credentials", "token_exchange"]
strangers = true
scopes = ["read"]
"""
KEYS: Final = {"token_endpoint_auth_method": "private_key_jwt", "jwks": public("ec")}


def _policies(tmp_path: Path, text: str = POLICIES) -> str:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def op(serve_provider: ServeProvider, tmp_path: Path) -> Provider:
    """A provider that is open to strangers, and has APIs of which one is."""
    return serve_provider(PYLON_OIDC_REGISTRATION="open", PYLON_POLICIES=_policies(tmp_path))


def _tokens(op: Provider, stranger: Stranger, **parameters: str) -> dict[str, Any]:
    rp = stranger.rp()
    request = rp.request(**parameters)
    answer = rp.redeem(request, op.authorize(op.browser(), request)["code"])
    assert answer.status == 200, answer
    told: dict[str, Any] = answer.json()
    return told


def test_grant_types(op: Provider) -> None:
    """docs/registration.md: at the token endpoint too: no grant that has no user, none of another's token, no device."""
    rp = registered(op).rp()
    for grant_type in (
        "client_credentials",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:grant-type:device_code",
    ):
        answer = rp.post("/oidc/token", {"grant_type": grant_type, "resource": "https://machine.example.com"})
        assert answer.status == 400
        assert answer.json()["error"] in {"unauthorized_client", "unsupported_grant_type"}


def test_scopes(op: Provider) -> None:
    """docs/registration.md: those that are open, with the scopes of open audiences; others are left out of the grant."""
    stranger = registered(op)
    assert stranger.told["scope"] == "openid profile email offline_access tools:call read"
    tokens = _tokens(op, stranger, scope="openid email roles groups address phone secret:read")
    assert tokens["scope"] == "openid email"


def test_an_audience_that_is_open(op: Provider) -> None:
    """docs/registration.md: the token is for the API only, by name, with the API's scopes."""
    told = _tokens(op, registered(op), scope="openid tools:call offline_access", resource=OPEN)
    claims = unverified_claims(told["access_token"])
    assert (claims["aud"], claims["scope"]) == (OPEN, "tools:call")
    assert "roles" not in claims and "tenant_id" not in claims


@pytest.mark.parametrize("resource", [CLOSED, f"{OPEN} {CLOSED}", "https://machine.example.com"])
def test_an_audience_that_is_not_open(op: Provider, resource: str) -> None:
    """docs/registration.md: `invalid_target` at the authorization request, although a client of the operator's gets it."""
    stranger, browser = registered(op), op.browser()
    resources = "".join(f"&resource={each}" for each in resource.split())
    landing = browser.go(stranger.rp().request(scope="openid read").url + resources)
    assert landing.parameters["error"] == "invalid_target"
    if resource == CLOSED:
        assert "code" in op.authorize(op.browser(), op.rp().request(scope="openid read", resource=CLOSED))


def test_an_audience_at_the_token_endpoint(op: Provider) -> None:
    """docs/registration.md: a code or refresh token for one audience is not exchanged for another one."""
    stranger = registered(op)
    rp = stranger.rp()
    request = rp.request(scope="openid offline_access tools:call", resource=OPEN)
    code = op.authorize(op.browser(), request)["code"]
    assert rp.redeem(request, code, resource=CLOSED).json()["error"] == "invalid_target"
    tokens = rp.redeem(request, code, resource=OPEN).json()
    assert rp.refresh(tokens["refresh_token"], resource=CLOSED).json()["error"] == "invalid_target"


def test_an_audience_that_is_closed_later(
    serve_provider: ServeProvider, tmp_path: Path, op: Provider
) -> None:
    """docs/registration.md: its refresh token gets nothing more for it, its access token is dead, and a scope that is closed is gone."""
    stranger = registered(op)
    tokens = _tokens(op, stranger, scope="openid email offline_access tools:call", resource=OPEN)
    later = serve_provider(
        PYLON_DATA_DIR=str(op.house.settings.data_dir),
        PYLON_OIDC_REGISTRATION="open",
        PYLON_OIDC_REGISTRATION_SCOPES="openid offline_access",
        PYLON_POLICIES=_policies(tmp_path, POLICIES.replace("strangers = true", "strangers = false")),
    )
    rp = Stranger(later, stranger.told).rp()
    assert rp.refresh(tokens["refresh_token"], resource=OPEN).json()["error"] == "invalid_target"
    assert rp.introspect(tokens["access_token"]).json() == {"active": False}
    told = rp.refresh(tokens["refresh_token"], resource=ISSUER).json()
    assert told["scope"] == "openid offline_access"


def test_pkce_is_always_demanded(op: Provider) -> None:
    """RFC 9700 §2.1.1: also of one with a secret and a nonce, which is enough for a client of the operator's."""
    without: dict[str, str | None] = {"code_challenge": None, "code_challenge_method": None}
    for stranger in (registered(op), registered(op, require_pkce=False), registered(op, **KEYS)):
        landing = op.browser().go(stranger.rp(secret=None).request(**without).url)
        assert landing.parameters["error"] == "invalid_request"
        assert "PKCE" in landing.parameters["error_description"]
    assert "code" in op.authorize(op.browser(), op.rp().request(**without))


def test_no_page_of_errors_leads_to_a_stranger(op: Provider) -> None:
    """RFC 9700 §4.11.2: pages link to the sites of the operator's clients only, whatever the redirect URI of the request."""
    stranger, browser = registered(op, client_uri="https://stranger.example.net/home"), op.browser()
    request = stranger.rp().request()
    waiting = browser.go(request.url)
    assert (
        stranger.put(redirect_uris=["https://stranger.example.net/other"], client_name="A stranger").status
        == 200
    )
    op.app.sign_in(browser)
    page = browser.go(f"{ISSUER}/oidc/interaction/{op.app.interaction(waiting)}")
    assert page.is_page(400)
    assert "came from" in page.text
    assert "stranger.example.net" not in page.text


def test_consent_is_always_asked(op: Provider) -> None:
    """docs/registration.md: `first_party` is the operator's word: a stranger that sends it still needs the user's consent."""
    stranger, browser = registered(op, first_party=True, client_id="c-basic"), op.browser()
    op.app.sign_in(browser)
    assert stranger.client_id != "c-basic"
    page = browser.go(stranger.rp().request().url)
    assert page.is_page() and "decision" in page.text


def test_other_clients_tokens(op: Provider) -> None:
    """RFC 7662 §4, RFC 7009 §2.1: it learns nothing of them, ends none, and redeems no code of another's."""
    stranger = registered(op, resource_ids=[OPEN])
    rp, others = stranger.rp(), op.sign_in()
    assert rp.introspect(others.access_token).json() == {"active": False}
    assert rp.revoke(others.access_token).status == 200
    assert op.rp().userinfo(others.access_token).status == 200
    other = registered(op)
    tokens = _tokens(op, other, scope="openid tools:call offline_access", resource=OPEN)
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert rp.introspect(token).json() == {"active": False}
    assert rp.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    request = op.rp().request()
    code = op.authorize(op.browser(), request)["code"]
    assert rp.redeem(request, code).json()["error"] == "invalid_grant"


def test_the_audience_of_an_assertion(op: Provider) -> None:
    """RFC 7523 §3 with its update: the issuer, never the token endpoint, whatever it registers."""
    stranger = registered(op, assertion_audience="token_endpoint", **KEYS)
    usual: dict[str, Any] = {"client_id": stranger.client_id}
    assert ask(op, assertion(op.clock(), **usual)).json() == {"active": False}
    for aud in (f"{ISSUER}/oidc/token", [ISSUER, f"{ISSUER}/oidc/token"], [f"{ISSUER}/oidc/token"]):
        answer = ask(op, assertion(op.clock(), aud=aud, **usual))
        assert (answer.status, answer.json()["error"]) == (401, "invalid_client")


def test_names_of_private_addresses(serve_provider: ServeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/settings.md#requests-to-others: a name that leads to a machine which the operator opened for their own
    clients is not asked for a stranger: neither for its keys, nor to tell it of a sign-out.
    """
    monkeypatch.setattr(wire, "system_addresses", lambda _host, _port: ["127.0.0.1"])
    # Nothing listens there: what is asked fails with a different cause.
    there = "https://inside.example:1/x"
    keys = {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": there}
    own = {"client_id": "c-keys", "redirect_uris": [CALLBACK], **keys}
    op = serve_provider([*CLIENTS, own], PYLON_OIDC_REGISTRATION="open", PYLON_OUTBOUND_ALLOW="127.0.0.0/8")
    stranger = registered(op, **keys)
    causes = []
    for client_id in ("c-keys", stranger.client_id):
        assert ask(op, assertion(op.clock(), client_id=client_id)).status == 401
        causes.append(_causes(op)[-1])
    assert causes[0] != causes[1] == "address_not_public"
    browser = op.browser()
    token = op.app.sign_in(browser)["token"]
    rp = registered(op, backchannel_logout_uri=there).rp()
    request = rp.request()
    assert rp.redeem(request, op.authorize(browser, request)["code"]).status == 200
    before = len(_causes(op))
    assert op.ask("DELETE", "/api/auth/session", token=token).status == 200
    assert wait_for(lambda: len(_causes(op)) > before)
    assert _causes(op)[-1] == "address_not_public"


def _causes(op: Provider) -> list[str]:
    return [line["cause"] for line in op.house.lines if line["event"] == "outbound_failed"]


def test_a_name_of_another_client(op: Provider) -> None:
    """docs/registration.md: it cannot choose its id, so it replaces no other client; and its name is text, whatever it looks like."""
    stranger = registered(op, client_id=CLOSED, client_name="<script>alert(1)</script>")
    assert stranger.client_id.startswith("r_")
    browser = op.browser()
    op.app.sign_in(browser)
    page = browser.go(stranger.rp().request().url)
    assert "<script>" not in page.text and "&lt;script&gt;" in page.text


def test_an_issuer_of_several_names(serve_provider: ServeProvider) -> None:
    """docs/registration.md: where the issuer is that of the request, so is the address of the registration."""
    op = serve_provider(PYLON_DEV_MODE="1", PYLON_OIDC_ISSUER=None, PYLON_OIDC_REGISTRATION="open")
    answer = op.ask("POST", "/oidc/register", host="localhost:4321", json={"redirect_uris": [CALLBACK]})
    assert answer.json()["registration_client_uri"].startswith("http://localhost:4321/oidc/register/r_")
    assert refusal(register(op, redirect_uris=[]))[1] == "invalid_redirect_uri"
