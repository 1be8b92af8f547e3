"""The keyring: which key signs, which keys are published, signing and verifying.

Owns: kids, and the only place where tokens are signed and verified.
Never touches: settings, requests, the clock, the import of keys (`material`).

Spec: RFC 7515, RFC 7517, RFC 7518, RFC 7638, RFC 8037, RFC 8725
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64encode as _base64

from service.json_text import to_bytes
from service.keys.algorithms import ASYMMETRIC_ALGS, MINT_ALGS, RSA_ALGS, in_order
from service.keys.material import AsymmetricKey, HmacKey, KeyFault, public_jwk, public_numbers

DEFAULT_RSA_KID: Final = "pylon-default"
#: How long caches may keep a key set that will not change, in s.
MAX_AGE_S: Final = 300
_MAX_HEADER_CHARS: Final = 700
_MAX_PAYLOAD_CHARS: Final = 65_536


class InvalidToken(Exception):
    """The token is not ours: its form, algorithm, key or signature is wrong."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One published key: the public JWK members, including `kid` and `alg`."""

    kid: str
    alg: str
    jwk: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its kid."""

    kid: str
    key: AsymmetricKey = field(repr=False)


class _Algorithm(Protocol):
    """An algorithm of joserfc."""

    def check_key(self, key: Any) -> None:
        """Refuse a key of another type."""

    def sign(self, msg: bytes, key: Any) -> bytes:
        """Return only the signature."""


@dataclass(frozen=True, slots=True)
class _Header:
    """A protected header, encoded once, and its algorithm."""

    segment: bytes
    algorithm: _Algorithm

    def signed(self, claims: Mapping[str, Any], key: HmacKey | AsymmetricKey) -> str:
        """Sign the claims as a compact JWS (RFC 7515 §7.1)."""
        self.algorithm.check_key(key)
        signed = self.segment + b"." + _base64(to_bytes(claims))
        return (signed + b"." + _base64(self.algorithm.sign(signed, key))).decode()


@dataclass(frozen=True)
class Keyring:
    """The keys of one moment.

    Attributes:
        mint_alg: the algorithm of minted tokens, one of `MINT_ALGS`.
        secret: the HS256 key, or None.
        signing: the signing key of each asymmetric algorithm.
        published: the keys in `/oidc/jwks`, without private or symmetric members.
        verifying: the keys to verify with, by kid and algorithm. None: there is only one key, and any kid matches it.
        retained: keys that are no longer published, but still verify an ID token that is used as a hint.
        id_token_algs: the algorithms for ID tokens.
        previous: the HS256 key before `secret`: it verifies, and never signs.
    """

    mint_alg: str
    secret: HmacKey | None = field(default=None, repr=False)
    signing: Mapping[str, SigningKey] = field(default_factory=dict, repr=False)
    published: tuple[PublicKey, ...] = ()
    verifying: Mapping[tuple[str, str], AsymmetricKey] | None = field(default=None, repr=False)
    retained: Mapping[tuple[str, str], AsymmetricKey] = field(default_factory=dict, repr=False)
    id_token_algs: tuple[str, ...] = ASYMMETRIC_ALGS
    previous: HmacKey | None = field(default=None, repr=False)
    _headers: dict[tuple[str, str], _Header] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def can_mint(self) -> bool:
        """Whether there is a key for `mint_alg`."""
        return self.can_sign(self.mint_alg)

    @property
    def can_sign_id_tokens(self) -> bool:
        """Whether there is an asymmetric key. Relying parties can verify ID tokens only with one."""
        return any(self.can_sign_id_tokens_by(alg) for alg in self.signing)

    def can_sign_id_tokens_by(self, alg: str) -> bool:
        """Whether ID tokens can be signed with that algorithm."""
        return alg in self.signing and alg in self.id_token_algs

    @cached_property
    def advertised_algs(self) -> list[str]:
        """The algorithms in discovery: those of the published keys, RS256 first; HS256 if there are none."""
        return in_order({key.alg for key in self.published}) or ["HS256"]

    def jwks(self) -> dict[str, list[Mapping[str, str]]]:
        """The JWK Set document (RFC 7517 §5)."""
        return {"keys": [key.jwk for key in self.published]}

    def can_sign(self, alg: str, secret: HmacKey | None = None) -> bool:
        """Whether there is a key for the algorithm. `secret`: an audience's own HS256 key, used instead of this ring's."""
        return (secret is not None or self.secret is not None) if alg == "HS256" else alg in self.signing

    def sign(
        self, claims: Mapping[str, Any], *, alg: str, typ: str = "JWT", secret: HmacKey | None = None
    ) -> str:
        """Sign claims as a compact JWS with this ring's key for the algorithm.

        Args:
            claims: the payload.
            alg: one of `MINT_ALGS`.
            typ: the header's `typ`, distinct for each kind of token (RFC 8725 §3.11).
            secret: an audience's own HS256 key, used instead of this ring's.

        Raises:
            LookupError: if there is no key for the algorithm.
        """
        key = self._key(alg, secret)
        header = self._headers.get((alg, typ))
        if header is None:
            header = self._headers[alg, typ] = self._header(alg, typ)
        return header.signed(claims, key)

    def _header(self, alg: str, typ: str) -> _Header:
        members = {"alg": alg, "typ": typ}
        if alg != "HS256" and alg in self.signing:
            members["kid"] = self.signing[alg].kid
        return _Header(_base64(to_bytes(members)), _registry(alg).get_alg(alg))

    def verify(
        self, unverified_token: str, *, alg: str, typ: str = "JWT", secret: HmacKey | None = None
    ) -> dict[str, Any]:
        """Check the form, algorithm, `typ` and signature of one of our tokens, but not the times in its claims.

        Args:
            unverified_token: a compact JWS.
            alg: the only algorithm that is accepted (RFC 8725 §3.1).
            typ: the expected kind of token.
            secret: an audience's own HS256 key, used instead of this ring's.

        Returns:
            The claims.

        Raises:
            InvalidToken: if any of them is wrong.
            LookupError: if there is no key for the algorithm.
        """
        key = self._verifying_key(unverified_token, alg, secret)
        try:
            return _verified(unverified_token, key, alg=alg, typ=typ)
        except InvalidToken:
            if key is not self.secret or self.previous is None:
                raise
        return _verified(unverified_token, self.previous, alg=alg, typ=typ)

    def verify_hint(self, unverified_token: str) -> dict[str, Any]:
        """Check an ID token that a client sends back, with any algorithm and key that may have signed it.

        Keys that are no longer published still count, because logout accepts expired tokens. Revoked keys do not.

        Raises:
            InvalidToken: if its signature does not prove that it is one of our ID tokens.
            LookupError: if there is no key at all.
        """
        alg = str(_unverified_header(unverified_token).get("alg"))
        if alg not in self.id_token_algs or alg not in ASYMMETRIC_ALGS:
            raise InvalidToken
        name = (unverified_kid(unverified_token) or "", alg)
        key = self.retained.get(name) or self._verifying_key(unverified_token, alg)
        return _verified(unverified_token, key, alg=alg, typ="JWT")

    def knows(self, kid: str) -> bool:
        """Whether a token may name this kid. If there is only one key, any kid is accepted."""
        if self.verifying is None:
            return True
        return any(kid == known for known, _ in (*self.verifying, *self.retained))

    def _key(self, alg: str, secret: HmacKey | None = None) -> HmacKey | AsymmetricKey:
        secret = self.secret if secret is None else secret
        if alg == "HS256" and secret is not None:
            return secret
        if alg in self.signing:
            return self.signing[alg].key
        raise LookupError(f"no key for {alg}")  # a missing key is never "any key": fail closed

    def _verifying_key(
        self, unverified_token: str, alg: str, secret: HmacKey | None = None
    ) -> HmacKey | AsymmetricKey:
        if alg == "HS256" or self.verifying is None:
            return self._key(alg, secret)
        key = self.verifying.get((unverified_kid(unverified_token) or "", alg))
        if key is None:
            raise InvalidToken
        return key


class Keys:
    """Gives each request a keyring, which the request uses until its end. This class has fixed keys.

    Args:
        keyring: the keys of the environment.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._environment = keyring

    @property
    def mint_alg(self) -> str:
        """The algorithm of minted tokens."""
        return self._environment.mint_alg

    @property
    def published(self) -> tuple[PublicKey, ...]:
        """The published keys that were last read. Uses no database and starts no thread, because a fork may follow."""
        return self._environment.published

    def current(self) -> Keyring:
        """The current keys.

        Raises:
            StoreUnavailable: if they are in a database and were never read.
        """
        return self._environment

    def to_sign(self, alg: str) -> Keyring:
        """The current keys, to sign with an algorithm.

        Raises:
            StoreUnavailable: if it is not known whether its key may still sign.
        """
        return self.current()

    def knowing(self, unverified_token: str) -> Keyring:
        """The current keys, read again if the token names an unknown one."""
        return self.current()

    def max_age_s(self) -> int:
        """How long caches may keep the published set, in s; 0: not at all."""
        return MAX_AGE_S

    def status(self) -> Mapping[str, Any]:
        """What `readyz` reports about rotating keys; empty for fixed keys."""
        return {}


