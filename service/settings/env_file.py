"""Reads a systemd-style environment file like `EnvironmentFile=`.

Spec: systemd.exec(5), EnvironmentFile=
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_BLANK: Final = " \t\r"
#: Characters that a backslash escapes between double quotes; before others it is a plain backslash.
_NEED_ESCAPE: Final = '"\\`$'


class MalformedEnvFile(ValueError):
    """The file is not an environment file. The message names the line, without its value."""


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of the file. If a name is repeated, the last value counts.

    Raises:
        OSError: if it cannot be read.
        MalformedEnvFile: if a line is not an assignment, or a quote is not closed.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise MalformedEnvFile("the file is not UTF-8; save it as UTF-8 text") from None
    return parse_env_file(text)


def parse_env_file(text: str) -> dict[str, str]:
    """The variables of the text: one `NAME=value` to a line, `#` or `;` for comments, quotes and backslashes as in systemd."""
    found: dict[str, str] = {}
    place = 0
    while place < len(text):
        if text[place] in _BLANK + "\n":
            place += 1
            continue
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        if text[place] not in "#;":
            number = text.count("\n", 0, place) + 1
            name, separator, _ = text[place:end].partition("=")
            if not separator or not _NAME.fullmatch(name.rstrip(_BLANK)):
                raise MalformedEnvFile(f"line {number} is not an assignment; write NAME=value")
            value, end = _value(text, place + len(name) + 1, number)
            found[name.rstrip(_BLANK)] = value
        place = end + 1
    return found


def _value(text: str, place: int, number: int) -> tuple[str, int]:
    """A value, which may consist of several quoted pieces, and the end of its line."""
    pieces: list[str] = []
    while place < len(text):
        char = text[place]
        if char == "\n":
            break
        if char in _BLANK:
            place += 1
        elif char in "'\"":
            piece, place = _quoted(text, place, number)
            pieces.append(piece)
        else:
            piece, place = _plain(text, place)
            pieces.append(piece)
    return "".join(pieces), place


def _plain(text: str, place: int) -> tuple[str, int]:
    """The unquoted text up to the end of the line, without trailing spaces. A backslash continues the line."""
    taken: list[str] = []
    kept = 0
    while place < len(text) and text[place] != "\n":
        escaped = text[place] == "\\" and place + 1 < len(text)
        place += escaped
        if not (escaped and text[place] == "\n"):
            taken.append(text[place])
        if escaped or text[place] not in _BLANK:
            kept = len(taken)
        place += 1
    return "".join(taken[:kept]), place


def _quoted(text: str, place: int, number: int) -> tuple[str, int]:
    """The text between two quotes, over any number of lines; and its end."""
    quote = text[place]
    taken: list[str] = []
    place += 1
    while place < len(text):
        char = text[place]
        if char == quote:
            return "".join(taken), place + 1
        if char == "\\" and quote == '"' and place + 1 < len(text):
            place += 1
            char = text[place]
            taken.append("" if char == "\n" else char if char in _NEED_ESCAPE else f"\\{char}")
        else:
            taken.append(char)
        place += 1
    raise MalformedEnvFile(f"line {number} opens a quote that is not closed; close it")
