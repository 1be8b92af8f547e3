"""Section 0 of the behaviours: what holds in every flow."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import jwt as pyjwt

from tests.provider.browser import query_of
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, Provider
from tests.support.cases import each_of

#: RFC 6749 §4.1.2.1
PRINTABLE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")
EVERY_SCOPE = "openid profile email address phone roles offline_access"

#: Requests that are refused by redirect: what is changed in a good one, and the error.
REFUSED: list[tuple[dict[str, str | None], str]] = [
    ({"response_type": None}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"scope": "nothing-known"}, "invalid_scope"),
    ({"prompt": "none"}, "login_required"),
    ({"prompt": "none login"}, "invalid_request"),
    ({"max_age": "-1"}, "invalid_request"),
    ({"code_challenge": None, "code_challenge_method": None, "nonce": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"claims": "[]"}, "invalid_request"),
    ({"request": "e30.e30."}, "request_not_supported"),
    ({"request_uri": "https://rp.example.org/request"}, "request_uri_not_supported"),
    ({"registration": "{}"}, "registration_not_supported"),
]


def entropy_bits(text: str) -> float:
    """Shannon entropy a character, times the length."""
    counts = Counter(text)
    return -sum(count * math.log2(count / len(text)) for count in counts.values())


def test_discovery_has_what_every_client_needs(op: Provider) -> None:
    """docs/conformance.md 0.1: discovery is a JSON object with issuer and endpoints (Discovery §3)."""
    document = op.ask("GET", "/.well-known/openid-configuration").json()
    assert {"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"} <= set(document)


def test_every_published_key_has_a_kid_and_no_private_part(op: Provider) -> None:
    """docs/conformance.md 0.2: kids are there and distinct, no private or symmetric member, each parses (RFC 7517 §4, §5)."""
    keys = op.ask("GET", "/oidc/jwks").json()["keys"]
    kids = [key["kid"] for key in keys]
    assert kids and len(set(kids)) == len(kids)
    for key in keys:
        assert not {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & set(key)
        assert (key["kty"], key["alg"], key["use"]) == ("RSA", "RS256", "sig")
        assert pyjwt.PyJWK(key).key.key_size >= 2048


@each_of("state", ["s" * 128, "a b&c=d#e%2F+é~\"'<>\\/?", "0"])
@each_of("prompt", [None, "none"])
def test_the_state_comes_back_byte_for_byte_in_the_query(
    op: Provider, state: str, prompt: str | None
) -> None:
    """docs/conformance.md 0.3: `state` is echoed exactly, on success and on error, in the query and never in a fragment (RFC 6749 §4.1.2)."""
    browser = op.browser()
    landing = op.finish(browser, browser.go(op.rp().request(state=state, prompt=prompt).url))
    assert query_of(landing.url)["state"] == state
    assert urlsplit(landing.url).fragment == ""


def test_a_request_without_state_is_answered_without(op: Provider) -> None:
    """docs/conformance.md 0.3: no `state` is made up (RFC 6749 §4.1.2)."""
    request = op.rp().request(state=None)
    assert "state" not in op.authorize(op.browser(), request)


@each_of("changes", [{}, {"prompt": "none"}, {"response_type": "token"}])
def test_every_response_carries_the_issuer(op: Provider, changes: dict[str, str | None]) -> None:
    """docs/conformance.md 0.4: `iss` of success and error equals discovery's issuer exactly (RFC 9207 §2)."""
    browser = op.browser()
    landing = op.finish(browser, browser.go(op.rp().request(**changes).url))
    assert query_of(landing.url)["iss"] == op.ask("GET", "/.well-known/openid-configuration").json()["issuer"]


def test_codes_and_tokens_cannot_be_guessed(op: Provider) -> None:
    """docs/conformance.md 0.5: a code is 16 bytes at least and of more than 96 bits; so are the tokens (RFC 6749 §10.10)."""
    signed = op.sign_in(scope="openid offline_access")
    for handle in (signed.code, signed.access_token, signed.tokens["refresh_token"]):
        assert len(handle) >= 16 and entropy_bits(handle) > 96
        assert re.fullmatch(r"[A-Za-z0-9._~+/=-]+", handle)


def test_the_token_answer_has_its_members(op: Provider) -> None:
    """docs/conformance.md 0.6, 0.7: 200 JSON with access_token, Bearer, id_token, expires_in as a positive integer (RFC 6749 §5.1)."""
    rp, browser = op.rp(), op.browser()
    request = rp.request()
    answer = rp.redeem(request, op.authorize(browser, request)["code"])
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    tokens = answer.json()
    assert set(tokens) == {"access_token", "token_type", "expires_in", "scope", "id_token"}
    assert tokens["token_type"] == "Bearer" and tokens["scope"] == "openid"
    assert type(tokens["expires_in"]) is int and tokens["expires_in"] == 3600


def test_the_id_token_says_who_for_whom_and_until_when(op: Provider) -> None:
    """docs/conformance.md 0.8: iss, aud, exp, iat, auth_time in seconds; no empty acr (Core §2)."""
    now = int(op.clock())
    claims = op.sign_in().claims
    assert (claims["iss"], claims["aud"], claims["sub"]) == (op.issuer, "c-basic", "ada")
    assert (claims["iat"], claims["exp"], claims["auth_time"]) == (now, now + 600, now)
    assert "acr" not in claims and "nbf" not in claims