def verifies_by_jwk(unverified_token: str, jwk: Mapping[str, Any], *, alg: str) -> bool:
    """Whether a published key verifies a token, as an outside verifier checks it. Claims are not checked.

    Args:
        unverified_token: a compact JWS.
        jwk: the key from the JWKS.
        alg: the only algorithm that is accepted.
    """
    try:
        jwt.decode(unverified_token, JWKRegistry.import_key(dict(jwk)), algorithms=[alg])
    except (JoseError, ValueError, TypeError, KeyError):
        return False
    return True


def _verified(unverified_token: str, key: HmacKey | AsymmetricKey, *, alg: str, typ: str) -> dict[str, Any]:
    try:
        token = jwt.decode(unverified_token, key, registry=_registry(alg))
    except (JoseError, ValueError, TypeError) as exc:
        raise InvalidToken from exc
    # RFC 7797 §7: a JWT's payload is always encoded, and our tokens have no critical header.
    if token.header.get("typ") != typ or "crit" in token.header:
        raise InvalidToken
    return token.claims


def unverified_kid(unverified_token: str) -> str | None:
    """The kid in the token's header, not verified; None if it has none."""
    kid = _unverified_header(unverified_token).get("kid")
    return kid if isinstance(kid, str) else None


def unverified_audience(unverified_token: str) -> str | None:
    """The token's `aud`, not verified; None if it has none, or several."""
    segments = unverified_token.split(".", 2)
    audience = _unverified_json(segments[1], _MAX_PAYLOAD_CHARS).get("aud") if len(segments) == 3 else None
    return audience if isinstance(audience, str) else None


