"""Imports keys: which kinds, sizes and formats are accepted.

Owns: the rules for keys, and their import. A key is imported once, never per request: an RSA key takes 30 ms.
Never touches: settings, files, which key signs.

Spec: RFC 7518 §2, §3.2, §3.3, RFC 8725 §3.5
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from service.keys.algorithms import ALGORITHMS, kinds_in_words, usual_alg
from service.keys.strength import WeakKey, check_rsa_private, check_rsa_public

MIN_SECRET_BYTES: Final = 32

#: The algorithms with a public key, which anyone can verify.
AsymmetricKey = RSAKey | ECKey | OKPKey
#: The algorithm with a shared secret, which every verifier has too.
HmacKey = OctKey

_PLACEHOLDERS = (
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "your-secret",
    "your_secret",
    "replace-me",
    "replace_me",
    "your-client-secret",
    "your_client_secret",
    "insert-your",
    "insert_your",
)
#: Typical placeholders of templates.
_UNFILLED = re.compile(rb"<.*>|.*(?:\$\{|\$\(|\{\{|%\{).*", re.DOTALL)
_REPEATED = re.compile(rb"(.{1,8}?)\1{3,}.{0,8}", re.DOTALL)
_GENPKEY: Final = "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"
_MAKE_RSA: Final = f"write a PEM: {_GENPKEY}"
_PKCS8 = re.compile(rb"-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----")
#: 1.2.840.113549.1.1.10, and the same as a whole AlgorithmIdentifier without parameters.
_PSS_OID: Final = bytes.fromhex("06092a864886f70d01010a")
_PSS_UNRESTRICTED: Final = bytes([0x30, len(_PSS_OID)]) + _PSS_OID
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class KeyFault(ValueError):
    """The key is refused. The message says why and what to write instead, and contains nothing of the key."""


def load_secret(value: bytes) -> OctKey:
    """Check and import the HS256 key.

    Raises:
        KeyFault: if it is shorter than 32 bytes, a placeholder, or a PEM (RFC 8725 §3.5, RFC 7518 §3.2).
    """
    check_secret_strength(value)
    asymmetric = KeyFault("looks like an asymmetric key; write a random secret: openssl rand -hex 32")
    if b"-----BEGIN" in value:  # joserfc only warns about a private key
        raise asymmetric
    try:
        return OctKey.import_key(value)
    except (JoseError, ValueError):
        raise asymmetric from None


def check_secret_strength(value: bytes) -> None:
    """Refuse a secret that can be guessed.

    Raises:
        KeyFault: if it is shorter than 32 bytes, or a placeholder.
    """
    if len(value) < MIN_SECRET_BYTES:
        raise KeyFault(f"is shorter than {MIN_SECRET_BYTES} bytes; write a random one: openssl rand -hex 32")
    lowered = value.lower()
    if (
        any(word.encode() in lowered for word in _PLACEHOLDERS)
        or len(set(value)) < 5
        or _REPEATED.fullmatch(value)
        or _UNFILLED.fullmatch(value)
    ):
        raise KeyFault("is a placeholder; write a random one: openssl rand -hex 32")


def load_private_key(pem: str) -> RSAKey:
    r"""Check and import an RSA private key. This takes about 30 ms, once for each process.

    Args:
        pem: PKCS#8 or PKCS#1; line ends may be written as the two characters `\n`.

    Raises:
        KeyFault: if it is not a PEM of an RSA key of at least 2,048 bits without a passphrase, if it can be broken, or if
            common verifiers would refuse it (`strength`).
    """
    key = _imported(_read_pem(pem), "RS256", weak=_MAKE_RSA, other=f"is not an RSA key; {_MAKE_RSA}")
    if not isinstance(key, RSAKey):  # pragma: no cover - the table says so
        raise KeyFault(f"is not an RSA key; {_MAKE_RSA}")
    return key


def _read_pem(pem: str, alg: str | None = None) -> PrivateKeyTypes:
    """Read a private key. One for RSASSA-PSS only is accepted for PS algorithms, if it has no restrictions."""
    data = pem.replace("\\n", "\n").strip().encode("utf-8", "replace")
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise KeyFault("has a passphrase; write it without: openssl pkey -in KEY -out PLAIN") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault(f"is not a readable private key; {_MAKE_RSA}") from None
    pss = _pss_identifier(data)
    if pss is not None and not ((alg or "").startswith("PS") and pss == _PSS_UNRESTRICTED):
        raise KeyFault(
            f"is an RSA-PSS key (id-RSASSA-PSS), which verifiers of RS256 refuse; write an ordinary RSA key: {_GENPKEY}"
        )
    return key


def _pss_identifier(pem: bytes) -> bytes | None:
    """The start of the AlgorithmIdentifier (RFC 4055 §3.1) if it names RSASSA-PSS; otherwise None."""
    block = _PKCS8.search(pem)
    if block is None:
        return None
    der = base64.b64decode(block[1])
    at = der.find(_PSS_OID, 0, 40)  # after the lengths and the version (RFC 5208 §5)
    return None if at < 0 else der[at - 2 : at + len(_PSS_OID)]


def _check_strength(key: object, remedy: str) -> None:
    """Refuse a private key that can be broken or guessed, or that verifiers refuse.

    Raises:
        KeyFault: with the given remedy.
    """
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public = numbers.public_numbers
        try:
            check_rsa_private(numbers.p, numbers.q, public.n, public.e)
        except WeakKey as weak:
            raise KeyFault(f"{weak}; {remedy}") from None
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        _check_random(key.private_numbers().private_value.to_bytes(66, "big").lstrip(b"\0"), remedy)
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        _check_random(key.private_bytes_raw(), remedy)


def _check_random(secret: bytes, remedy: str) -> None:
    if len(set(secret)) < 8:  # 32 random bytes have so few different values once in 10^40 times
        raise KeyFault(f"is a placeholder; {remedy}")


def load_public_key(modulus: int, exponent: int) -> RSAKey:
    """Import the RSA key to publish.

    Raises:
        KeyFault: if they are not an RSA key of at least 2,048 bits, or one that can be broken (`strength`).
    """
    try:
        check_rsa_public(modulus, exponent)
    except WeakKey as weak:
        raise KeyFault(f"{weak}; write those of a key that was created with: {_GENPKEY}") from None
    try:
        return RSAKey.import_key(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    except ValueError:
        raise KeyFault("modulus and exponent are not an RSA key; write those of the key that signs") from None


def parse_base64url_uint(value: str) -> int:
    """Parse a Base64urlUInt (RFC 7518 §2): base64url without padding, no leading zero byte.

    Raises:
        KeyFault: if it has another form.
    """
    if not _BASE64URL.fullmatch(value):
        raise KeyFault("is not base64url without padding; write only the characters A-Z a-z 0-9 - _")
    try:
        data = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        raise KeyFault("is not base64url; write only the characters A-Z a-z 0-9 - _") from None
    number = int.from_bytes(data, "big")
    if number == 0 or base64url_uint(number) != value:
        raise KeyFault("is not a minimal base64url number; write it without leading zero bytes")
    return number


def public_numbers(key: RSAKey) -> rsa.RSAPublicNumbers:
    """The modulus and exponent of the key."""
    return key.public_key.public_numbers()


def base64url_uint(number: int) -> str:
    """Write a number as Base64urlUInt (RFC 7518 §2)."""
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- keys of the ring ---


def generate_key(alg: str) -> AsymmetricKey:
    """Create a signing key for the algorithm. RSA takes about 50 ms."""
    row = ALGORITHMS[alg]
    return _IMPORT[row.kty](row.make())


def private_bytes(key: AsymmetricKey) -> bytes:
    """The private key as PKCS#8, DER. It must be sealed before it is stored."""
    return key.as_der(private=True)


