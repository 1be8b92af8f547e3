"""Public keys of others: which ones a client may have, and whether one of them signed a JWT.

Owns: what is accepted in a JWK Set that somebody else wrote.
Never touches: where the set comes from, our own keys.

Spec: RFC 7517 §4, §5, RFC 7515 §4.1, RFC 7518 §3, §6, RFC 8037 §2, RFC 8725 §3, RFC 9864 §2.2
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from service.keys.algorithms import ALGORITHMS
from service.keys.material import AsymmetricKey, KeyFault, load_public_jwk, parse_base64url_uint
from service.keys.strength import MAX_EXPONENT, MIN_RSA_BITS

#: Algorithm -> its name in our table. Ed25519 has two names (RFC 9864 §2.2).
_NAMES: Final = {**{alg: alg for alg in ALGORITHMS}, "EdDSA": "Ed25519"}
#: The algorithms that others may sign with, by every name.
OTHERS_ALGS: Final = tuple(_NAMES)
#: Verifying with a longer key takes too long.
MAX_RSA_BITS: Final = 8192
MOST_KEYS: Final = 100
#: How many fitting keys are tried. A client with several names one by its kid (OpenID Connect Core 1.0 §10.1).
_MOST_TRIED: Final = 8
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
#: By the names of our table. joserfc warns about EdDSA in a registry.
_VERIFIERS: Final = {alg: JWSRegistry(algorithms=[alg]).get_alg(alg) for alg in ALGORITHMS}
_MOST_HEADER_CHARS: Final = 8192


@dataclass(frozen=True, slots=True)
class OthersKey:
    """A public key.

    Attributes:
        kid: its id; None if it has none.
        algs: the algorithms that it verifies, by the names of our table.
        key: the key.
    """

    kid: str | None
    algs: frozenset[str]
    key: AsymmetricKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A JWT that has not been verified.

    Attributes:
        text: the whole token.
        header, claims: its parts.
    """

    text: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def kid(self) -> str | None:
        """The kid in its header."""
        kid = self.header.get("kid")
        return kid if isinstance(kid, str) else None

    @property
    def alg(self) -> str | None:
        """Its algorithm, by the name of our table; None if it is not in the table."""
        alg = self.header.get("alg")
        return _NAMES.get(alg) if isinstance(alg, str) else None


def same_alg(alg: str) -> str:
    """The name of our table for one of `OTHERS_ALGS`."""
    return _NAMES[alg]


def read_unverified(text: str) -> Unverified | None:
    """Split a compact JWT into its parts, or None if it is not one."""
    segments = text.split(".")
    if len(segments) != 3 or not text.isascii() or len(segments[0]) > _MOST_HEADER_CHARS:
        return None
    header, claims = _object(segments[0]), _object(segments[1])
    return None if header is None or claims is None else Unverified(text, header, claims)


def is_text(value: str) -> bool:
    """Whether a string of JSON can be written as UTF-8. An escape can be half a character (RFC 8259 §8.2)."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _object(segment: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_signed_by(unverified: Unverified, keys: Iterable[OthersKey]) -> bool:
    """Whether one of these keys signed it: one with its kid, or else one without a kid.

    Nothing in the header says where a key is (`jku`, `x5u`) or what it is (`jwk`, `x5c`): they are ignored. A critical
    member is refused, because none is known.
    """
    alg = unverified.alg
    if alg is None or "crit" in unverified.header or "b64" in unverified.header:
        return False
    fitting = [key for key in keys if alg in key.algs]
    if unverified.kid is not None:
        named = [key for key in fitting if key.kid == unverified.kid]
        fitting = named or [key for key in fitting if key.kid is None]
    return any(_verifies(unverified.text, key.key, _VERIFIERS[alg]) for key in fitting[:_MOST_TRIED])


def _verifies(text: str, key: AsymmetricKey, algorithm: Any) -> bool:
    signed, _, signature = text.rpartition(".")
    try:
        algorithm.check_key(key)
        found = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        return bool(algorithm.verify(signed.encode(), found, key))
    except (JoseError, ValueError, TypeError, KeyError):
        return False


def usable_keys(jwks: object) -> tuple[OthersKey, ...]:
    """The keys of a fetched JWK Set that verify signatures; others are left out (RFC 7517 §5).

    Raises:
        KeyFault: if it is not a JWK Set, or has no such key.
    """
    found = []
    for jwk in _entries(jwks):
        try:
            key = _key_of(jwk)
        except KeyFault:
            continue
        if key is not None:
            found.append(key)
    if not found:
        raise KeyFault("has no key that verifies a signature; use an RSA, P-256 or Ed25519 key")
    return tuple(found)


def check_public_jwks(jwks: object) -> None:
    """Check a JWK Set that is registered: all of its keys must be valid, and one must verify signatures.

    Raises:
        KeyFault: says what is wrong, and contains nothing of a key.
    """
    if not [key for key in map(_key_of, _entries(jwks)) if key is not None]:
        raise KeyFault("has no key that verifies a signature; write an RSA, P-256 or Ed25519 key")


def _entries(jwks: object) -> list[Any]:
    entries = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise KeyFault('is not a JWK Set; write {"keys": [{"kty": "EC", …}]}')
    return entries


def _key_of(jwk: object) -> OthersKey | None:
    """Import a key. Returns None if it verifies no signatures with a supported algorithm.

    Raises:
        KeyFault: if it is malformed, weak or not public.
    """
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kty"), str):
        raise KeyFault("has a key that is not a JWK with kty; write it as your library exports it")
    if _PRIVATE & jwk.keys() or jwk["kty"] == "oct":
        raise KeyFault(
            "has a private or secret key; write only public members, and replace a key that was sent"
        )
    kid, use, operations = (jwk.get(name) for name in ("kid", "use", "key_ops"))
    if kid is not None and (not isinstance(kid, str) or not 1 <= len(kid) <= 255):
        raise KeyFault("has a key whose kid is malformed; write a text of 1 to 255 characters")
    if use not in {None, "sig"} if not isinstance(use, (list, dict)) else True:
        return None
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        return None
    algs = frozenset(
        row.name for row in ALGORITHMS.values() if (row.kty, row.crv) == (jwk["kty"], jwk.get("crv"))
    )
    if jwk["kty"] == "RSA":
        algs = frozenset(row.name for row in ALGORITHMS.values() if row.kty == "RSA")
    if "alg" in jwk:
        algs &= {_NAMES.get(jwk["alg"]) if isinstance(jwk["alg"], str) else None}
    if not algs:
        return None
    return OthersKey(kid, algs, _imported(jwk))


def _imported(jwk: Mapping[str, Any]) -> AsymmetricKey:
    try:
        if jwk["kty"] == "RSA":
            modulus, exponent = (parse_base64url_uint(str(jwk[name])) for name in ("n", "e"))
            if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS or modulus % 2 == 0:
                raise KeyFault(
                    f"has an RSA key that is too small or too large; use one of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
                )
            if not 3 <= exponent <= MAX_EXPONENT or exponent % 2 == 0:
                raise KeyFault(
                    "has an RSA key whose exponent is not an odd number from 3 to 2147483647; use 65537 (AQAB)"
                )
        key = load_public_jwk(jwk)
        key.public_key  # noqa: B018 - a point that is not on the curve raises here
    except KeyFault:
        raise
    except (JoseError, ValueError, TypeError, KeyError):
        raise KeyFault("has a key that is malformed; write it as your library exports it") from None
    return key
