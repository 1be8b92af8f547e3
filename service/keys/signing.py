"""Which key signs and which keys are published: JWKS, signing, verifying.

Owns: kids, and the one place where tokens are signed and verified.
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
#: How long a key set may be kept that nothing will change, in s.
MAX_AGE_S: Final = 300
_MAX_HEADER_CHARS: Final = 700
_MAX_PAYLOAD_CHARS: Final = 65_536


class InvalidToken(Exception):
    """A token that is not one of ours: its form, algorithm, key or signature is wrong."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One published key: the JWK members that the outside may see, `kid` and `alg` among them."""

    kid: str
    alg: str
    jwk: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the name that tokens call it by."""

    kid: str
    key: AsymmetricKey = field(repr=False)


class _Algorithm(Protocol):
    """An algorithm of joserfc's."""

    def check_key(self, key: Any) -> None:
        """Refuse a key of another type."""

    def sign(self, msg: bytes, key: Any) -> bytes:
        """The signature alone."""


@dataclass(frozen=True, slots=True)
class _Header:
    """A protected header, encoded once, and the algorithm that it names."""

    segment: bytes
    algorithm: _Algorithm

    def signed(self, claims: Mapping[str, Any], key: HmacKey | AsymmetricKey) -> str:
        """The claims as a compact JWS (RFC 7515 §7.1)."""
        self.algorithm.check_key(key)
        signed = self.segment + b"." + _base64(to_bytes(claims))
        return (signed + b"." + _base64(self.algorithm.sign(signed, key))).decode()


@dataclass(frozen=True)
class Keyring:
    """The keys of one moment.

    Attributes:
        mint_alg: the algorithm of minted tokens, one of `MINT_ALGS`.
        secret: the HS256 key, or None.
        signing: the one key that signs by each asymmetric algorithm.
        published: what `/oidc/jwks` shows; never a private or a symmetric member.
        verifying: what verifies, by kid and algorithm. None: there is one key, whatever a token calls it.
        retained: what is published no more, and still recognises an ID token as a hint.
        id_token_algs: by which of them ID tokens are signed.
    """

    mint_alg: str
    secret: HmacKey | None = field(default=None, repr=False)
    signing: Mapping[str, SigningKey] = field(default_factory=dict, repr=False)
    published: tuple[PublicKey, ...] = ()
    verifying: Mapping[tuple[str, str], AsymmetricKey] | None = field(default=None, repr=False)
    retained: Mapping[tuple[str, str], AsymmetricKey] = field(default_factory=dict, repr=False)
    id_token_algs: tuple[str, ...] = ASYMMETRIC_ALGS
    _headers: dict[tuple[str, str], _Header] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def can_mint(self) -> bool:
        """Whether there is a key for `mint_alg`."""
        return self.can_sign(self.mint_alg)

    @property
    def can_sign_id_tokens(self) -> bool:
        """Whether there is an asymmetric key: no relying party could verify an ID token of another."""
        return any(self.can_sign_id_tokens_by(alg) for alg in self.signing)

    def can_sign_id_tokens_by(self, alg: str) -> bool:
        """Whether ID tokens can be signed by that algorithm."""
        return alg in self.signing and alg in self.id_token_algs

    @cached_property
    def advertised_algs(self) -> list[str]:
        """Discovery's algorithms: those of the published keys, RS256 first; HS256 where there are none."""
        return in_order({key.alg for key in self.published}) or ["HS256"]

    def jwks(self) -> dict[str, list[Mapping[str, str]]]:
        """The JWK Set document (RFC 7517 §5)."""
        return {"keys": [key.jwk for key in self.published]}

    def can_sign(self, alg: str, secret: HmacKey | None = None) -> bool:
        """Whether there is a key for the algorithm; `secret`: the HS256 key of one audience, in the place of the one here."""
        return (secret is not None or self.secret is not None) if alg == "HS256" else alg in self.signing

    def sign(
        self, claims: Mapping[str, Any], *, alg: str, typ: str = "JWT", secret: HmacKey | None = None
    ) -> str:
        """Sign claims as a compact JWS with this ring's key for the algorithm.

        Args:
            claims: the payload.
            alg: one of `MINT_ALGS`.
            typ: the header's `typ`, distinct for each kind of token (RFC 8725 §3.11).
            secret: the HS256 key of one audience, in the place of the one here.

        Raises:
            LookupError: when there is no key for the algorithm.
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
        """Check the form, the algorithm, the `typ` and the signature of a token of ours; not its claims' times.

        Args:
            unverified_token: a compact JWS.
            alg: the one algorithm that is accepted (RFC 8725 §3.1).
            typ: the kind of token that is due here.
            secret: the HS256 key of one audience, in the place of the one here.

        Returns:
            The claims.

        Raises:
            InvalidToken: when any of it is wrong.
            LookupError: when there is no key for the algorithm.
        """
        key = self._verifying_key(unverified_token, alg, secret)
        return _verified(unverified_token, key, alg=alg, typ=typ)

    def verify_hint(self, unverified_token: str) -> dict[str, Any]:
        """Check an ID token that somebody shows again: by any algorithm and any key that it may have been signed by.

        A key that is gone still counts, since logout takes expired tokens; one that was revoked never does.

        Raises:
            InvalidToken: when it is no ID token of ours, as far as its signature says.
            LookupError: when there is no key at all.
        """
        alg = str(_unverified_header(unverified_token).get("alg"))
        if alg not in self.id_token_algs or alg not in ASYMMETRIC_ALGS:
            raise InvalidToken
        name = (unverified_kid(unverified_token) or "", alg)
        key = self.retained.get(name) or self._verifying_key(unverified_token, alg)
        return _verified(unverified_token, key, alg=alg, typ="JWT")

    def knows(self, kid: str) -> bool:
        """Whether a token may name this kid; where there is one key alone, whatever it is called."""
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
    """Where a request gets its keyring from: it takes one, and works with that to its end. These here stay as they are.

    Args:
        keyring: the keys, which are those of the environment.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._environment = keyring

    @property
    def mint_alg(self) -> str:
        """The algorithm of minted tokens."""
        return self._environment.mint_alg

    @property
    def published(self) -> tuple[PublicKey, ...]:
        """The published keys as they were seen last; asks nobody, and begins nothing: there may be a fork to come."""
        return self._environment.published

    def current(self) -> Keyring:
        """The keys as they are now.

        Raises:
            StoreUnavailable: when they are in a database, and were never read.
        """
        return self._environment

    def to_sign(self, alg: str) -> Keyring:
        """The keys as they are now, to sign by an algorithm.

        Raises:
            StoreUnavailable: when nobody knows whether its key still may sign.
        """
        return self.current()

    def knowing(self, unverified_token: str) -> Keyring:
        """The keys as they are now, after another look where the token names one that is not among them."""
        return self.current()

    def max_age_s(self) -> int:
        """For how long a cache may keep the published set, in s; 0: not at all."""
        return MAX_AGE_S

    def status(self) -> Mapping[str, Any]:
        """What `readyz` tells of keys that rotate; nothing of keys that stay."""
        return {}


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


