"""ID tokens, and reading one back as a hint (OpenID Connect Core §2; RP-Initiated Logout §2)."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any

import jwt as pyjwt
import pytest

from service.keys.signing import Keys
from service.protocol.id_tokens import (
    MAX_ID_TOKEN_CHARS,
    IdToken,
    half_hash,
    mint_id_token,
    read_hint,
    user_claims,
)
from service.records.clients import Client
from service.records.scopes import SCOPE_CLAIMS, SCOPES, STANDARD_SCOPES
from service.records.users import User
from tests.protocol.forge import ring
from tests.support.cases import each_of

ISSUER, NOW = "https://id.example.com", 1_800_000_000
ADA = User("ada", {"name": "Ada", "email": "a@b.c"}, ("dev",), "acme")
CLIENT = Client("c-1", (), "environment")
CONTEXT: dict[str, Any] = {"auth_time": NOW - 5, "sid": "sid-1", "nonce": None, "acr": None, "amr": []}


def _minted(user: User = ADA, **context: Any) -> dict[str, Any]:
    return _read(_made(user, **context))


def _read(made: IdToken) -> dict[str, Any]:
    claims: dict[str, Any] = pyjwt.decode(made.token, options={"verify_signature": False})
    return claims


def _token(user: User = ADA, **context: Any) -> str:
    return _made(user, **context).token


def _made(user: User = ADA, client: Client = CLIENT, scope: tuple[str, ...] = (), **context: Any) -> IdToken:
    return mint_id_token(
        ring("RS256"),
        user,
        CONTEXT | context,
        client,
        issuer=ISSUER,
        scope=scope,
        access_token="at",
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


@each_of("name", ["iss", "sub", "aud", "iat", "exp", "auth_time", "sid", "at_hash", "nonce", "acr", "amr"])
def test_no_claim_of_a_user_stands_in_the_place_of_ours(name: str) -> None:
    """docs/endpoints.md: even if the store held such a claim, and it were asked for."""
    hostile = User("ada", {name: "evil"})
    claims = _minted(hostile, id_token_claims=[name], nonce="n", acr="gold", amr=["pwd"])
    assert claims == _minted(nonce="n", acr="gold", amr=["pwd"])


def test_at_hash_is_half_the_hash_of_the_algorithm() -> None:
    """OpenID Connect Core §3.1.3.6: the left half of SHA-256 for RS256."""
    half = hashlib.sha256(b"some token").digest()[:16]
    assert half_hash("some token", alg="RS256") == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


@each_of(
    ("alg", "digest", "half_bytes"),
    [("PS256", "sha256", 16), ("ES256", "sha256", 16), ("Ed25519", "sha512", 32)],
)
def test_at_hash_follows_each_algorithm(alg: str, digest: str, half_bytes: int) -> None:
    """OpenID Connect Core §3.1.3.6: the hash is that of the signature's algorithm; for Ed25519, of which joserfc gives None, it is SHA-512."""
    half = hashlib.new(digest, b"some token").digest()[:half_bytes]
    assert half_hash("some token", alg=alg) == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


@each_of("alg", ["HS256", "EdDSA", "none", "", "rs256"])
def test_an_algorithm_without_a_hash_fails_closed(alg: str) -> None:
    """OpenID Connect Core §3.1.3.6: rather no token than one without at_hash (CVE-2026-28498)."""
    with pytest.raises(KeyError):
        half_hash("x", alg=alg)


def test_a_hint_is_read_back() -> None:
    """Core §3.1.2.1: expired or not; the clock is not looked at."""
    hint = read_hint(Keys(ring("RS256")), _token(), issuer=ISSUER)
    assert hint is not None and (hint["sub"], hint["aud"], hint["sid"]) == ("ada", "c-1", "sid-1")


@each_of("issuer", ["https://id.example.com/", "https://other.example.com", ""])
def test_a_hint_of_another_issuer_is_none(issuer: str) -> None:
    """Core §3.1.2.1: issued by this issuer."""
    assert read_hint(Keys(ring("RS256")), _token(), issuer=issuer) is None


@each_of("change", [{"at_hash": None}, {"sub": None}, {"sub": 1}, {"iss": None}])
def test_what_is_signed_but_no_id_token_is_none(change: dict[str, Any]) -> None:
    """RFC 8725 §3.11: a minted token has the same key, and lacks what only an ID token has."""
    claims = {name: value for name, value in (_minted() | change).items() if value is not None}
    assert read_hint(Keys(ring("RS256")), ring("RS256").sign(claims, alg="RS256"), issuer=ISSUER) is None


@each_of("typ", ["at+jwt", "logout+jwt", "jwt"])
def test_another_typ_is_none(typ: str) -> None:
    """RFC 8725 §3.11: each kind has its `typ`."""
    token = ring("RS256").sign(_minted(), alg="RS256", typ=typ)
    assert read_hint(Keys(ring("RS256")), token, issuer=ISSUER) is None


@each_of("text", ["", "x", "a.b.c", "a.b.c.d.e", "\0", "é.é.é", "." * 9999, "A" * 200_000])
def test_no_text_breaks_it(text: str) -> None:
    """RFC 7515 §4.1.11: for every such input there is no hint."""
    assert read_hint(Keys(ring("RS256")), text, issuer=ISSUER) is None


