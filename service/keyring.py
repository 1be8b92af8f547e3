"""Which key signs and which keys are published: JWKS, signing, verifying.

Owns: the policy of keys (kinds, sizes, kids), the key file, and the one place where JOSE is called.
Never touches: settings, requests, the clock. A key is imported once, here, never per request.

Spec: RFC 7515, RFC 7517, RFC 7518, RFC 7638, RFC 8725
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, OctKey, RSAKey
from joserfc.jws import JWSRegistry

MIN_RSA_BITS: Final = 2048
MIN_SECRET_BYTES: Final = 32
DEFAULT_RSA_KID: Final = "pylon-default"
MINT_ALGS: Final = ("HS256", "RS256")

_PLACEHOLDERS = (
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "your-secret",
    "your_secret",
    "replace-me",
    "replace_me",
)
_REPEATED = re.compile(rb"(.{1,8}?)\1{3,}.{0,8}", re.DOTALL)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class KeyFault(ValueError):
    """A key that we will not use; the message says why and what to write instead, and holds nothing of the key."""


class InvalidToken(Exception):
    """A token that is not one of ours: its form, algorithm, key or signature is wrong."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One published key: the JWK members that the outside may see, `kid` and `alg` among them."""

    kid: str
    alg: str
    jwk: Mapping[str, str]


@dataclass(frozen=True)
class Keyring:
    """The keys of this process.

    Attributes:
        mint_alg: the algorithm of minted tokens, one of `MINT_ALGS`.
        secret: the HS256 key, or None.
        private_key: the RSA signing key, or None.
        published: what `/oidc/jwks` shows; never a private or a symmetric member.
    """

    mint_alg: str
    secret: OctKey | None = field(default=None, repr=False)
    private_key: RSAKey | None = field(default=None, repr=False)
    published: tuple[PublicKey, ...] = ()

    @property
    def can_mint(self) -> bool:
        """Whether there is a key for `mint_alg`."""
        return (self.secret if self.mint_alg == "HS256" else self.private_key) is not None

    @property
    def can_sign_id_tokens(self) -> bool:
        """Whether there is an asymmetric key: no relying party could verify an ID token of another."""
        return self.private_key is not None

    @cached_property
    def signing_kid(self) -> str:
        """The kid of the RSA signing key: the one under which it is published."""
        return self.published[0].kid

    @cached_property
    def advertised_algs(self) -> list[str]:
        """Discovery's algorithms: those of the published keys, RS256 first; HS256 where there are none."""
        algs = {key.alg for key in self.published}
        return sorted(algs, key=lambda alg: (alg != "RS256", alg)) or ["HS256"]

    def jwks(self) -> dict[str, list[Mapping[str, str]]]:
        """The JWK Set document (RFC 7517 §5)."""
        return {"keys": [key.jwk for key in self.published]}

    def sign(self, claims: Mapping[str, Any], *, alg: str, typ: str = "JWT") -> str:
        """Sign claims as a compact JWS with this ring's key for the algorithm.

        Args:
            claims: the payload.
            alg: `HS256` or `RS256`.
            typ: the header's `typ`, distinct for each kind of token (RFC 8725 §3.11).

        Raises:
            LookupError: when there is no key for the algorithm.
        """
        header: dict[str, Any] = {"alg": alg, "typ": typ}
        if alg != "HS256":
            header["kid"] = self.signing_kid
        # One key, never a set of keys: joserfc picks from a set at random.
        return jwt.encode(header, dict(claims), self._key(alg), registry=_registry(alg))

    def verify(self, unverified_token: str, *, alg: str, typ: str = "JWT") -> dict[str, Any]:
        """Check the form, the algorithm, the `typ` and the signature of a token of ours; not its claims' times.

        Args:
            unverified_token: a compact JWS.
            alg: the one algorithm that is accepted (RFC 8725 §3.1).
            typ: the kind of token that is due here.

        Returns:
            The claims.

        Raises:
            InvalidToken: when any of it is wrong.
            LookupError: when there is no key for the algorithm.
        """
        try:
            token = jwt.decode(unverified_token, self._key(alg), registry=_registry(alg))
        except (JoseError, ValueError, TypeError) as exc:
            raise InvalidToken from exc
        if token.header.get("typ") != typ:
            raise InvalidToken
        return token.claims

    def _key(self, alg: str) -> OctKey | RSAKey:
        key = {"HS256": self.secret, "RS256": self.private_key}.get(alg)
        if key is None:  # a missing key is never "any key": fail closed
            raise LookupError(f"no key for {alg}")
        return key


