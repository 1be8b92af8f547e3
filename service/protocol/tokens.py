"""Tokens: which claims each kind carries, and how long it lives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from service.handles import new_id
from service.json_text import to_bytes
from service.keys.signing import InvalidToken, Keys, unverified_audience
from service.policies.deciding import Given
from service.policies.values import Policies, Policy


class JwtKind(StrEnum):
    """What a JWT of ours is for."""

    ID_TOKEN = "id_token"
    ACCESS = "access"
    MINTED = "minted"


#: What each kind has that no other kind has, the first that fits: both may have the same issuer, key and `typ`. No
#: claim of an app's or a client's stands under these names (`service.records.claims`).
_MARKS: Final = (
    (JwtKind.ID_TOKEN, {"at_hash"}),
    (JwtKind.ACCESS, {"jti", "client_id"}),
    (JwtKind.MINTED, {"jti", "sid"}),
)


def kind_of(claims: Mapping[str, Any]) -> JwtKind | None:
    """What kind of JWT of ours has these claims, whose signature was verified; None for none of them.

    Spec: RFC 8725 §3.12 (mutually exclusive rules for different kinds of JWTs)
    """
    return next((kind for kind, marks in _MARKS if marks <= claims.keys()), None)


#: What is asked of them once they are verified. RFC 7519 §4.1, RFC 9068 §2.2
_TYPES: Final = {
    **dict.fromkeys(("iss", "sub", "aud", "jti", "sid", "client_id", "scope"), str),
    **dict.fromkeys(("exp", "iat"), int),
}
#: The latest time that anything stored may have, Unix s.
_LATEST: Final = 1 << 53


class NoKey(Exception):
    """There is no key for the algorithm of the audience."""


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A signed token, and when it ends (Unix s; the same as its `exp`)."""

    token: str
    expires_at: int
    expires_in: int


def sign_token(given: Given, keys: Keys, *, jti: str | None = None) -> SignedToken:
    """Sign what was decided, under an id of its own.

    Args:
        given: what the token holds, as `service.policies.deciding.decide` says.
        keys: sign.
        jti: its id; a fresh one by default.

    Raises:
        NoKey: when there is no key to sign with.
        StoreUnavailable: when nobody knows whether the key still may sign.

    Spec: RFC 7519 §4.1. No `nbf`: a verifier whose clock is behind would refuse a fresh token.
    """
    policy = given.policy
    keyring = keys.to_sign(policy.alg)
    if not keyring.can_sign(policy.alg, policy.secret):
        raise NoKey
    claims = given.claims | {"jti": jti or new_id()}
    token = keyring.sign(claims, alg=policy.alg, typ=given.typ, secret=policy.secret)
    return SignedToken(token, given.expires_at, given.expires_in)


def read_token(unverified_token: str, keys: Keys, policies: Policies) -> tuple[Policy, dict[str, Any]] | None:
    """The policy and the claims of a token for an audience of ours, its form and signature verified; None for any other.

    Nothing is said of its times, of its issuer, or of what it stands on.

    Spec: RFC 8725 §3.1, §3.11 (the algorithm, the key and the `typ` are the audience's, whatever the token says)
    """
    policy = policies.sole or policies.tables.get(unverified_audience(unverified_token))
    if policy is None:
        return None
    keyring = keys.knowing(unverified_token)
    for typ in policy.typs:
        with contextlib.suppress(InvalidToken, LookupError):
            claims = keyring.verify(unverified_token, alg=policy.alg, typ=typ, secret=policy.secret)
            return (policy, claims) if _is_written_here(claims) else None
    return None


def _is_written_here(claims: Mapping[str, Any]) -> bool:
    """Whether the claims are of the form of ours: who has an HS256 secret signs whatever they like."""
    try:
        to_bytes(claims)
    except UnicodeEncodeError:
        return False
    of_their_type = all(type(claims[name]) is kind for name, kind in _TYPES.items() if name in claims)
    return of_their_type and claims.get("exp", 0) < _LATEST
