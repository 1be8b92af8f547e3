"""What the certification of dynamic clients asks of a provider that has only the code flow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.outbound.attacking import ok
from tests.provider.conftest import ServeProvider
from tests.provider.driver import Provider
from tests.provider.registering import CALLBACK, Stranger, refusal, register, registered
from tests.provider.test_private_key_jwt import TYPE, KeyServer, assertion, client, public  # noqa: F401 - a fixture

LOCAL = "http://localhost:4321"


@pytest.fixture
def op(serve_provider: ServeProvider) -> Provider:
    """A provider where everybody may register a client."""
    return serve_provider([], PYLON_OIDC_REGISTRATION="open")


def test_registering_is_answered_with_everything(op: Provider) -> None:
    """docs/conformance.md 4.1: 201, JSON, the id, a secret with its end, and each member that was sent (RFC 7591 §3.2.1)."""
    sent: dict[str, Any] = {
        "redirect_uris": [CALLBACK],
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "application_type": "web",
        "contacts": ["ve7jtb@example.org"],
        "client_name": "My Example",
        "client_uri": "https://client.example.org/",
        "logo_uri": "https://client.example.org/logo.png",
        "policy_uri": "https://client.example.org/policy",
        "tos_uri": "https://client.example.org/tos",
        "post_logout_redirect_uris": ["https://client.example.org/out"],
        "backchannel_logout_uri": "https://client.example.org/told",
        "backchannel_logout_session_required": False,
        "token_endpoint_auth_method": "client_secret_post",
        "id_token_signed_response_alg": "RS256",
        "scope": "openid email",
    }
    answer = op.ask("POST", "/oidc/register", json=sent)
    assert answer.status == 201 and answer.headers["Content-Type"] == "application/json"
    given = answer.json()
    assert {name: given.get(name) for name in sent} == sent
    assert given["client_secret"] and given["client_secret_expires_at"] == 0


def test_the_algorithm_of_its_id_tokens(op: Provider) -> None:
    """docs/conformance.md 4.2: a client that registers RS256 gets RS256 (OpenID Connect Registration §2)."""
    rp = registered(op, id_token_signed_response_alg="RS256").rp()
    request = rp.request()
    tokens = rp.redeem(request, op.authorize(op.browser(), request)["code"]).json()
    assert rp.verified(tokens["id_token"])["aud"] == rp.client_id  # which RS256 verifies, and nothing else


def test_two_redirect_uris_and_none_in_the_request(op: Provider) -> None:
    """docs/conformance.md 4.4: an error page, never one of the two (OpenID Connect Core §3.1.2.1)."""
    stranger = registered(op, redirect_uris=[CALLBACK, f"{CALLBACK}/2"])
    landing = op.browser().go(stranger.rp().request(redirect_uri=None).url)
    assert landing.url.startswith(op.issuer) and landing.answer.status == 400


def test_the_query_of_a_redirect_uri(op: Provider) -> None:
    """docs/conformance.md 4.5: kept next to code and state; another query is an error page (RFC 6749 §3.1.2)."""
    stranger = registered(op, redirect_uris=[f"{CALLBACK}?foo=bar", f"{CALLBACK}/plain"])
    assert op.authorize(op.browser(), stranger.rp().request())["foo"] == "bar"
    for uri in (f"{CALLBACK}?foo=baz", CALLBACK, f"{CALLBACK}/plain?foo=bar"):
        assert op.browser().go(stranger.rp().request(redirect_uri=uri).url).answer.status == 400


def test_a_fragment_in_a_redirect_uri(op: Provider) -> None:
    """docs/conformance.md 4.6: 400 with `invalid_redirect_uri` (RFC 6749 §3.1.2)."""
    for uri in (f"{CALLBACK}#", f"{CALLBACK}#fragment"):
        assert refusal(register(op, redirect_uris=[uri])) == (400, "invalid_redirect_uri")


def _by_key(op: Provider, stranger: Stranger, key: str, alg: str, **form: str) -> dict[str, Any]:
    """What the token endpoint answers to a request that this key signs."""
    signed = assertion(op.clock(), client_id=stranger.client_id, key=key, alg=alg, aud=LOCAL)
    answer = stranger.rp(secret=None, issuer=LOCAL).post(
        "/oidc/token", {"client_assertion": signed, "client_assertion_type": TYPE, **form}
    )
    assert answer.status == 200, answer
    given: dict[str, Any] = answer.json()
    return given


def test_its_keys_are_fetched_and_may_change(
    serve_provider: ServeProvider,
    client: KeyServer,  # noqa: F811 - the fixture, not the import
) -> None:
    """docs/conformance.md 4.8, 4.11, 4.13: its keys come from `jwks_uri`; after it has changed them, a refresh under
    the new key works; the issuer is the audience (OpenID Connect Core §9, §10.1.1).
    """
    op = serve_provider(
        [],
        PYLON_OIDC_REGISTRATION="open",
        PYLON_OIDC_ISSUER=LOCAL,
        PYLON_DEV_MODE="1",  # where the list counts for strangers too
        PYLON_OUTBOUND_ALLOW="127.0.0.1",
    )
    stranger = registered(op, token_endpoint_auth_method="private_key_jwt", jwks_uri=client.uri)
    rp = stranger.rp(secret=None, issuer=LOCAL)
    request = rp.request(scope="openid offline_access")
    code = op.authorize(op.browser(), request)["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    tokens = _by_key(op, stranger, "ec", "ES256", code_verifier=request.code_verifier or "", **form)
    client.answer = ok(json.dumps(public("okp")).encode())
    op.clock.advance(61)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert _by_key(op, stranger, "okp", "EdDSA", **form)["access_token"]


def test_a_registration_can_be_deleted(op: Provider) -> None:
    """docs/conformance.md 4.14: DELETE with its own token removes it (RFC 7592 §2.3)."""
    stranger = registered(op)
    assert stranger.manage("DELETE").status == 204
    assert stranger.manage("GET").status == 401
    assert (
        json.loads(stranger.rp().post("/oidc/token", {"grant_type": "refresh_token"}).body)["error"]
        == "invalid_client"
    )