def verifies_by_jwk(unverified_token: str, jwk: Mapping[str, Any], *, alg: str) -> bool:
    """Whether a published key vouches for a token, as its stranger sees it; not a word about its claims.

    Args:
        unverified_token: a compact JWS.
        jwk: the key, as a JWKS gives it.
        alg: the one algorithm that is accepted.
    """
    try:
        jwt.decode(unverified_token, JWKRegistry.import_key(dict(jwk)), algorithms=[alg])
    except (JoseError, ValueError, TypeError, KeyError):
        return False
    return True


_REGISTRIES: Final = {alg: JWSRegistry(algorithms=[alg]) for alg in MINT_ALGS}


def _registry(alg: str) -> JWSRegistry:
    return _REGISTRIES[alg]


def build_keyring(
    *,
    mint_alg: str,
    secret: OctKey | None = None,
    private_key: RSAKey | None = None,
    public_key: RSAKey | None = None,
    kid: str | None = None,
) -> Keyring:
    """Put the keys of the environment together, and try them: sign, verify.

    Args:
        mint_alg: the algorithm of minted tokens.
        secret: the HS256 key.
        private_key: the RSA signing key.
        public_key: the key to publish (`PYLON_OIDC_JWKS_RSA_N`); the same as `private_key`'s when both are there.
        kid: the kid to publish under; without one `pylon-default` for a published key, else the RFC 7638 thumbprint.

    Raises:
        KeyFault: when a key does not sign what it then verifies, or the two RSA keys differ.
    """
    if private_key and public_key and public_numbers(private_key) != public_numbers(public_key):
        raise KeyFault("the private key and the published modulus are two different keys; unset one of them")
    published: tuple[PublicKey, ...] = ()
    if key := private_key or public_key:
        kid = kid or (DEFAULT_RSA_KID if public_key else key.thumbprint())
        published = (_public(key, kid, "RS256"),)
    ring = Keyring(mint_alg, secret, private_key, published)
    for alg, usable in (("HS256", secret), ("RS256", private_key)):
        if usable is not None:
            _try_key(ring, alg)
    return ring


def _try_key(ring: Keyring, alg: str) -> None:
    probe = {"probe": "pylon-oidc"}
    try:
        if ring.verify(ring.sign(probe, alg=alg), alg=alg) != probe:
            raise InvalidToken
    except (InvalidToken, JoseError, ValueError) as exc:
        raise KeyFault(f"the {alg} key does not verify what it signs; make a new one") from exc


def _public(key: RSAKey, kid: str, alg: str) -> PublicKey:
    numbers = public_numbers(key)
    jwk = {"kty": "RSA", "use": "sig", "alg": alg, "kid": kid, "n": _b64(numbers.n), "e": _b64(numbers.e)}
    return PublicKey(kid, alg, jwk)


def public_numbers(key: RSAKey) -> rsa.RSAPublicNumbers:
    """Modulus and exponent of the key."""
    return key.public_key.public_numbers()


