"""JSON where every request passes: msgspec writes and reads it several times as fast as the standard library.

Spec: RFC 8259
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

_write: Final = msgspec.json.Encoder().encode
_read: Final = msgspec.json.Decoder().decode


def to_bytes(value: Any) -> bytes:
    """A value in UTF-8, without blanks.

    Raises:
        UnicodeEncodeError: for a lone surrogate, which is no text.
    """
    return _write(value)


def to_ascii(value: Any) -> str:
    """A value in ASCII, without spaces: for a log that is read by lines, and databases of any encoding."""
    try:
        data = _write(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), default=str)
    return data.decode() if data.isascii() else json.dumps(_read(data), separators=(",", ":"))


def read(text: str) -> Any:
    """A value that was written here, or by the standard library, which also writes lone surrogates.

    Raises:
        ValueError: when it is no JSON.
    """
    try:
        return _read(text)
    except msgspec.DecodeError:
        return json.loads(text)
