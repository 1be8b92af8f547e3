"""docs/keys.md: ID tokens by the client's algorithm, and hints whose key is gone."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt as pyjwt
import pytest

from service.clients import Clients
from service.keys.ring import DAY_S, Margins
from service.keys.rotation import revoked
from service.keys.sealing import SealingKeys
from service.keys.store import RingStore
from service.startup import client_warnings
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.provider.browser import Landing
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, SECRET, SIGNED_OUT, Provider
from tests.support.cases import each_of

ALGS = ("RS256", "PS256", "ES256", "Ed25519")
SEALING = bytes(range(32))
MANAGED: dict[str, Any] = {
    "PYLON_OIDC_PRIVATE_KEY": None,
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": base64.b64encode(SEALING).decode(),
    "PYLON_OIDC_ALGS": "Ed25519,ES256,PS256",
}
BY_ALG = [CLIENTS[0] | {"client_id": f"c-{alg.lower()}", "id_token_signed_response_alg": alg} for alg in ALGS]


@pytest.fixture
def op(serve_provider: ServeProvider) -> Provider:
    """A provider with a client for each algorithm."""
    return serve_provider([*CLIENTS, *BY_ALG], **MANAGED)


def id_token(op: Provider, client_id: str) -> tuple[str, str]:
    """What a flow gives: the ID token and the access token."""
    rp = op.rp(client_id)
    request = rp.request()
    answer = rp.redeem(request, op.authorize(op.browser(), request)["code"])
    assert answer.status == 200, answer
    tokens = answer.json()
    return tokens["id_token"], tokens["access_token"]


@each_of("alg", ALGS)
def test_an_id_token_is_signed_by_the_clients_algorithm(op: Provider, alg: str) -> None:
    """`id_token_signed_response_alg` (OpenID Connect Registration §2); RS256 is kept while there are clients, although
    `PYLON_OIDC_ALGS` does not name it. `at_hash` follows the algorithm.
    """
    token, access_token = id_token(op, f"c-{alg.lower()}")
    header = pyjwt.get_unverified_header(token)
    assert header["alg"] == alg
    (jwk,) = [key for key in op.ask("GET", "/oidc/jwks").json()["keys"] if key["kid"] == header["kid"]]
    assert jwk["alg"] == alg
    name = "EdDSA" if alg == "Ed25519" else alg  # PyJWT knows it by its old name
    data, _, signature = token.rpartition(".")
    key = pyjwt.PyJWK(jwk | {"alg": name})
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    assert pyjwt.get_algorithm_by_name(name).verify(data.encode(), key.key, raw)
    claims = pyjwt.decode(token, options={"verify_signature": False})
    digest = hashlib.new("sha512" if alg == "Ed25519" else "sha256", access_token.encode()).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    assert claims["at_hash"] == half


def test_discovery_names_the_algorithms(op: Provider) -> None:
    """OpenID Connect Discovery §3: RS256 is among them, and first."""
    document = op.ask("GET", "/.well-known/openid-configuration").json()
    assert document["id_token_signing_alg_values_supported"] == list(ALGS)


@each_of(("alg", "status"), [("ES256", 201), ("RS256", 201), ("PS256", 400), ("none", 400)])
def test_a_client_is_registered_for_what_is_kept(
    serve_provider: ServeProvider, alg: str, status: int
) -> None:
    """docs/keys.md: nobody is registered for ID tokens that cannot be made."""
    op = serve_provider(**MANAGED | {"PYLON_OIDC_ALGS": "ES256"})
    metadata = {"redirect_uris": [CALLBACK], "id_token_signed_response_alg": alg}
    answer = op.app.call("POST", "/api/oidc/clients", metadata)
    assert answer.status == status
    if status == 400:
        assert answer.json()["error"]["code"] == "INVALID_CLIENT_METADATA"
        assert "id_token_signed_response_alg" in answer.body.decode()


def test_the_first_client_signs_in_as_soon_as_it_is_registered(serve_provider: ServeProvider) -> None:
    """docs/keys.md: RS256 is always kept while there are clients: from the first one on, not a look later."""
    op = serve_provider([], **MANAGED | {"PYLON_OIDC_ALGS": "ES256"})
    metadata = {"redirect_uris": [CALLBACK], "first_party": True}
    client = op.app.call("POST", "/api/oidc/clients", metadata).json()
    rp = op.rp(client["client_id"], secret=client["client_secret"])
    request = rp.request()
    answer = rp.redeem(request, op.authorize(op.browser(), request)["code"])
    assert answer.status == 200, answer
    assert pyjwt.get_unverified_header(answer.json()["id_token"])["alg"] == "RS256"
    document = op.ask("GET", "/.well-known/openid-configuration").json()
    assert document["id_token_signing_alg_values_supported"] == ["RS256", "ES256"]


def test_the_key_of_the_environment_signs_by_rs256_alone(serve_provider: ServeProvider) -> None:
    """docs/keys.md: an RSA key; by PS256 it signs minted tokens."""
    op = serve_provider(PYLON_JWT_ALG="PS256", PYLON_JWT_AUDIENCE="api")
    metadata = {"redirect_uris": [CALLBACK], "id_token_signed_response_alg": "PS256"}
    assert op.app.call("POST", "/api/oidc/clients", metadata).status == 400
    assert op.sign_in().claims["aud"] == "c-basic"


def test_a_client_whose_algorithm_is_kept_no_more_is_told(serve_provider: ServeProvider) -> None:
    """docs/keys.md: rather no token than one by an algorithm that the client would refuse."""
    op = serve_provider(**MANAGED | {"PYLON_OIDC_ALGS": "Ed25519"})
    metadata = {
        "client_id": "early",
        "client_secret": SECRET,
        "redirect_uris": [CALLBACK],
        "first_party": True,
    }
    store = ring_of(op).store
    while_it_was_kept = Clients([], store, minted_audience=None, id_token_algs=ALGS)
    while_it_was_kept.add(metadata | {"id_token_signed_response_alg": "ES256"}, now=int(op.clock.now))
    assert len(client_warnings(op.house.settings, store, now=int(op.clock.now))) == 1  # start-up warns
    rp = op.rp("early", secret=SECRET)
    request = rp.request()
    answer = rp.redeem(request, op.authorize(op.browser(), request)["code"])
    assert (answer.status, answer.json()["error"]) == (400, "unauthorized_client")


def ring_of(op: Provider) -> RingStore:
    """The provider's ring, seen by a command that keeps no ES256."""
    store = SqlStore(SqliteDatabase(Path(op.house.settings.data_dir) / "pylon.db"))
    return RingStore(store, SealingKeys((SEALING,)), ["RS256", "PS256", "Ed25519"])


