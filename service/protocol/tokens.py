"""Signs and reads tokens: the claims and the lifetime of each kind."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any, Final

from service.handles import new_id
from service.json_text import to_bytes
from service.keys.signing import InvalidToken, Keys, unverified_audience
from service.policies.deciding import Given
from service.policies.values import Policies, Policy


class JwtKind(StrEnum):
    """The kinds of our JWTs."""

    ID_TOKEN = "id_token"
    ACCESS = "access"
    MINTED = "minted"


#: The claims that identify each kind; the first match counts. Kinds may share issuer, key and `typ`. Apps and clients
#: cannot set claims with these names (`service.records.claims`).
_MARKS: Final = (
    (JwtKind.ID_TOKEN, {"at_hash"}),
    (JwtKind.ACCESS, {"jti", "client_id"}),
    (JwtKind.MINTED, {"jti", "sid"}),
)


def kind_of(claims: Mapping[str, Any]) -> JwtKind | None:
    """The kind of our JWT with these claims, after its signature was verified; None if there is no such kind.

    Spec: RFC 8725 §3.12 (mutually exclusive rules for different kinds of JWTs)
    """
    return next((kind for kind, marks in _MARKS if marks <= claims.keys()), None)


#: The claims that are checked after the signature. RFC 7519 §4.1, RFC 9068 §2.2
_TYPES: Final = {
    **dict.fromkeys(("iss", "sub", "aud", "jti", "sid", "client_id", "scope"), str),
    **dict.fromkeys(("exp", "iat"), int),
}
_NO_STATUS: Final[Mapping[str, Any]] = {}
#: The latest time that a stored record may have, Unix s.
_LATEST: Final = 1 << 53


class NoKey(Exception):
    """There is no key for the audience's algorithm."""


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A signed token, and when it expires (Unix s; the same as its `exp`)."""

    token: str
    expires_at: int
    expires_in: int


def sign_token(
    given: Given, keys: Keys, *, jti: str | None = None, status: Mapping[str, Any] = _NO_STATUS
) -> SignedToken:
    """Sign a token.

    Args:
        given: the content of the token, from `service.policies.deciding.decide`.
        keys: the signing keys.
        jti: its id; by default a new one.
        status: the claim that names its place in a status list; empty for none.

    Raises:
        NoKey: if there is no key to sign with.
        StoreUnavailable: if it is not known whether the key may still sign.

    Spec: RFC 7519 §4.1. No `nbf`: a verifier with a slow clock would refuse a new token.
    """
    secret, alg = given.policy.secret, given.alg
    keyring = keys.to_sign(alg)
    if not keyring.can_sign(alg, secret):
        raise NoKey
    claims = {**given.claims, **status, "jti": jti or new_id()}
    token = keyring.sign(claims, alg=alg, typ=given.typ, secret=secret)
    return SignedToken(token, given.expires_at, given.expires_in)


def read_token(unverified_token: str, keys: Keys, policies: Policies) -> tuple[Policy, dict[str, Any]] | None:
    """The policy and claims of a token for one of our audiences, with its form and signature verified; None for any other.

    Its times, its issuer and its session or grant are not checked.

    Spec: RFC 8725 §3.1, §3.11 (the algorithm, the key and the `typ` come from the audience, not from the token)
    """
    policy = policies.sole or policies.tables.get(unverified_audience(unverified_token))
    if policy is None:
        return None
    keyring = keys.knowing(unverified_token)
    for alg, typ in product(policy.algs_of_shown, policy.typs):
        with contextlib.suppress(InvalidToken, LookupError):
            claims = keyring.verify(unverified_token, alg=alg, typ=typ, secret=policy.secret)
            is_ours = _is_written_here(claims) and policy.may_live(alg, claims.get("exp", 0))
            return (policy, claims) if is_ours else None
    return None


def _is_written_here(claims: Mapping[str, Any]) -> bool:
    """Whether the claims have our form: someone with an HS256 secret can sign anything."""
    try:
        to_bytes(claims)
    except UnicodeEncodeError:
        return False
    of_their_type = all(type(claims[name]) is kind for name, kind in _TYPES.items() if name in claims)
    return of_their_type and claims.get("exp", 0) < _LATEST
