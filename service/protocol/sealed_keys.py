"""Private keys at rest: sealed, so that a copy of the database signs nothing.

A sealed key is AES-256-GCM under a key that is derived, for this purpose alone, from one of the operator's. It is
bound to what it is: version, purpose, kid, algorithm and database are its associated data. It names the operator's
key, and what it was sealed for, so that what is wrong can be told.

Spec: NIST SP 800-38D (AES-GCM), RFC 5869 (HKDF)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.handles import new_nonce_bytes

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_VERSION: Final = 1
_PURPOSE: Final = "signing key"
#: Dev mode's: it stands here for everybody to read, and protects nothing.
_DEV_KEY: Final = hashlib.sha256(b"pylon-oidc: sealed in dev mode, under no secret").digest()


class Unsealable(Exception):
    """A sealed key that cannot be opened; the message says why and what to do, and holds nothing of any key."""


class NoSealingKey(Unsealable):
    """There is no encryption key at all."""


class WrongSealingKey(Unsealable):
    """There are encryption keys, and it was sealed under another."""


class SealedForAnother(Unsealable):
    """It was sealed for another kid, algorithm or database: somebody moved it."""


class SealBroken(Unsealable):
    """It was sealed for this, under a key that is here, and has been changed since."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a private key is sealed for."""

    kid: str
    alg: str
    database_id: str

    @property
    def data(self) -> bytes:
        """The associated data: unambiguous, whatever the names hold."""
        return json.dumps([_VERSION, _PURPOSE, self.kid, self.alg, self.database_id]).encode()

    @property
    def digest(self) -> str:
        """What is told of it in the open."""
        return hashlib.sha256(self.data).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SealingKeys:
    """The operator's encryption keys; the first seals, all open.

    Attributes:
        secrets: 32 random bytes each.
    """

    secrets: Sequence[bytes] = field(default=(), repr=False)

    @staticmethod
    def of_dev_mode() -> SealingKeys:
        """The key that protects nothing."""
        return SealingKeys((_DEV_KEY,))

    @property
    def names(self) -> list[str]:
        """What sealed keys call them by; tells nothing of them."""
        return [_derive(secret, "name").hex()[:16] for secret in self.secrets]

    def seal(self, private_key: bytes, binding: Binding) -> dict[str, Any]:
        """Seal a private key under the first.

        Raises:
            NoSealingKey: when there is none.
        """
        if not self.secrets:
            raise NoSealingKey("there is no key to seal under; set PYLON_KEY_ENCRYPTION_KEY")
        nonce = new_nonce_bytes(_NONCE_BYTES)
        sealed = nonce + AESGCM(_derive(self.secrets[0], _PURPOSE)).encrypt(nonce, private_key, binding.data)
        return {
            "v": _VERSION,
            "by": self.names[0],
            "for": binding.digest,
            "data": base64.b64encode(sealed).decode(),
        }

    def unseal(self, sealed: Mapping[str, Any], binding: Binding) -> bytes:
        """Open what `seal` made for the same binding.

        Raises:
            NoSealingKey: when there is no encryption key.
            WrongSealingKey: when it was sealed under one that is not here.
            SealedForAnother: when it was sealed for something else.
            SealBroken: when it was changed.
        """
        by, data = self._opener(sealed, binding.kid), _decoded(sealed)
        if sealed.get("v") != _VERSION or data is None:
            raise SealBroken(
                f"the sealed key {binding.kid} was changed in the database; restore it, or revoke it"
            )
        if sealed.get("for") != binding.digest:
            raise SealedForAnother(
                f"what is sealed as the key {binding.kid} belongs to another key or another database; restore it, or revoke it"
            )
        try:
            return AESGCM(_derive(by, _PURPOSE)).decrypt(
                data[:_NONCE_BYTES], data[_NONCE_BYTES:], binding.data
            )
        except (InvalidTag, ValueError):
            raise SealBroken(
                f"the sealed key {binding.kid} was changed in the database; restore it, or revoke it"
            ) from None

    def _opener(self, sealed: Mapping[str, Any], kid: str) -> bytes:
        self.check_here({kid: sealed})
        return dict(zip(self.names, self.secrets, strict=True))[sealed["by"]]

    def check_here(self, sealed_of_kid: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that each sealed key names an encryption key that is here; opens none.

        Raises:
            NoSealingKey: when there is no encryption key.
            WrongSealingKey: when some are missing; it names every one of them.
        """
        names, sealed_by = self.names, dict[str, list[str]]()
        for kid, sealed in sealed_of_kid.items():
            if sealed.get("by") not in names:
                sealed_by.setdefault(_harmless(sealed.get("by")), []).append(kid)
        if not sealed_by:
            return
        if not names:
            raise NoSealingKey(
                f"{_were(list(sealed_of_kid))} sealed, and there is no key to open that; set PYLON_KEY_ENCRYPTION_KEY"
            )
        (dev,) = SealingKeys.of_dev_mode().names
        told = [
            f"{_were(kids)} sealed "
            + ("in dev mode, which protects nothing" if by == dev else f"under the key {by}")
            for by, kids in sealed_by.items()
        ]
        mend = (
            "revoke it, or begin with a new database"
            if set(sealed_by) == {dev}
            else "write the key that sealed it too, the new one first"
        )
        raise WrongSealingKey(f"{', '.join(told)}, and here is {', '.join(names)}; {mend}")


def _derive(secret: bytes, purpose: str) -> bytes:
    # 256 random bits: HKDF needs no salt.
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"pylon-oidc key ring " + purpose.encode()).derive(
        secret
    )


def _decoded(sealed: Mapping[str, Any]) -> bytes | None:
    try:
        return base64.b64decode(sealed["data"], validate=True)
    except (binascii.Error, KeyError, TypeError, ValueError):
        return None


def _were(kids: Sequence[str]) -> str:
    return f"the keys {', '.join(kids)} were" if len(kids) > 1 else f"the key {kids[0]} was"


def _harmless(name: object) -> str:
    return name if isinstance(name, str) and name.isalnum() and len(name) <= 32 else "of another name"