def _logout(op: Provider, hint: str) -> Landing:
    query = urlencode({"id_token_hint": hint, "post_logout_redirect_uri": SIGNED_OUT})
    return op.browser().go(f"{op.issuer}/oidc/logout?{query}")


@each_of("alg", ["RS256", "ES256"])
def test_a_hint_is_recognised_when_its_key_is_gone(op: Provider, alg: str) -> None:
    """docs/keys.md: gone: its public part is kept to recognise logout hints."""
    hint, _ = id_token(op, f"c-{alg.lower()}")
    kid = pyjwt.get_unverified_header(hint)["kid"]
    for _ in range(25):  # a worker that looks now and then, for a season
        op.clock.advance(4 * DAY_S)
        published = {key["kid"] for key in op.ask("GET", "/oidc/jwks").json()["keys"]}
    assert kid not in published
    assert _logout(op, hint).is_at(SIGNED_OUT)


def test_a_hint_of_a_revoked_key_is_not(op: Provider) -> None:
    """docs/keys.md: who has a stolen key signs nobody out by it."""
    hint, _ = id_token(op, "c-rs256")
    kid = pyjwt.get_unverified_header(hint)["kid"]
    now = int(op.clock.now)
    ring_of(op).ensure(Margins(), now=now, step=lambda ring: revoked(ring.keys, kid, now, Margins()))
    op.clock.advance(60)
    assert not _logout(op, hint).is_at(SIGNED_OUT)


def test_a_minted_token_is_introspected_by_its_kid(serve_provider: ServeProvider) -> None:
    """docs/keys.md: a minted token is active only while its session lives; its key is found by kid and algorithm."""
    op = serve_provider(**MANAGED | {"PYLON_JWT_ALG": "ES256", "PYLON_JWT_AUDIENCE": "api"})
    session = op.app.session()["token"]
    token = op.ask("POST", "/api/auth/jwt", token=session).json()["token"]
    rp = op.rp("c-resource")
    assert rp.introspect(token).json()["active"] is True
    head, payload, signature = token.split(".")
    kid = pyjwt.get_unverified_header(token)["kid"]
    other = json.dumps({"alg": "ES256", "typ": "JWT", "kid": kid[::-1]}).encode()
    renamed = base64.urlsafe_b64encode(other).rstrip(b"=").decode()
    assert rp.introspect(f"{renamed}.{payload}.{signature}").json() == {"active": False}
    assert rp.introspect(f"{head}.{payload}.").json() == {"active": False}
