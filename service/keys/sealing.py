"""Encrypts private keys in the database, so that a copy of the database cannot sign.

A key is encrypted with AES-256-GCM. The encryption key is derived from one of the operator's keys, only for this
purpose. Version, purpose, kid, algorithm and database are the associated data, so a sealed key works nowhere else. It
names the operator's key and what it was sealed for, so that an error can say what is wrong.

The ring of sealed keys is authenticated with the operator's keys too: someone who can write to the database, but has
no encryption key, can neither add a key nor change a time.

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
#: The key of dev mode: it is public, and protects nothing.
_DEV_KEY: Final = hashlib.sha256(b"pylon-oidc: sealed in dev mode, under no secret").digest()


class Unsealable(Exception):
    """A sealed key cannot be decrypted. The message says why and what to do, and contains nothing of any key."""


class NoSealingKey(Unsealable):
    """No encryption key is set."""


class WrongSealingKey(Unsealable):
    """It was sealed under an encryption key that is not set here."""


class SealedForAnother(Unsealable):
    """It was sealed for another kid, algorithm or database: it was moved."""


class SealBroken(Unsealable):
    """It was sealed for this place with a known key, but was changed later."""


class NotAuthentic(Unsealable):
    """The ring was written without an encryption key, or parts of it are missing."""


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
        """The associated data, which is unambiguous for any names."""
        return json.dumps([_VERSION, _PURPOSE, self.kid, self.alg, self.database_id]).encode()

    @property
    def digest(self) -> str:
        """A hash of it that is stored in plain text."""
        return hashlib.sha256(self.data).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SealingKeys:
    """The operator's encryption keys. The first encrypts, and all decrypt.

    Attributes:
        secrets: 32 random bytes each.
    """

    secrets: Sequence[bytes] = field(default=(), repr=False)

    @staticmethod
    def of_dev_mode() -> SealingKeys:
        """The public key of dev mode, which protects nothing."""
        return SealingKeys((_DEV_KEY,))

    @property
    def names(self) -> list[str]:
        """The names by which sealed keys refer to them. A name reveals nothing of its key."""
        return [_derive(secret, "name").hex()[:16] for secret in self.secrets]

    def seal(self, private_key: bytes, binding: Binding) -> dict[str, Any]:
        """Encrypt a private key with the first key.

        Raises:
            NoSealingKey: if there is none.
        """
        if not self.secrets:
            raise NoSealingKey("there is no encryption key; set PYLON_KEY_ENCRYPTION_KEY")
        nonce = new_nonce_bytes(_NONCE_BYTES)
        sealed = nonce + AESGCM(_derive(self.secrets[0], _PURPOSE)).encrypt(nonce, private_key, binding.data)
        return {
            "v": _VERSION,
            "by": self.names[0],
            "for": binding.digest,
            "data": base64.b64encode(sealed).decode(),
        }

    def unseal(self, sealed: Mapping[str, Any], binding: Binding) -> bytes:
        """Decrypt what `seal` returned for the same binding.

        Raises:
            NoSealingKey: if there is no encryption key.
            WrongSealingKey: if it was sealed under one that is not here.
            SealedForAnother: if it was sealed for something else.
            SealBroken: if it was changed.
        """
        by, data = self._opener(sealed, binding.kid), _decoded(sealed)
        if sealed.get("v") != _VERSION or data is None:
            raise SealBroken(
                f"the sealed key {binding.kid} was changed in the database; restore it, or revoke it"
            )
        if sealed.get("for") != binding.digest:
            raise SealedForAnother(
                f"the sealed key {binding.kid} belongs to another key or another database; restore it, or revoke it"
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
        """The MACs of a ring: one with each key, so that replicas that have only one of the keys can verify it too."""
        data = _canonical(document, database_id)
        keys = (_derive(secret, _DOCUMENT) for secret in self.secrets)
        return {
            name: hmac.digest(key, data, "sha256").hex() for name, key in zip(self.names, keys, strict=True)
        }

    def authenticate(self, document: Mapping[str, Any], database_id: str, macs: object) -> None:
        """Check that a ring was written with one of the keys.

        Args:
            document: the ring, without its MACs.
            database_id: the id of the database that it was found in.
            macs: the MACs found with it.

        Raises:
            NoSealingKey: if there is no encryption key.
            WrongSealingKey: if it was written with other keys; it names them.
            NotAuthentic: if it was changed, or has no MAC.
        """
        if not self.secrets:
            raise NoSealingKey(
                "there is no encryption key to check the ring of keys with; set PYLON_KEY_ENCRYPTION_KEY"
            )
        found = macs if isinstance(macs, Mapping) else {}
        ours = self.macs(document, database_id)
        if any(
            hmac.compare_digest(mac, found[name]) for name, mac in ours.items() if _is_mac(found.get(name))
        ):
            return
        if not found or found.keys() & ours.keys():
            raise NotAuthentic(
                "the ring of keys in the database was written or changed without the encryption key; look at "
                f"pylon-oidc keys list, then restore the database, or keep only proven keys: {REPAIR}"
            )
        (dev,) = SealingKeys.of_dev_mode().names
        if set(found) == {dev}:
            raise WrongSealingKey(
                f"the ring of keys was written in dev mode, with a public key, but this service has {', '.join(ours)}; "
                f"start with a new database, or remove those keys: {REPAIR}"
            )
        raise WrongSealingKey(
            f"the ring of keys was written under the key {', '.join(map(_harmless, found))}, but this service has "
            f"{', '.join(ours)}; write both keys, the new one first, or, if the old one is lost, remove the keys "
            f"that it sealed: {REPAIR}"
        )

    def _opener(self, sealed: Mapping[str, Any], kid: str) -> bytes:
        self.check_here({kid: sealed})
        return dict(zip(self.names, self.secrets, strict=True))[sealed["by"]]

    def check_here(self, sealed_of_kid: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that the encryption key of each sealed key is here, without decrypting any.

        Raises:
            NoSealingKey: if there is no encryption key.
            WrongSealingKey: if some are missing; it names all of them.
        """
        names, sealed_by = self.names, dict[str, list[str]]()
        for kid, sealed in sealed_of_kid.items():
            if sealed.get("by") not in names:
                sealed_by.setdefault(_harmless(sealed.get("by")), []).append(kid)
        if not sealed_by:
            return
        if not names:
            raise NoSealingKey(
                f"{_were(list(sealed_of_kid))} sealed, but there is no encryption key; set PYLON_KEY_ENCRYPTION_KEY"
            )
        (dev,) = SealingKeys.of_dev_mode().names
        told = [
            f"{_were(kids)} sealed "
            + ("in dev mode, with a public key" if by == dev else f"under the key {by}")
            for by, kids in sealed_by.items()
        ]
        mend = (
            f"start with a new database, or remove it: {REPAIR}"
            if set(sealed_by) == {dev}
            else "write both keys, the new one first"
        )
        raise WrongSealingKey(f"{', '.join(told)}, but this service has {', '.join(names)}; {mend}")


def _derive(secret: bytes, purpose: str) -> bytes:
    # 256 random bits: HKDF needs no salt.
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"pylon-oidc key ring " + purpose.encode()).derive(
        secret
    )


def _canonical(document: Mapping[str, Any], database_id: str) -> bytes:
    """The canonical form of a ring, for any order of members in a database."""
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
