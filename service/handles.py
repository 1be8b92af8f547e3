"""The only source of randomness: creates every handle, and hashes it for storage.

A code or token of a grant contains the grant's id, a secret and a check value:

    code, access token    <grant id>.<secret><check>
    refresh token         <grant id>.<changing>.<fixed><check>
    device code           <id of its device>.<secret><check>

The check value distinguishes a damaged handle, which is harmless, from an outdated copy, which may be stolen. It is not
a protection: the secrets are, and only their hashes are stored.

Spec: RFC 6749 §1.4, §10.4, §10.10 (entropy), RFC 6819 §5.1.4.1.3 (hashes at rest)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import random
import re
import secrets
from array import array
from dataclasses import dataclass
from typing import Final, Literal

HandleKind = Literal["code", "access token", "refresh token", "device code"]

#: RFC 8628 §6.1: 20 letters without vowels, so that a code is no word and its letters are on every keyboard.
USER_CODE_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_USER_CODE_CHARS: Final = 8

_CHECK_CHARS: Final = 6
#: RFC 4648 §5.
_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
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
    """Whether the value has the form of a session token. The session may not exist."""
    return _SESSION_TOKEN.fullmatch(value) is not None


def new_id() -> str:
    """A random identifier of 128 bits, base64url: a `sid`, a `jti`, a part of a refresh token, a salt.

    It never begins with `-`, so a command takes it for an argument and not for an option.
    """
    while (made := secrets.token_urlsafe(16)).startswith("-"):
        pass
    return made


def new_list_number(below: int) -> int:
    """The number of a new status list."""
    return secrets.randbelow(below)


def shuffled(count: int) -> array[int]:
    """The numbers below `count`, at most 2^16, in random order: some of them do not tell which ones follow."""
    numbers = array("H", range(count))
    random.Random(secrets.randbits(256)).shuffle(numbers)  # noqa: S311 - seeded with 256 random bits
    return numbers


def new_grant_id(now: int) -> str:
    """The id of a grant that is created now (Unix s): 26 characters that grow with time, so that new rows are stored together.

    It is not secret, and finds the grant's row. 88 bits of it are random.
    """
    return _ordered_id(now, secrets.token_bytes(_RANDOM_BYTES))


def first_grant_id(now: int) -> str:
    """A value that sorts before the id of every grant that is created from then on. `now` is Unix s."""
    return _ordered_id(max(0, now), bytes(_RANDOM_BYTES))


def _ordered_id(now: int, random: bytes) -> str:
    # RFC 4648 §7: this alphabet sorts in the order of its values, in every collation.
    return base64.b32hexencode(now.to_bytes(_SECOND_BYTES) + random).rstrip(b"=").decode().lower()


def new_handle() -> str:
    """A fresh secret handle of 256 random bits, base64url: a code, an access or refresh token, a verifier, a cookie."""
    return secrets.token_urlsafe(32)


def new_nonce_bytes(length: int) -> bytes:
    """Random bytes that must not repeat under one key (AES-GCM)."""
    return secrets.token_bytes(length)


def new_version() -> int:
    """A first version for a record that may be removed and stored again under the same id: 48 random bits."""
    return secrets.randbits(48) + 1


def new_request_id() -> str:
    """A random request id of 64 bits, in hex: long enough to find a line of the log."""
    return secrets.token_hex(8)


def hash_handle(value: str | bytes) -> str:
    """The SHA-256 of a handle in hex, which is stored instead of it. It has 256 random bits, so a fast hash is enough.

    Any text can be hashed, even if it is not UTF-8; it then finds nothing.
    """
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(data).hexdigest()


# --- codes of a device ---


def new_user_code() -> str:
    """A random code that a user types: 8 letters, each equally likely, so there are 20^8.

    Spec: RFC 8628 §5.1, §6.1
    """
    return "".join(secrets.choice(USER_CODE_LETTERS) for _ in range(_USER_CODE_CHARS))


def is_user_code(unverified_letters: str) -> bool:
    """Whether letters can be a user code."""
    return len(unverified_letters) == _USER_CODE_CHARS and set(unverified_letters) <= set(USER_CODE_LETTERS)


def device_id(user_code: str) -> str:
    """The id of the device that shows this code: 128 bits of its hash, in the form of a grant's id.

    The device code contains it, so one row is found by both codes.
    """
    made = hashlib.sha256(f"user code\n{user_code}".encode("utf-8", "surrogatepass")).digest()[:16]
    return base64.b32hexencode(made).rstrip(b"=").decode().lower()


# --- codes and tokens of a grant ---


@dataclass(frozen=True, slots=True)
class Shown:
    """The parts of a handle, not yet verified.

    Attributes:
        grant_id: the id of its grant; for a device code, of its device.
        secret: the secret of a code, access token or device code; the changing part of a refresh token.
        fixed: the fixed part of a refresh token.
    """

    grant_id: str
    secret: str
    fixed: str = ""


def with_secret(kind: HandleKind, grant_id: str, secret: str) -> str:
    """Build a code, an access token or a device code. The secret has 256 bits."""
    return _checked(kind, f"{grant_id}.{secret}")


def rotating(grant_id: str, changing: str, fixed: str) -> str:
    """Build a refresh token. Each part has 128 bits."""
    return _checked("refresh token", f"{grant_id}.{changing}.{fixed}")


def read(kind: HandleKind, unverified: str | None) -> Shown | None:
    """Parse a handle of that kind. None if it is malformed."""
    form = _ROTATING if kind == "refresh token" else _WITH_SECRET
    match = form.fullmatch(unverified or "")
    if match is None or _checked(kind, match[0][:-_CHECK_CHARS]) != match[0]:
        return None
    return Shown(*match.groups()[:-1])


def short_hash(text: str) -> str:
    """128 bits of SHA-256: enough for a value with 128 random bits."""
    return _encoded(hash_bytes(text))


def hash_bytes(text: str) -> bytes:
    """The same as 16 bytes, the form in which an access token's hash is stored."""
    return hashlib.sha256(text.encode()).digest()[:16]


def of_short_hash(short: str) -> bytes:
    """The 16 bytes of a short hash; of any other text, bytes that no hash is."""
    try:
        return binascii.a2b_base64(short.encode().translate(_STANDARD) + b"==")
    except ValueError:
        return b""


def is_same(shown: str, kept_hash: str) -> bool:
    """Whether a part has the stored hash, compared in constant time."""
    return hmac.compare_digest(short_hash(shown), kept_hash)


def derived(shown: Shown, salt: str, purpose: Literal["access token", "refresh token"]) -> str:
    """Derive a secret from a refresh token and a salt, so that a repeated request gets the same one.

    HMAC is a pseudorandom function of its key (RFC 2104, NIST SP 800-108 §4), and the key has 256 random bits.

    Args:
        shown: a refresh token.
        salt: random, one for each use.
        purpose: 256 bits for an access token, 128 for the changing part of the next refresh token.
    """
    made = hmac.digest(f"{shown.secret}.{shown.fixed}".encode(), f"{purpose}\n{salt}".encode(), "sha256")
    return _encoded(made if purpose == "access token" else made[:16])


def _checked(kind: HandleKind, text: str) -> str:
    return text + _encoded(hashlib.sha256(f"{kind}\n{text}".encode()).digest())[:_CHECK_CHARS]


def _encoded(data: bytes) -> str:
    # Called many times in a request, and the wrapper in `base64` takes longer than the work itself.
    return binascii.b2a_base64(data, newline=False).translate(_URLSAFE, b"=\n").decode()
