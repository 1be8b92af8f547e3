"""Tokens: which claims each kind carries, and how long it lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from service.handles import new_id
from service.keys.signing import Keyring
from service.records.sessions import Session


class JwtKind(StrEnum):
    """What a JWT of ours is for."""

    ID_TOKEN = "id_token"
    MINTED = "minted"


#: What each kind has that no other kind has, the first that fits: both may have the same issuer, key and `typ`. No
#: claim of an app's or a client's stands under these names (`service.records.claims`).
_MARKS: Final = ((JwtKind.ID_TOKEN, {"at_hash"}), (JwtKind.MINTED, {"jti", "sid"}))


def kind_of(claims: Mapping[str, Any]) -> JwtKind | None:
    """What kind of JWT of ours has these claims, whose signature was verified; None for none of them.

    Spec: RFC 8725 §3.12 (mutually exclusive rules for different kinds of JWTs)
    """
    return next((kind for kind, marks in _MARKS if marks <= claims.keys()), None)


class MintNotConfigured(Exception):
    """There is no key for the algorithm of minted tokens."""


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A signed token, and when it ends (Unix s; the same as its `exp`)."""

    token: str
    expires_at: int
    expires_in: int


def mint_token(
    session: Session, keyring: Keyring, *, issuer: str, audience: str | None, lifetime_s: int, now: int
) -> MintedToken:
    """Mint a JWT for a live session.

    Args:
        session: who is signed in.
        keyring: signs with its key for minted tokens.
        issuer: the `iss`, byte for byte.
        audience: the `aud`, or None for a token without one.
        lifetime_s: lifetime in s, cut where the session ends earlier.
        now: Unix s.

    Raises:
        MintNotConfigured: when there is no key to sign with.

    Spec: RFC 7519 §4.1. No `nbf`: a verifier whose clock is behind would refuse a fresh token.
    """
    if not keyring.can_mint:
        raise MintNotConfigured
    expires_at = min(now + lifetime_s, session.expires_at)  # a token never outlives its session
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": session.user_id,
        "iat": now,
        "exp": expires_at,
        "jti": new_id(),
        "sid": session.sid,
    }
    if audience is not None:
        claims["aud"] = audience
    if session.tenant_id is not None:
        claims["tenant_id"] = session.tenant_id
    if session.roles:
        claims["roles"] = list(session.roles)
    return MintedToken(keyring.sign(claims, alg=keyring.mint_alg), expires_at, expires_at - now)