def test_the_nonce_comes_back_in_the_id_token(op: Provider) -> None:
    """docs/conformance.md 0.9, 2.36: the ID token's nonce is the request's, 43 characters and more too (Core §3.1.3.6)."""
    for nonce in ("n" * 43, "n" * 384, 'é" <&'):
        assert op.sign_in(nonce=nonce).claims["nonce"] == nonce


def test_without_a_nonce_there_is_none(op: Provider) -> None:
    """docs/conformance.md 0.9, 2.9: no nonce is accepted in a code request, and none appears (Core §3.1.2.1)."""
    assert "nonce" not in op.sign_in(nonce=None).claims


@each_of("user", ["a", "x" * 255, "!#$%&'()*+,-./:;<=>?@[]^_`{|}~"])
def test_the_subject_is_the_user_id(op: Provider, user: str) -> None:
    """docs/conformance.md 0.10: `sub` is a string of 1 to 255 ASCII characters, locally unique (Core §2)."""
    assert op.sign_in(user=user).claims["sub"] == user


def test_the_id_token_is_signed_by_a_published_key(op: Provider) -> None:
    """docs/conformance.md 0.11, 2.4: alg RS256, and its kid is in the JWK Set (Core §3.1.3.7)."""
    header = pyjwt.get_unverified_header(op.sign_in().tokens["id_token"])
    assert header["alg"] == "RS256" and header["typ"] == "JWT"
    assert header["kid"] in {key["kid"] for key in op.ask("GET", "/oidc/jwks").json()["keys"]}


def test_standard_claims_have_their_json_types(op: Provider) -> None:
    """docs/conformance.md 0.12: each standard claim keeps its JSON type, in userinfo and in the ID token (Core §5.1)."""
    asked = json.dumps({"id_token": dict.fromkeys(CLAIMS)})
    signed = op.sign_in(scope=EVERY_SCOPE, claims=asked, fields={"claims": dict(CLAIMS)})
    told = op.rp().userinfo(signed.access_token).json()
    for shown in (told, signed.claims):
        assert {name: shown[name] for name in CLAIMS} == CLAIMS
        assert {name: type(shown[name]) for name in CLAIMS} == {
            name: type(value) for name, value in CLAIMS.items()
        }


def test_at_hash_is_the_left_half_of_the_access_tokens_hash(op: Provider) -> None:
    """docs/conformance.md 0.13: at_hash is right for RS256 (Core §3.1.3.6)."""
    signed = op.sign_in()
    half = hashlib.sha256(signed.access_token.encode()).digest()[:16]
    assert signed.claims["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


def test_the_id_token_carries_nothing_unasked(serve_provider: ServeProvider) -> None:
    """docs/conformance.md 0.14: with the code flow the scopes' claims are at userinfo, not in the ID token, for who asks so (Core §5.4)."""
    op = serve_provider([CLIENTS[0] | {"id_token_claims": "requested"}])
    claims = op.sign_in(scope=EVERY_SCOPE, fields={"claims": dict(CLAIMS), "roles": ["dev"]}).claims
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "auth_time", "sid", "at_hash", "nonce"}


@each_of("wanted", [{"value": "gold"}, {"values": ["silver", "gold"]}, {}])
def test_an_essential_acr_is_met_or_no_token_is_given(op: Provider, wanted: dict[str, Any]) -> None:
    """docs/conformance.md 0.15, 2.27: the ID token's acr is one that was asked for (Core §5.5.1.1)."""
    asked = json.dumps({"id_token": {"acr": {"essential": True} | wanted}})
    assert op.sign_in(claims=asked, fields={"acr": "gold"}).claims["acr"] == "gold"
    refused = op.authorize(op.browser(), op.rp().request(claims=asked), **({"acr": "lead"} if wanted else {}))
    assert refused["error"] == "unmet_authentication_requirements"


def test_userinfo_takes_the_access_token_in_the_header(op: Provider) -> None:
    """docs/conformance.md 0.16: 200 (Core §5.3.1)."""
    assert op.rp().userinfo(op.sign_in().access_token).status == 200


@each_of(("changes", "error"), REFUSED)
def test_an_error_goes_back_by_redirect(op: Provider, changes: dict[str, str | None], error: str) -> None:
    """docs/conformance.md 0.17: error, the same state, iss, printable description, nothing else and no code (RFC 6749 §4.1.2.1)."""
    request = op.rp().request(**changes)
    landing = op.browser().go(request.url)
    assert landing.is_at(CALLBACK)
    shown = op.answered(request, landing)
    assert set(shown) == {"error", "error_description", "state", "iss"}
    assert shown["error"] == error
    assert PRINTABLE.fullmatch(shown["error_description"])


@each_of(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, 400, "invalid_request"),
        ({"grant_type": "authorization_code", "code": 'x"\\é\x7f'}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "\x00"}, 400, "invalid_grant"),
    ],
)
def test_an_error_of_the_token_endpoint_is_json(
    op: Provider, form: dict[str, str], status: int, error: str
) -> None:
    """docs/conformance.md 0.18: JSON with error and a printable description, `no-store`, nothing of the input (RFC 6749 §5.2)."""
    answer = op.rp().post("/oidc/token", form)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.json()["error"] == error
    assert PRINTABLE.fullmatch(answer.json()["error_description"])
