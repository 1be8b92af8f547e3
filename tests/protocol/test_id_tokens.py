"""ID tokens, and reading one back as a hint (OpenID Connect Core §2; RP-Initiated Logout §2)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jwt as pyjwt
import pytest

from service.protocol.clients import SCOPES
from service.protocol.id_tokens import (
    SCOPE_CLAIMS,
    claims_of_scope,
    half_hash,
    mint_id_token,
    read_hint,
    user_claims,
)
from service.protocol.models import User
from tests.protocol.forge import ring

ISSUER, NOW = "https://id.example.com", 1_800_000_000
ADA = User("ada", {"name": "Ada", "email": "a@b.c"}, ("dev",), "acme")
CONTEXT: dict[str, Any] = {"auth_time": NOW - 5, "sid": "sid-1", "nonce": None, "acr": None, "amr": []}


def _minted(user: User = ADA, **context: Any) -> dict[str, Any]:
    claims: dict[str, Any] = pyjwt.decode(_token(user, **context), options={"verify_signature": False})
    return claims


def _token(user: User = ADA, **context: Any) -> str:
    return mint_id_token(
        ring("RS256"),
        user,
        CONTEXT | context,
        issuer=ISSUER,
        client_id="c-1",
        access_token="at",
        alg="RS256",
        lifetime_s=600,
        now=NOW,
    )


def test_these_claims_and_no_more() -> None:
    """Core §2: what is required, auth_time, sid and at_hash; absent ones are missing, never null or empty."""
    assert _minted() == {
        "iss": ISSUER,
        "sub": "ada",
        "aud": "c-1",
        "iat": NOW,
        "exp": NOW + 600,
        "auth_time": NOW - 5,
        "sid": "sid-1",
        "at_hash": half_hash("at", alg="RS256"),
    }


def test_nonce_acr_and_amr_where_there_are_any() -> None:
    """Core §2: each as it was asked and reported."""
    claims = _minted(nonce="n", acr="gold", amr=["pwd", "otp"])
    assert (claims["nonce"], claims["acr"], claims["amr"]) == ("n", "gold", ["pwd", "otp"])


def test_claims_asked_for_are_those_that_are_known() -> None:
    """Core §5.5: what was asked for the ID token, where it is known."""
    claims = _minted(id_token_claims=["name", "phone_number", "roles", "tenant_id"])
    assert (claims["name"], claims["roles"], claims["tenant_id"]) == ("Ada", ["dev"], "acme")
    assert "phone_number" not in claims and "email" not in claims


@pytest.mark.parametrize(
    "name", ["iss", "sub", "aud", "iat", "exp", "auth_time", "sid", "at_hash", "nonce", "acr", "amr"]
)
def test_no_claim_of_a_user_stands_in_the_place_of_ours(name: str) -> None:
    """S17: even if the store held such a claim, and it were asked for."""
    hostile = User("ada", {name: "evil"})
    claims = _minted(hostile, id_token_claims=[name], nonce="n", acr="gold", amr=["pwd"])
    assert claims == _minted(nonce="n", acr="gold", amr=["pwd"])


def test_at_hash_is_half_the_hash_of_the_algorithm() -> None:
    """S14; Core §3.1.3.6: the left half of SHA-256 for RS256."""
    half = hashlib.sha256(b"some token").digest()[:16]
    assert half_hash("some token", alg="RS256") == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("alg", "digest", "half_bytes"),
    [("PS256", "sha256", 16), ("ES256", "sha256", 16), ("Ed25519", "sha512", 32)],
)
def test_at_hash_follows_each_algorithm(alg: str, digest: str, half_bytes: int) -> None:
    """S14: the hash is that of the signature's algorithm; for Ed25519, of which joserfc gives None, it is SHA-512."""
    half = hashlib.new(digest, b"some token").digest()[:half_bytes]
    assert half_hash("some token", alg=alg) == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


@pytest.mark.parametrize("alg", ["HS256", "EdDSA", "none", "", "rs256"])
def test_an_algorithm_without_a_hash_fails_closed(alg: str) -> None:
    """S14: rather no token than one without at_hash (CVE-2026-28498)."""
    with pytest.raises(KeyError):
        half_hash("x", alg=alg)


def test_a_hint_is_read_back() -> None:
    """Core §3.1.2.1: expired or not; the clock is not looked at."""
    hint = read_hint(ring("RS256"), _token(), issuer=ISSUER)
    assert hint is not None and (hint["sub"], hint["aud"], hint["sid"]) == ("ada", "c-1", "sid-1")


@pytest.mark.parametrize("issuer", ["https://id.example.com/", "https://other.example.com", ""])
def test_a_hint_of_another_issuer_is_none(issuer: str) -> None:
    """Core §3.1.2.1: issued by this issuer."""
    assert read_hint(ring("RS256"), _token(), issuer=issuer) is None


@pytest.mark.parametrize("change", [{"at_hash": None}, {"sub": None}, {"sub": 1}, {"iss": None}])
def test_what_is_signed_but_no_id_token_is_none(change: dict[str, Any]) -> None:
    """S15: a minted token has the same key, and lacks what only an ID token has."""
    claims = {name: value for name, value in (_minted() | change).items() if value is not None}
    assert read_hint(ring("RS256"), ring("RS256").sign(claims, alg="RS256"), issuer=ISSUER) is None


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "jwt"])
def test_another_typ_is_none(typ: str) -> None:
    """S15; RFC 8725 §3.11: each kind has its `typ`."""
    token = ring("RS256").sign(_minted(), alg="RS256", typ=typ)
    assert read_hint(ring("RS256"), token, issuer=ISSUER) is None


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "a.b.c.d.e", "\0", "é.é.é", "." * 9999, "A" * 200_000])
def test_no_text_breaks_it(text: str) -> None:
    """S12: whatever is shown, the answer is none."""
    assert read_hint(ring("RS256"), text, issuer=ISSUER) is None


def test_an_hmac_with_the_mint_secret_is_none() -> None:
    """S10: a token of the other algorithm, though its key is ours, is no hint."""
    assert read_hint(ring("HS256"), ring("HS256").sign(_minted(), alg="HS256"), issuer=ISSUER) is None


def test_every_scope_but_two_gives_claims() -> None:
    """Core §5.4: profile, email, address, phone, and ours; openid and offline_access give none."""
    assert set(SCOPE_CLAIMS) == set(SCOPES) - {"openid", "offline_access"}
    assert claims_of_scope(["openid", "email", "unknown"]) == ["email", "email_verified"]


def test_unknown_and_absent_claims_are_left_out() -> None:
    """Core §5.3.2: a claim without a value is omitted; false and 0 are values."""
    user = User("u", {"email_verified": False, "updated_at": 0})
    assert user_claims(user, ["email", "email_verified", "updated_at", "roles", "tenant_id", "nonsense"]) == {
        "email_verified": False,
        "updated_at": 0,
    }