def _verified(unverified_token: str, key: HmacKey | AsymmetricKey, *, alg: str, typ: str) -> dict[str, Any]:
    try:
        token = jwt.decode(unverified_token, key, registry=_registry(alg))
    except (JoseError, ValueError, TypeError) as exc:
        raise InvalidToken from exc
    # RFC 7797 §7: a JWT's payload is encoded, whatever its header says; nothing else is critical in ours.
    if token.header.get("typ") != typ or "crit" in token.header:
        raise InvalidToken
    return token.claims


def unverified_kid(unverified_token: str) -> str | None:
    """What the token says that its key is called; None where it says nothing."""
    kid = _unverified_header(unverified_token).get("kid")
    return kid if isinstance(kid, str) else None


def unverified_audience(unverified_token: str) -> str | None:
    """What the token says that its one `aud` is; None where it says nothing, or several."""
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
    private_key: RSAKey | None = None,
    public_key: RSAKey | None = None,
    kid: str | None = None,
    algs: Collection[str] = (),
) -> Keyring:
    """Put the keys of the environment together, and try them: sign, verify.

    Args:
        mint_alg: the algorithm of minted tokens.
        secret: the HS256 key.
        private_key: the RSA signing key. Where it signs by another algorithm than RS256, it is published a second time,
            for that one, under a name of its own: a JWK is for one algorithm.
        public_key: the key to publish (`PYLON_OIDC_JWKS_RSA_N`); the same as `private_key`'s when both are there.
        algs: by what else it signs for some audience.
        kid: the kid to publish under; without one `pylon-default` for a published key, else the RFC 7638 thumbprint.

    Raises:
        KeyFault: when a key does not sign what it then verifies, or the two RSA keys differ.
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
    ring = Keyring(mint_alg, secret, signing, tuple(published), id_token_algs=("RS256",))
    for alg in (*signing, *(["HS256"] if secret is not None else [])):
        try_key(ring, alg)
    return ring


def try_key(ring: Keyring, alg: str) -> None:
    """Sign, and verify what was signed.

    Raises:
        KeyFault: when that fails.
    """
    probe = {"probe": "pylon-oidc"}
    try:
        if ring.verify(ring.sign(probe, alg=alg), alg=alg) != probe:
            raise InvalidToken
    except (InvalidToken, JoseError, ValueError) as exc:
        raise KeyFault(f"the {alg} key does not verify what it signs; make a new one") from exc
