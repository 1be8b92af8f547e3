"""Encrypts an answer so that only the holder of a token can read it again.

The key is derived from the token, of which only a hash is stored, so a copy of the database reveals nothing.

Spec: RFC 5869 (HKDF), NIST SP 800-38D (AES-GCM)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.handles import new_nonce_bytes

_NONCE_BYTES: Final = 12


class Unreadable(Exception):
    """The sealed answer does not belong to this token, or was changed."""


def seal(answer: Mapping[str, Any], token: str, *, purpose: str) -> str:
    """Encrypt an answer with a key derived from the token. Each `purpose` has its own key."""
    nonce = new_nonce_bytes(_NONCE_BYTES)
    data = nonce + AESGCM(_key(token, purpose)).encrypt(nonce, json.dumps(answer).encode(), purpose.encode())
    return base64.b64encode(data).decode()


def unseal(sealed: str, token: str, *, purpose: str) -> dict[str, Any]:
    """Decrypt what `seal` made.

    Raises:
        Unreadable: for another token or purpose, or a changed text.
    """
    data = base64.b64decode(sealed)
    try:
        plain = AESGCM(_key(token, purpose)).decrypt(
            data[:_NONCE_BYTES], data[_NONCE_BYTES:], purpose.encode()
        )
    except InvalidTag:
        raise Unreadable from None
    answer: dict[str, Any] = json.loads(plain)
    return answer


def _key(token: str, purpose: str) -> bytes:
    # The token has 256 random bits: HKDF needs no salt.
    return HKDF(SHA256(), 32, salt=None, info=b"pylon-oidc " + purpose.encode()).derive(token.encode())
