"""docs/endpoints.md: which claims a minted token carries, and how long it lives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jwt as pyjwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys.signing import Keyring, Keys
from service.policies.deciding import Asked, Given, decide
from service.policies.values import MINT, Policy
from service.protocol.tokens import NoKey, SignedToken, sign_token
from service.records.sessions import Session
from tests.protocol.forge import OWN_CLAIMS, ring
from tests.support.cases import each_of
from tests.support.gunicorn import SECRET

NOW = 1_800_000_000
ISSUER = "https://id.example.test"
PLAIN = Session(
    sid="sid-1",
    token_hash="0" * 64,
    token_prefix="pylon_000000",
    user_id="user-1",
    created_at=NOW - 10,
    expires_at=NOW + 86_400,
    lifetime_s=86_410,
    auth_time=NOW - 10,
)
FULL = replace(
    PLAIN,
    tenant_id="acme",
    roles=("dev", "ops"),
    claims={"email": "a@b.c"},
    device="Firefox",
    acr="2",
    amr=("pwd",),
)
FORBIDDEN_EXTRAS = {
    "nbf",
    "azp",
    "acr",
    "amr",
    "auth_time",
    "nonce",
    "cnf",
    "client_id",
    "scope",
    "email",
    "device",
}


def _mint(
    session: Session = PLAIN, *, alg: str = "HS256", audience: str | None = None, lifetime_s: int = 3600
) -> SignedToken:
    return sign_token(_decided(session, Policy(audience, alg, lifetime_s)), Keys(ring(alg)))


def _decided(session: Session, policy: Policy) -> Given:
    decided = decide(policy, Asked(MINT, ISSUER, NOW, session=session))
    assert isinstance(decided, Given)
    return decided


def _claims(minted: SignedToken, alg: str = "HS256") -> dict[str, Any]:
    key: Any = SECRET if alg == "HS256" else pyjwt.PyJWK(dict(ring().jwks()["keys"][0])).key
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    claims: dict[str, Any] = pyjwt.decode(minted.token, key, algorithms=[alg], issuer=ISSUER, options=options)
    return claims


@each_of("alg", ["HS256", "RS256"])
@each_of(
    ("session", "audience", "more"),
    [
        (PLAIN, None, {}),
        (PLAIN, "api", {"aud": "api"}),
        (FULL, None, {"tenant_id": "acme", "roles": ["dev", "ops"]}),
        (FULL, "api", {"aud": "api", "tenant_id": "acme", "roles": ["dev", "ops"]}),
    ],
)
def test_the_claims_are_exactly_these(
    alg: str, session: Session, audience: str | None, more: dict[str, Any]
) -> None:
    """`iss, sub, iat, exp, jti, sid`, and `aud`, `tenant_id`, `roles` where there are any. No `nbf`."""
    claims = _claims(_mint(session, alg=alg, audience=audience), alg)
    jti = claims.pop("jti")
    assert isinstance(jti, str) and len(jti) >= 16
    assert claims == {"iss": ISSUER, "sub": "user-1", "iat": NOW, "exp": NOW + 3600, "sid": "sid-1", **more}
    assert not FORBIDDEN_EXTRAS & set(claims)


@each_of(("alg", "members"), [("HS256", {"alg", "typ"}), ("RS256", {"alg", "typ", "kid"})])
def test_the_header_is_exactly_this(alg: str, members: set[str]) -> None:
    """Header: `alg`, `typ: "JWT"`, and `kid` for asymmetric keys."""
    header = pyjwt.get_unverified_header(_mint(alg=alg).token)
    assert set(header) == members
    assert (header["alg"], header["typ"]) == (alg, "JWT")
    if alg == "RS256":
        assert header["kid"] == ring().published[0].kid


@given(lifetime_s=st.integers(1, 86_400), left_s=st.integers(1, 90 * 86_400))
def test_a_token_never_outlives_its_session(lifetime_s: int, left_s: int) -> None:
    """A token never outlives its session; what is answered is what is signed."""
    minted = _mint(replace(PLAIN, expires_at=NOW + left_s), lifetime_s=lifetime_s)
    exp = _claims(minted)["exp"]
    assert exp == minted.expires_at == NOW + minted.expires_in == NOW + min(lifetime_s, left_s)


def test_jtis_are_unique() -> None:
    """RFC 7519 §4.1.7: a negligible probability that the same value is given twice."""
    assert len({_claims(_mint())["jti"] for _ in range(200)}) == 200


@each_of("claim", OWN_CLAIMS)
def test_a_users_claims_set_none_of_the_tokens_own(claim: str) -> None:
    """Custom claims cannot set the token's own, even if they came past the check of the sign-in."""
    claims = _claims(_mint(replace(PLAIN, claims={claim: "forged"})))
    assert claims.get(claim) != "forged"


def test_without_a_key_nothing_is_minted() -> None:
    """501 `JWT_NOT_CONFIGURED` while HS256 has no secret."""
    with pytest.raises(NoKey):
        sign_token(_decided(PLAIN, Policy(None, "HS256", 60)), Keys(Keyring("HS256")))
