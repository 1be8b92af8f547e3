"""A systemd-style environment file, as `EnvironmentFile=` reads it.

Spec: systemd.exec(5), EnvironmentFile=
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_BLANK: Final = " \t\r"
#: What a backslash protects between double quotes; before anything else it stands for itself.
_NEED_ESCAPE: Final = '"\\`$'


class MalformedEnvFile(ValueError):
    """The file is not an environment file; the message names the line and nothing of its value."""


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of the file; of a name that comes twice, the last value.

    Raises:
        OSError: when it cannot be read.
        MalformedEnvFile: when a line is not an assignment, or a quote is not closed.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise MalformedEnvFile("the file is not UTF-8 text") from None
    return parse_env_file(text)


def parse_env_file(text: str) -> dict[str, str]:
    """The variables of the text: `NAME=value` a line, `#` or `;` for comments, quotes and backslashes as systemd has them."""
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
    """A value that may be of several quoted pieces, and where its line ends."""
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
    """What is not quoted, to the end of the line without the blanks before it; a backslash continues the line."""
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
    """What stands between two quotes, over any number of lines; where it ends."""
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
    raise MalformedEnvFile(f"line {number} opens a quote that nothing closes")
