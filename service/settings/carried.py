"""Finds characters that were added to a value by accident: a file's newline, a shell's quotes, an editor's byte order mark.

No valid value begins or ends with them. As part of a secret or a path, they would cause faults much later.
"""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = {
    "\n": "a newline",
    "\r": "a carriage return",
    "\t": "a tab",
    " ": "a space",
    "\ufeff": "a byte order mark (U+FEFF)",
}
_TRAILING_NEWLINE: Final = re.compile(r"\r?\n\Z")
_UNSEEN: Final = "\ufeff\u200b\u200c\u200d\u2060\0"
_QUOTES: Final = {
    '""': 'double quotes (")',
    "''": "single quotes (')",
    "``": "backquotes (`)",
    "“”": "typographic quotes (“ ”)",
    "‘’": "typographic quotes (‘ ’)",
}


def without_newline(content: bytes) -> str:
    """A file's text without the one newline that its last line ends with.

    Raises:
        UnicodeDecodeError: if it is not UTF-8.
    """
    return _TRAILING_NEWLINE.sub("", content.decode())


def carried(value: str, *, may_end: str = "") -> str | None:
    """Describe the added characters of a value, as a fault; None if there are none.

    Args:
        value: the value in the environment or a file, not empty.
        may_end: characters that this value may end with.
    """
    bare = value.rstrip(may_end) if may_end else value
    found = []
    if bare and _is_added(bare[0]):
        found.append(f"begins with {_name(bare[0])}")
    if bare and _is_added(bare[-1]):
        found.append(f"ends with {_name(bare[-1])}")
    elif bare.endswith("\\n") and "\n" not in may_end:
        found.append("ends with a newline written as the two characters \\n")
    if len(bare) > 1 and (quotes := _QUOTES.get(bare[0] + bare[-1])):
        found.append(f"has {quotes} around it")
    if not found:
        return None
    return f"{' and '.join(found)}, which comes from a file or a shell; write only the value, without it"


def _is_added(char: str) -> bool:
    return char.isspace() or char in _UNSEEN


def _name(char: str) -> str:
    return _NAMES.get(char, f"an invisible character (U+{ord(char):04X})")