def _unverified_header(unverified_token: str) -> Mapping[str, Any]:
    return _unverified_json(unverified_token.partition(".")[0], _MAX_HEADER_CHARS)


def _unverified_json(segment: str, most_chars: int) -> Mapping[str, Any]:
    if len(segment) > most_chars:
        return {}
    try:
        value = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


_REGISTRIES: Final = {alg: JWSRegistry(algorithms=[alg]) for alg in MINT_ALGS}


def _registry(alg: str) -> JWSRegistry:
    return _REGISTRIES[alg]


def build_keyring(
    *,
    mint_alg: str,
    secret: HmacKey | None = None,
    previous: HmacKey | None = None,
    private_key: RSAKey | None = None,
    public_key: RSAKey | None = None,
    kid: str | None = None,
    algs: Collection[str] = (),
) -> Keyring:
    """Build the keyring from the keys of the environment, and test that each signs and verifies.

    Args:
        mint_alg: the algorithm of minted tokens.
        secret, previous: the HS256 key, and the one before it.
        private_key: the RSA signing key. A JWK is for one algorithm, so if the key also signs with another one than
            RS256, it is published a second time under another kid.
        public_key: the key to publish (`PYLON_OIDC_JWKS_RSA_N`); must match `private_key` if both are set.
        algs: further algorithms that it signs with, for some audiences.
        kid: the kid to publish; by default `pylon-default` for a published key, or else the RFC 7638 thumbprint.

    Raises:
        KeyFault: if a key does not verify what it signs, or the two RSA keys differ.
    """
    if private_key and public_key and public_numbers(private_key) != public_numbers(public_key):
        raise KeyFault("the private key and the published modulus are two different keys; unset one of them")
    signing: dict[str, SigningKey] = {}
    published: list[PublicKey] = []
    if key := private_key or public_key:
        kid = kid or (DEFAULT_RSA_KID if public_key else key.thumbprint())
        names = {RSA_ALGS[0]: kid}
        if private_key:
            others = [alg for alg in RSA_ALGS[1:] if alg == mint_alg or alg in algs]
            names |= {alg: f"{kid}.{alg.lower()}" for alg in others}
        published = [PublicKey(name, alg, public_jwk(key, kid=name, alg=alg)) for alg, name in names.items()]
        if private_key:
            signing = {alg: SigningKey(name, private_key) for alg, name in names.items()}
    ring = Keyring(mint_alg, secret, signing, tuple(published), id_token_algs=("RS256",), previous=previous)
    for alg in (*signing, *(["HS256"] if secret is not None else [])):
        try_key(ring, alg)
    return ring


def try_key(ring: Keyring, alg: str) -> None:
    """Sign a test token and verify it.

    Raises:
        KeyFault: if that fails.
    """
    probe = {"probe": "pylon-oidc"}
    try:
        if ring.verify(ring.sign(probe, alg=alg), alg=alg) != probe:
            raise InvalidToken
    except (InvalidToken, JoseError, ValueError) as exc:
        raise KeyFault(f"the {alg} key does not verify what it signs; create a new one") from exc