def load_private_bytes(data: bytes, alg: str) -> AsymmetricKey:
    """Import what `private_bytes` returned.

    The key was created or checked here, and the seal shows any change. So its numbers are not checked again, which
    would take 35 ms for an RSA key. The caller tests it against the published key.

    Raises:
        KeyFault: if it is not a key for the algorithm.
    """
    try:
        key = load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFault("is not a private key; restore it, or revoke it") from None
    return _imported(key, alg, weak="revoke it", other=f"is not a key for {alg}; restore it, or revoke it")


def _imported(key: PrivateKeyTypes, alg: str, *, weak: str, other: str) -> AsymmetricKey:
    """Import the key for the algorithm.

    Raises:
        KeyFault: with the remedy `weak` if it can be broken, or `other` if it is not for the algorithm.
    """
    row = ALGORITHMS.get(alg)
    if row is None or not row.takes(key):
        raise KeyFault(other)
    _check_strength(key, weak)
    return _IMPORT[row.kty](key)


def load_public_jwk(jwk: Mapping[str, str]) -> AsymmetricKey:
    """Import a public key of the ring, to verify with."""
    members: dict[str, Any] = {name: jwk[name] for name in _PUBLIC_MEMBERS[jwk["kty"]]}
    return _IMPORT[jwk["kty"]](members)


_IMPORT: Final[Mapping[str, Callable[[Any], AsymmetricKey]]] = {
    "RSA": RSAKey.import_key,
    "EC": ECKey.import_key,
    "OKP": OKPKey.import_key,
}
_PUBLIC_MEMBERS: Final = {
    "RSA": ("kty", "n", "e"),
    "EC": ("kty", "crv", "x", "y"),
    "OKP": ("kty", "crv", "x"),
}


def public_jwk(key: AsymmetricKey, *, kid: str, alg: str) -> dict[str, str]:
    """The key for the JWKS: only its public members, copied one by one (RFC 7517 §9.2)."""
    shown = key.as_dict(private=False)
    kty, *names = _PUBLIC_MEMBERS[str(shown["kty"])]
    head = {kty: str(shown[kty]), "use": "sig", "alg": alg, "kid": kid}
    return head | {name: str(shown[name]) for name in names}


def load_private_pem(pem: str, alg: str | None) -> tuple[AsymmetricKey, str]:
    """Import a private key that was created elsewhere. Returns the key and its algorithm.

    Args:
        pem: PKCS#8, PKCS#1 or SEC 1, without a passphrase.
        alg: its algorithm; None for the default of its kind, RS256 for RSA.

    Raises:
        KeyFault: if it is not such a key, can be broken, or is not for the algorithm.
    """
    key = _read_pem(pem, alg)
    by = alg or usual_alg(key)
    other = f"is not a key for {by}; write {kinds_in_words()}"
    return _imported(key, by, weak="make another", other=other), by


def public_pem(jwk: Mapping[str, str]) -> str:
    """A public key of the ring as a PEM (SubjectPublicKeyInfo)."""
    return load_public_jwk(jwk).as_pem(private=False).decode()


def pylon_kid(key: AsymmetricKey) -> str | None:
    """The kid that Pylon gives the RSA key of its key file: 16 hex digits of SHA-256 over the modulus."""
    if not isinstance(key, RSAKey):
        return None
    modulus = public_numbers(key).n
    return hashlib.sha256(modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")).hexdigest()[:16]
