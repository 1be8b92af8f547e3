"""The map from what is asked of a provider to the tests that show it.

Each docstring here begins with what it shows: `Line 2.17` is a line of the list of a conforming provider's behaviours
(F: certification fails without it, W: it warns, S: it is judged where the metadata advertises it), `S28` a line of the
security checklist. A line without a test fails here, and so does a test that names a line which is not on the list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent

#: Behaviours by section: every flow, discovery, the code flow, form post, logout at the client's wish.
BEHAVIOURS: Final = {
    "0": "1F 2F 3F 4F 5F 6F 7F 8F 9F 10F 11F 12F 13F 14W 15F 16F 17F 18F",
    "1": "1F 2F 3F 4F 5F 6F 7F 8F 9F 10F 11W 12W 13F 14F 15F",
    "2": "1F 2F 3F 4F 5S 6F 7F 8W 9F 10W 11W 12W 13W 14W 15F 16F 17F 18F 19F 20F 21F 22F 23F 24F 25F 26F 27F 28F 29F"
    " 30F 31F 32F 33F 34F 35F 36F 37F",
    "3": "1F 2F",
    "5": "1F 2F 3F 4F 5F 6F 7F 8F 9F 10F 11F 12F 13F",
}
#: Of other sections, but a provider that is built as this one can show them already.
ALREADY: Final = {"4.5", "4.7"}
LINES: Final = [f"{section}.{line[:-1]}" for section, lines in BEHAVIOURS.items() for line in lines.split()]
SECURITY: Final = [f"S{n}" for n in (15, 17, *range(20, 29), *range(30, 36), 42, 44, 45)]


def _docstrings() -> Iterator[str]:
    """The docstring of every test of this folder."""
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield ast.get_docstring(node) or f"{path.name}: {node.name} has no docstring"


def _named(pattern: str) -> set[str]:
    return {
        found
        for text in _docstrings()
        for part in re.findall(pattern, text)
        for found in re.split(r", ", part)
    }


SHOWN_LINES: Final = _named(r"\b[Ll]ines? (\d\.\d+(?:, \d\.\d+)*)")
SHOWN_SECURITY: Final = _named(r"\bS\d\d\b(?!–)") | {
    f"S{n}"
    for text in _docstrings()
    for a, b in re.findall(r"S(\d\d)–S(\d\d)", text)
    for n in range(int(a), int(b) + 1)
}


@pytest.mark.parametrize("line", LINES)
def test_every_behaviour_has_a_test(line: str) -> None:
    """Issue 4: every line of the behaviours has a test that names it."""
    assert line in SHOWN_LINES


@pytest.mark.parametrize("line", SECURITY)
def test_every_security_line_has_a_test(line: str) -> None:
    """Issue 4: every security line of the provider has a test that names it."""
    assert line in SHOWN_SECURITY


def test_no_test_names_a_line_that_is_not_there() -> None:
    """Issue 4: a number that is on no list is a slip."""
    assert {*LINES, *ALREADY} >= SHOWN_LINES


def test_every_test_says_what_it_shows() -> None:
    """Issue 4: one requirement in each docstring, with where it stands: a line, a page, or a specification."""
    source = re.compile(
        r"\b[Ll]ines? \d\.\d|\bS\d\d\b|[Cc]ontract §|Issue 4|RFC \d{4}|OpenID|Core §|docs/[\w-]+\.md"
    )
    assert [text for text in _docstrings() if not source.search(text)] == []
