"""What is given out of a grant: each handle names its grant, holds a secret, and ends with a check value.

    code, access token    <grant id>.<secret><check>
    refresh token         <grant id>.<changing>.<fixed><check>

The check value tells a handle that was cut or damaged on its way from one that was copied: the first is garbage, the
second may be theft. It is no protection: that is what the secrets are for, and of them the row has hashes only.

Spec: RFC 6749 §1.4, §10.10 (128 bits at least), §10.4; RFC 6819 §5.1.4.1.3
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["code", "access token", "refresh token"]

_CHECK_CHARS: Final = 6
_ID: Final = r"([0-9a-v]{26})"
_WITH_SECRET: Final = re.compile(rf"{_ID}\.([A-Za-z0-9_-]{{43}})([A-Za-z0-9_-]{{6}})", re.ASCII)
_ROTATING: Final = re.compile(
    rf"{_ID}\.([A-Za-z0-9_-]{{22}})\.([A-Za-z0-9_-]{{22}})([A-Za-z0-9_-]{{6}})", re.ASCII
)


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


def with_secret(kind: Kind, grant_id: str, secret: str) -> str:
    """A code or an access token; the secret has 256 bits."""
    return _checked(kind, f"{grant_id}.{secret}")


def rotating(grant_id: str, changing: str, fixed: str) -> str:
    """A refresh token; each part has 128 bits."""
    return _checked("refresh token", f"{grant_id}.{changing}.{fixed}")


def read(kind: Kind, unverified: str | None) -> Shown | None:
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


def _checked(kind: Kind, text: str) -> str:
    return text + _encoded(hashlib.sha256(f"{kind}\n{text}".encode()).digest())[:_CHECK_CHARS]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
