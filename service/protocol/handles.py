"""The only source of randomness: every handle that is given out, and how one is kept at rest.

Spec: RFC 6749 §10.10 (entropy), RFC 6819 §5.1.4.1.3 (hashes at rest)
"""

from __future__ import annotations

import hashlib
import re
import secrets

from service.storage.ids import RANDOM_BYTES, ordered_id

_SESSION_TOKEN = re.compile(r"pylon_[0-9a-f]{64}", re.ASCII)


def new_session_token() -> str:
    """A fresh session token: `pylon_` and 256 random bits in hex."""
    return "pylon_" + secrets.token_hex(32)


def is_session_token(value: str) -> bool:
    """Whether the value has the form of a session token; says nothing of whether there is such a session."""
    return _SESSION_TOKEN.fullmatch(value) is not None


def new_id() -> str:
    """A random identifier of 128 bits, base64url: a `sid`, a `jti`."""
    return secrets.token_urlsafe(16)


def new_grant_id(now: int) -> str:
    """The id of a grant that is made now (Unix s): 88 random bits. It is no secret, and finds the grant's row."""
    return ordered_id(now, secrets.token_bytes(RANDOM_BYTES))


def new_handle() -> str:
    """A fresh secret handle of 256 random bits, base64url: a code, an access or refresh token, a verifier, a cookie."""
    return secrets.token_urlsafe(32)


def new_nonce_bytes(length: int) -> bytes:
    """Random bytes that must not repeat under one key (AES-GCM)."""
    return secrets.token_bytes(length)


def new_version() -> int:
    """A first version of what may be removed and stored again under the same id: 48 random bits, so that both differ."""
    return secrets.randbits(48) + 1


def new_request_id() -> str:
    """A random request id of 64 bits, in hex: long enough to find a line of the log."""
    return secrets.token_hex(8)


def hash_handle(value: str | bytes) -> str:
    """What is kept of a handle: its SHA-256 in hex. A handle has 256 random bits, so one fast hash suffices.

    Whatever is shown has one, a text that is not UTF-8 too: it finds nothing.
    """
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(data).hexdigest()
