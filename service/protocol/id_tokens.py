"""ID tokens, and reading one back as a hint.

Spec: OpenID Connect Core 1.0 §2, §3.1.3.6; RP-Initiated Logout 1.0 §2
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from service.keyring import InvalidToken, Keyring, Keys
from service.protocol.models import User

#: The hash that an algorithm signs over (OpenID Connect Core §3.1.3.6; RFC 8032 §5.1 for Ed25519).
_HALF_HASHES: Final = {
    "RS256": hashlib.sha256,
    "PS256": hashlib.sha256,
    "ES256": hashlib.sha256,
    "Ed25519": hashlib.sha512,
}

#: Scope -> the claims that it gives at userinfo (OpenID Connect Core §5.4; `roles` is ours).
SCOPE_CLAIMS: Final[Mapping[str, tuple[str, ...]]] = {
    "profile": (
        "name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
        "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at",
    ),
    "email": ("email", "email_verified"),
    "address": ("address",),
    "phone": ("phone_number", "phone_number_verified"),
    "roles": ("roles", "tenant_id"),
}  # fmt: skip


def half_hash(value: str, *, alg: str) -> str:
    """`at_hash`: the left half of the token's hash.

    Raises:
        KeyError: for an algorithm without a known hash; the token is then not made at all.
    """
    digest = _HALF_HASHES[alg](value.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def user_claims(user: User, names: Iterable[str]) -> dict[str, Any]:
    """Those of the named claims that are known of the user."""
    known = {**user.claims, "roles": list(user.roles) or None, "tenant_id": user.tenant_id}
    return {name: known[name] for name in names if known.get(name) is not None}


def claims_of_scope(scope: Iterable[str]) -> list[str]:
    """The claims that the scopes give."""
    return [name for word in scope for name in SCOPE_CLAIMS.get(word, ())]


def mint_id_token(
    keyring: Keyring,
    user: User,
    context: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    access_token: str,
    alg: str,
    lifetime_s: int,
    now: int,
) -> str:
    """Mint an ID token.

    Args:
        keyring: signs.
        user: whose claims may be asked for.
        context: what is kept of the sign-in: `auth_time`, `sid`, and where there are any `nonce`, `acr`, `amr`,
            `id_token_claims` (names that the request asked for).
        issuer: `iss`.
        client_id: `aud`.
        access_token: hashed into `at_hash`.
        alg: the client's `id_token_signed_response_alg`.
        lifetime_s: in s.
        now: Unix s.
    """
    claims = user_claims(user, context.get("id_token_claims", ()))
    # Ours come last: no claim of the app's may stand in their place.
    claims |= {
        "iss": issuer,
        "sub": user.user_id,
        "aud": client_id,
        "iat": now,
        "exp": now + lifetime_s,
        "auth_time": context["auth_time"],
        "sid": context["sid"],
        "at_hash": half_hash(access_token, alg=alg),
    }
    for name in ("nonce", "acr", "amr"):
        if context.get(name):
            claims[name] = context[name]
    return keyring.sign(claims, alg=alg)


def read_hint(keys: Keys, unverified_hint: str, *, issuer: str) -> dict[str, Any] | None:
    """The claims of an ID token of ours, expired or not; None for anything else."""
    try:
        claims = keys.knowing(unverified_hint).verify_hint(unverified_hint)
    except (InvalidToken, LookupError):
        return None
    # A minted token is signed by the same key: what makes an ID token is what only we put there.
    if claims.get("iss") != issuer or "at_hash" not in claims or not isinstance(claims.get("sub"), str):
        return None
    return claims
