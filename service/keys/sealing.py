"""Private keys at rest: sealed, so that a copy of the database signs nothing.

A sealed key is AES-256-GCM under a key that is derived, for this purpose alone, from one of the operator's. It is
bound to what it is: version, purpose, kid, algorithm and database are its associated data. It names the operator's
key, and what it was sealed for, so that what is wrong can be told.

The ring that holds the sealed keys is authenticated under the same keys of the operator: whoever can write the
database, and has none of them, can put no key of their own into it, and move no time.

Spec: NIST SP 800-38D (AES-GCM), RFC 5869 (HKDF), RFC 2104 (HMAC)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
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
_DOCUMENT: Final = "document"
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


class NotAuthentic(Unsealable):
    """The ring was written by somebody who has none of the encryption keys, or whole parts of it are missing."""


#: What to do about a ring that is not authentic.
REPAIR: Final = "pylon-oidc keys reseal --repair"


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

    def macs(self, document: Mapping[str, Any], database_id: str) -> dict[str, str]:
        """What authenticates a ring: one MAC under each key, so that replicas that have only one of them read it too."""
        data = _canonical(document, database_id)
        keys = (_derive(secret, _DOCUMENT) for secret in self.secrets)
        return {
            name: hmac.digest(key, data, "sha256").hex() for name, key in zip(self.names, keys, strict=True)
        }

    def authenticate(self, document: Mapping[str, Any], database_id: str, macs: object) -> None:
        """Check that a ring was written by somebody who has one of the keys.

        Args:
            document: the ring, without its MACs.
            database_id: of the database that it was found in.
            macs: what was found beside it.

        Raises:
            NoSealingKey: when there is no encryption key.
            WrongSealingKey: when it was written under others; it names them.
            NotAuthentic: when it was changed, or has no MAC.
        """
        if not self.secrets:
            raise NoSealingKey("there is no key to check the ring of keys by; set PYLON_KEY_ENCRYPTION_KEY")
        found = macs if isinstance(macs, Mapping) else {}
        ours = self.macs(document, database_id)
        if any(
            hmac.compare_digest(mac, found[name]) for name, mac in ours.items() if _is_mac(found.get(name))
        ):
            return
        if not found or found.keys() & ours.keys():
            raise NotAuthentic(
                "the ring of keys in the database was written or changed without the encryption key; look at "
                f"pylon-oidc keys list, then restore the database, or keep only what is proven: {REPAIR}"
            )
        (dev,) = SealingKeys.of_dev_mode().names
        if set(found) == {dev}:
            raise WrongSealingKey(
                f"the ring of keys was written in dev mode, which protects nothing, and here is {', '.join(ours)}; "
                f"begin with a new database, or take those keys away: {REPAIR}"
            )
        raise WrongSealingKey(
            f"the ring of keys was written under the key {', '.join(map(_harmless, found))}, and here is "
            f"{', '.join(ours)}; write the key that wrote it too, the new one first, or, where it is lost, take away "
            f"what it sealed: {REPAIR}"
        )

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
            f"begin with a new database, or take it away: {REPAIR}"
            if set(sealed_by) == {dev}
            else "write the key that sealed it too, the new one first"
        )
        raise WrongSealingKey(f"{', '.join(told)}, and here is {', '.join(names)}; {mend}")


def _derive(secret: bytes, purpose: str) -> bytes:
    # 256 random bits: HKDF needs no salt.
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"pylon-oidc key ring " + purpose.encode()).derive(
        secret
    )


def _canonical(document: Mapping[str, Any], database_id: str) -> bytes:
    """One spelling of a ring, whatever the order in which a database gives its members."""
    whole = [_VERSION, _DOCUMENT, database_id, document]
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()


def _is_mac(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def _decoded(sealed: Mapping[str, Any]) -> bytes | None:
    try:
        return base64.b64decode(sealed["data"], validate=True)
    except (binascii.Error, KeyError, TypeError, ValueError):
        return None


def _were(kids: Sequence[str]) -> str:
    return f"the keys {', '.join(kids)} were" if len(kids) > 1 else f"the key {kids[0]} was"


def _harmless(name: object) -> str:
    return name if isinstance(name, str) and name.isalnum() and len(name) <= 32 else "of another name"