def test_an_hmac_with_the_mint_secret_is_none() -> None:
    """RFC 8725 §3.1: a token signed with another algorithm is not accepted as a hint, even with our key."""
    assert read_hint(Keys(ring("HS256")), ring("HS256").sign(_minted(), alg="HS256"), issuer=ISSUER) is None


def test_every_scope_but_two_gives_claims() -> None:
    """Core §5.4: profile, email, address, phone, and ours; openid and offline_access give none."""
    assert set(SCOPE_CLAIMS) == set(SCOPES) - {"openid", "offline_access"}
    assert STANDARD_SCOPES.claims_of(["openid", "email", "unknown"]) == ["email", "email_verified"]


def test_unknown_and_absent_claims_are_left_out() -> None:
    """Core §5.3.2: a claim without a value is omitted; false and 0 are values."""
    user = User("u", {"email_verified": False, "updated_at": 0})
    assert user_claims(user, ["email", "email_verified", "updated_at", "roles", "tenant_id", "nonsense"]) == {
        "email_verified": False,
        "updated_at": 0,
    }


# --- what goes in, under which names, and what does not fit ---


def test_scopes_give_their_claims_as_at_userinfo() -> None:
    """Core §5.4: the granted scopes' claims, and single claims that were asked for; nothing of other scopes."""
    scope = ("openid", "email", "roles", "groups")
    claims = _read(_made(ADA, CLIENT, scope, id_token_claims=["name"]))
    assert {name: claims.get(name) for name in ("email", "roles", "groups", "tenant_id", "name")} == {
        "email": "a@b.c",
        "roles": ["dev"],
        "groups": ["dev"],
        "tenant_id": "acme",
        "name": "Ada",
    }
    assert "name" not in _read(_made(ADA, CLIENT, scope))


def test_a_client_may_want_only_what_was_asked_for_alone() -> None:
    """Core §5.4: with an access token, the scopes' claims are userinfo's; this client keeps to the letter."""
    client = replace(CLIENT, id_token_claims="requested")
    claims = _read(_made(ADA, client, ("openid", "email", "profile"), id_token_claims=["name"]))
    assert claims["name"] == "Ada" and "email" not in claims


def test_claims_come_under_the_clients_names() -> None:
    """A client that looks for `groups` finds the roles there, and not under their own name; two may change places."""
    client = replace(CLIENT, claim_names={"roles": "groups", "name": "email", "email": "name"})
    claims = _read(_made(ADA, client, ("openid", "email", "profile", "roles", "groups")))
    assert (claims["groups"], claims["name"], claims["email"]) == (["dev"], "a@b.c", "Ada")
    assert "roles" not in claims


@each_of("name", ["iss", "sub", "aud", "exp", "iat", "auth_time", "sid", "at_hash", "nonce", "acr"])
def test_no_rename_takes_the_place_of_ours(name: str) -> None:
    """RFC 8725 §3.11: even if a client were kept with such a name."""
    client = replace(CLIENT, claim_names={"email": name})
    asked: dict[str, Any] = {"nonce": "n", "acr": "gold"}
    assert _read(_made(ADA, client, ("email",), **asked)) == _read(_made(ADA, CLIENT, (), **asked))


def test_what_fits_stays_whole() -> None:
    """A token that is short enough loses nothing."""
    made = _made(User("ada", {"name": "x" * 3000}), CLIENT, ("profile",))
    assert made.left_out == () and len(made.token) < MAX_ID_TOKEN_CHARS


@each_of(
    ("user", "left_out"),
    [
        (User("ada", {"name": "x" * 9000, "email": "a@b.c"}, ("dev",)), ("name",)),
        (User("ada", {"picture": "x" * 2500, "profile": "x" * 3500}, ("dev",)), ("profile",)),
        (User("ada", {"picture": "x" * 3500}, tuple(f"role-{n}" for n in range(200))), ("picture",)),
        (
            User("ada", {"email": "a@b.c"}, tuple(f"role-{n}" for n in range(900))),
            ("tenant_id", "email", "teams"),
        ),
    ],
)
def test_whole_claims_go_the_largest_first_and_roles_last(user: User, left_out: tuple[str, ...]) -> None:
    """Headers and addresses have a limit: below 6 KB, and the message about it has the client's own names."""
    client = replace(CLIENT, claim_names={"roles": "teams"})
    made = _made(replace(user, tenant_id="acme"), client, ("openid", "profile", "email", "roles"))
    assert len(made.token) <= MAX_ID_TOKEN_CHARS < 6144
    assert made.left_out == left_out
    assert not set(left_out) & set(_read(made)) and _read(made)["sub"] == "ada"


def test_a_long_nonce_never_goes() -> None:
    """Core §3.1.3.7: a client that sent a nonce finds it, however long."""
    made = _made(ADA, CLIENT, ("email",), nonce="n" * 7000)
    assert _read(made)["nonce"] == "n" * 7000 and made.left_out == ("email",)
