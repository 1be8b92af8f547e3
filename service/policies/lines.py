"""Finds the line of each key in a TOML document, which the parser of the standard library does not report.

It reads only documents that `tomllib` has accepted. Everything inside a value (an inline table, a list) has the line of
the value's key.

Spec: TOML 1.0.0
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: Names of tables and keys from the top; for a list of tables also the index of the entry, from 0.
Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r"""
      (?P<comment>\#[^\n]*)
    | (?P<string>\"{3}(?:\\.|[^\\])*?\"{3}\"{0,2} | '{3}.*?'{3}'{0,2} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
    | (?P<newline>\n)
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<equals>=)
    | (?P<word>[A-Za-z0-9_-]+)
    | (?P<other>.)
    """,
    re.DOTALL | re.VERBOSE,
)


def key_lines(text: str) -> dict[Path, int]:
    """The line of each table and key, from 1.

    Args:
        text: a TOML document that `tomllib` has accepted.
    """
    lines: dict[Path, int] = {}
    entries: dict[Path, int] = {}
    table: Path = ()
    for key, line, is_header, is_entry in _statements(text):
        names = _names(key)
        if is_header:
            table = _within(names[:-1], entries) + names[-1:]
            if is_entry:
                entries[table] = entries.get(table, -1) + 1
                lines.setdefault(table, line)
            table = _within(table, entries)
            path = table
        else:
            path = table + names
        for depth in range(1, len(path)):
            lines.setdefault(path[:depth], line)
        lines[path] = line
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a place: that of its own key, or else of the nearest key or table around it; otherwise 1."""
    return next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), 1)


def _within(path: Path, entries: Mapping[Path, int]) -> Path:
    """The path with the index of the latest entry after each list of tables."""
    whole: Path = ()
    for name in path:
        whole = (*whole, name)
        if whole in entries:
            whole = (*whole, entries[whole])
    return whole


def _statements(text: str) -> Iterator[tuple[str, int, bool, bool]]:
    """The text of each key in a header or pair, its line, whether it is a header, and whether that starts a list entry."""
    line, start, depth = 1, 0, 0
    key: int | None = None  # where the key starts
    header, found = 0, False
    for token in _TOKEN.finditer(text):
        kind, word = token.lastgroup, token.group()
        if kind == "newline" and depth == 0:
            key, header, found = None, 0, False
        elif kind != "comment" and not found and not word.isspace():
            if key is None and kind == "open" and header < 2:
                header += 1
            elif key is None:
                key, start = token.start(), line
            if key is not None and kind == ("close" if header else "equals"):
                yield text[key : token.start()], start, header > 0, header == 2
                found = True
        elif found and not header:  # inside a value: values that span lines are in brackets or quotes
            depth += {"open": 1, "close": -1}.get(kind or "", 0)
        line += word.count("\n")


def _names(key: str) -> Path:
    value: Any = tomllib.loads(f"{key} = 0")
    names: Path = ()
    while isinstance(value, dict):
        ((name, value),) = value.items()
        names = (*names, name)
    return names
