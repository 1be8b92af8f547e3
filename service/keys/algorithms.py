"""The table of asymmetric signature algorithms: one row for each. No other module knows one by its name.

Owns: their order, which keys each accepts and creates, the hash of `at_hash`.
Never touches: the format of keys, and which algorithms are in use.

Spec: RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2, OpenID Connect Core §3.1.3.6
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from service.keys.strength import MIN_RSA_BITS

#: A private key in the form of the library that creates it.
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm.

    Attributes:
        name: its `alg`.
        kty: the type of its keys (RFC 7517 §4.1).
        crv: their curve; None if they have none.
        half_hash: the hash whose left half is `at_hash`.
        make: creates a key; an RSA key takes about 50 ms.
        takes: whether a private key is for this algorithm.
    """

    name: str
    kty: str
    crv: str | None
    half_hash: Callable[[bytes], Any]
    make: Callable[[], PrivateKey]
    takes: Callable[[object], bool]


def _make_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=MIN_RSA_BITS)


def _is_rsa(key: object) -> bool:
    return isinstance(key, rsa.RSAPrivateKey)


def _make_on(curve: type[ec.EllipticCurve]) -> Callable[[], ec.EllipticCurvePrivateKey]:
    return lambda: ec.generate_private_key(curve())


def _is_on(curve: type[ec.EllipticCurve]) -> Callable[[object], bool]:
    return lambda key: isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, curve)


def _is_ed25519(key: object) -> bool:
    return isinstance(key, ed25519.Ed25519PrivateKey)


_TABLE: Final = (
    Algorithm("RS256", "RSA", None, hashlib.sha256, _make_rsa, _is_rsa),
    Algorithm("PS256", "RSA", None, hashlib.sha256, _make_rsa, _is_rsa),
    Algorithm("ES256", "EC", "P-256", hashlib.sha256, _make_on(ec.SECP256R1), _is_on(ec.SECP256R1)),
    # Ed25519 signs over SHA-512 (RFC 8032 §5.1).
    Algorithm("Ed25519", "OKP", "Ed25519", hashlib.sha512, ed25519.Ed25519PrivateKey.generate, _is_ed25519),
)

ALGORITHMS: Final = {row.name: row for row in _TABLE}
#: The algorithms, RS256 first: every relying party supports it (OpenID Connect Core §15.1).
ASYMMETRIC_ALGS: Final = tuple(ALGORITHMS)
#: The algorithms of an RSA key in the environment.
RSA_ALGS: Final = tuple(row.name for row in _TABLE if row.kty == "RSA")
MINT_ALGS: Final = ("HS256", *ASYMMETRIC_ALGS)


def in_order(algs: set[str]) -> list[str]:
    """Those algorithms, in the order of the table."""
    return [alg for alg in ASYMMETRIC_ALGS if alg in algs]


def usual_alg(key: object) -> str:
    """The default algorithm of a private key: the first row that accepts it, or else the first row."""
    return next((row.name for row in _TABLE if row.takes(key)), ASYMMETRIC_ALGS[0])


def kinds_in_words() -> str:
    """The kinds of keys, for an error message: `an RSA key …, a P-256 or an Ed25519 key`."""
    curves = dict.fromkeys(row.crv for row in _TABLE if row.crv is not None)
    *some, last = [f"{'an' if crv[0] in 'AEIOU' else 'a'} {crv}" for crv in curves]
    return f"an RSA key of at least {MIN_RSA_BITS} bits, {', '.join(some)} or {last} key"