def _b64(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def load_secret(value: bytes) -> OctKey:
    """Check and import the HS256 key.

    Raises:
        KeyFault: when it is shorter than 32 bytes, a placeholder, or a PEM (RFC 8725 §3.5, RFC 7518 §3.2).
    """
    check_secret_strength(value)
    asymmetric = KeyFault("looks like an asymmetric key; write a random secret: openssl rand -hex 32")
    if b"-----BEGIN" in value:  # of a private key joserfc only warns
        raise asymmetric
    try:
        return OctKey.import_key(value)
    except (JoseError, ValueError):
        raise asymmetric from None


def check_secret_strength(value: bytes) -> None:
    """Refuse a secret that can be guessed.

    Raises:
        KeyFault: when it is shorter than 32 bytes, or a placeholder.
    """
    if len(value) < MIN_SECRET_BYTES:
        raise KeyFault(f"is shorter than {MIN_SECRET_BYTES} bytes; write a random one: openssl rand -hex 32")
    lowered = value.lower()
    if (
        any(word.encode() in lowered for word in _PLACEHOLDERS)
        or len(set(value)) < 5
        or _REPEATED.fullmatch(value)
    ):
        raise KeyFault("is a placeholder; write a random one: openssl rand -hex 32")


def load_private_key(pem: str) -> RSAKey:
    r"""Check and import an RSA private key. It takes about 30 ms: once a process.

    Args:
        pem: PKCS#8 or PKCS#1; line ends may be written as the two characters `\n`.

    Raises:
        KeyFault: when it is not a PEM of an RSA key of 2,048 bits at least, without a passphrase.
    """
    data = pem.replace("\\n", "\n").strip().encode("utf-8", "replace")
    hint = "write a PEM: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise KeyFault(
            "the key has a passphrase; write it without: openssl pkey -in KEY -out PLAIN"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault(f"is not a readable private key; {hint}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyFault(f"is not an RSA key; {hint}")
    if key.key_size < MIN_RSA_BITS:
        raise KeyFault(f"has {key.key_size} bits, {MIN_RSA_BITS} are the least; {hint}")
    return RSAKey.import_key(key)


def load_public_key(modulus: int, exponent: int) -> RSAKey:
    """Import the RSA key to publish.

    Raises:
        KeyFault: when the two cannot be an RSA key of 2,048 bits at least.
    """
    if modulus.bit_length() < MIN_RSA_BITS:
        raise KeyFault(
            f"has {modulus.bit_length()} bits, {MIN_RSA_BITS} are the least; write the modulus of a longer key"
        )
    if modulus % 2 == 0:
        raise KeyFault("is even, so it is no RSA modulus; write the modulus of the key that signs")
    try:
        return RSAKey.import_key(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    except ValueError:
        raise KeyFault("modulus and exponent are no RSA key; write those of the key that signs") from None


def parse_base64url_uint(value: str) -> int:
    """Parse a Base64urlUInt (RFC 7518 §2): base64url without padding, no leading zero byte.

    Raises:
        KeyFault: when it is anything else.
    """
    if not _BASE64URL.fullmatch(value):
        raise KeyFault("is not base64url without padding; write the characters A-Z a-z 0-9 - _ alone")
    try:
        data = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        raise KeyFault("is not base64url; write the characters A-Z a-z 0-9 - _ alone") from None
    number = int.from_bytes(data, "big")
    if number == 0 or _b64(number) != value:
        raise KeyFault("is not a minimal base64url number; write it without leading zero bytes")
    return number


def read_key_file(path: Path) -> RSAKey:
    """Read the signing key from its file.

    Raises:
        KeyFault: when it is readable by others, cannot be read, or is no key that we use.
        FileNotFoundError: when there is none.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyFault(f"the file's mode is {mode:04o}, others may read it; run chmod 600 on it")
            data = file.read(1 << 20)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise KeyFault(
            f"the file cannot be read ({exc.strerror}); give the service's user the right to read it"
        ) from None
    return load_private_key(data.decode("utf-8", "replace"))


def create_key_file(path: Path) -> RSAKey:
    """Make the signing key's file, or read the one that another process made first.

    RSA 2048, PKCS#8, mode 0600. Atomic: the file appears complete and under its own name only once, however
    many processes try (`link` fails where the name is taken).

    Raises:
        KeyFault: when the folder cannot be written, or another's file is no key that we use.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return read_key_file(path)
        finally:
            temporary.unlink()
    except OSError as exc:
        raise KeyFault(
            f"the file cannot be made ({exc.strerror}); give the service's user a folder to write in"
        ) from None
    _sync_folder(path.parent)
    return RSAKey.import_key(key)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
