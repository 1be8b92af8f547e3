"""The only source of randomness: every handle that is given out, and how one is kept at rest.

What is given out of a grant names it, holds a secret, and ends with a check value:

    code, access token    <grant id>.<secret><check>
    refresh token         <grant id>.<changing>.<fixed><check>

The check value tells a handle that was cut or damaged on its way from one that was copied: the first is garbage, the
second may be theft. It is no protection: that is what the secrets are for, and of them the row has hashes only.

Spec: RFC 6749 §1.4, §10.4, §10.10 (entropy), RFC 6819 §5.1.4.1.3 (hashes at rest)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal

HandleKind = Literal["code", "access token", "refresh token"]

_CHECK_CHARS: Final = 6
#: RFC 4648 §5.
_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
_SECOND_BYTES: Final = 5
_RANDOM_BYTES: Final = 11
_ID: Final = r"([0-9a-v]{26})"
_WITH_SECRET: Final = re.compile(rf"{_ID}\.([A-Za-z0-9_-]{{43}})([A-Za-z0-9_-]{{6}})", re.ASCII)
_ROTATING: Final = re.compile(
    rf"{_ID}\.([A-Za-z0-9_-]{{22}})\.([A-Za-z0-9_-]{{22}})([A-Za-z0-9_-]{{6}})", re.ASCII
)
_SESSION_TOKEN = re.compile(r"pylon_[0-9a-f]{64}", re.ASCII)


def new_session_token() -> str:
    """A fresh session token: `pylon_` and 256 random bits in hex."""
    return "pylon_" + secrets.token_hex(32)


def is_session_token(value: str) -> bool:
    """Whether the value has the form of a session token; says nothing of whether there is such a session."""
    return _SESSION_TOKEN.fullmatch(value) is not None


def new_id() -> str:
    """A random identifier of 128 bits, base64url: a `sid`, a `jti`, a part of a refresh token, a salt."""
    return secrets.token_urlsafe(16)


def new_grant_id(now: int) -> str:
    """The id of a grant that is made now (Unix s): 26 characters that grow with time, so that new rows stand together.

    It is no secret, and finds the grant's row; 88 bits of it are random.
    """
    return _ordered_id(now, secrets.token_bytes(_RANDOM_BYTES))


def first_grant_id(now: int) -> str:
    """What comes before the id of every grant that is made from then on; `now` is Unix s."""
    return _ordered_id(max(0, now), bytes(_RANDOM_BYTES))


def _ordered_id(now: int, random: bytes) -> str:
    # RFC 4648 §7: this alphabet is in the order of its values, in every collation.
    return base64.b32hexencode(now.to_bytes(_SECOND_BYTES) + random).rstrip(b"=").decode().lower()


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


# --- what is given out of a grant ---


@dataclass(frozen=True, slots=True)
class Shown:
    """What a handle says, not yet believed.

    Attributes:
        grant_id: whose it would be.
        secret: of a code or an access token; of a refresh token the part that changes.
        fixed: of a refresh token the part that stays.
    """

    grant_id: str
    secret: str
    fixed: str = ""


def with_secret(kind: HandleKind, grant_id: str, secret: str) -> str:
    """A code or an access token; the secret has 256 bits."""
    return _checked(kind, f"{grant_id}.{secret}")


def rotating(grant_id: str, changing: str, fixed: str) -> str:
    """A refresh token; each part has 128 bits."""
    return _checked("refresh token", f"{grant_id}.{changing}.{fixed}")


def read(kind: HandleKind, unverified: str | None) -> Shown | None:
    """What a handle of that kind says; None for everything that is none."""
    form = _ROTATING if kind == "refresh token" else _WITH_SECRET
    match = form.fullmatch(unverified or "")
    if match is None or _checked(kind, match[0][:-_CHECK_CHARS]) != match[0]:
        return None
    return Shown(*match.groups()[:-1])


def short_hash(text: str) -> str:
    """128 bits of SHA-256: enough for what has as many of its own."""
    return _encoded(hash_bytes(text))


def hash_bytes(text: str) -> bytes:
    """The same as 16 bytes, as an access token's is kept."""
    return hashlib.sha256(text.encode()).digest()[:16]


def is_same(shown: str, kept_hash: str) -> bool:
    """Whether a part that is shown is the one whose hash is kept; takes as long whatever is shown."""
    return hmac.compare_digest(short_hash(shown), kept_hash)


def derived(shown: Shown, salt: str, purpose: Literal["access token", "refresh token"]) -> str:
    """A secret that comes of a refresh token and a salt: who shows the token again gets the same.

    HMAC is a pseudorandom function of its key (RFC 2104, NIST SP 800-108 §4), and the key has 256 random bits.

    Args:
        shown: a refresh token.
        salt: random, of its use.
        purpose: 256 bits for an access token, 128 for the changing part of the next refresh token.
    """
    made = hmac.digest(f"{shown.secret}.{shown.fixed}".encode(), f"{purpose}\n{salt}".encode(), "sha256")
    return _encoded(made if purpose == "access token" else made[:16])


def _checked(kind: HandleKind, text: str) -> str:
    return text + _encoded(hashlib.sha256(f"{kind}\n{text}".encode()).digest())[:_CHECK_CHARS]


def _encoded(data: bytes) -> str:
    # Many times a request; what `base64` adds around it takes longer than it does.
    return binascii.b2a_base64(data, newline=False).translate(_URLSAFE, b"=\n").decode()
