"""Which key signs and which keys are published: JWKS, signing, verifying.

Owns: kids, and the one place where tokens are signed and verified.
Never touches: settings, requests, the clock, the import of keys (`key_material`).

Spec: RFC 7515, RFC 7517, RFC 7518, RFC 7638, RFC 8725
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import JWSRegistry

from service.key_material import KeyFault, base64url_uint, public_numbers

DEFAULT_RSA_KID: Final = "pylon-default"
MINT_ALGS: Final = ("HS256", "RS256")


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
    jwk = {
        "kty": "RSA",
        "use": "sig",
        "alg": alg,
        "kid": kid,
        "n": base64url_uint(numbers.n),
        "e": base64url_uint(numbers.e),
    }
    return PublicKey(kid, alg, jwk)
