"""The map from what is asked of a provider to the tests that show it.

Each docstring here says where what it shows stands: in a specification, or on a page of docs/, of which
docs/conformance.md has numbered lines. A line without its test fails here, and so does a test that names another one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.docs.markdown import PROJECT

HERE: Final = Path(__file__).parent

_ROW: Final = re.compile(
    r"^\| (\d\.\d+) \| [^|]+ \| ([^|]+) \| `tests/provider/(test_\w+\.py)::(test_\w+)` \|$", re.M
)
PAGE: Final = (PROJECT / "docs/conformance.md").read_text()
#: Line of docs/conformance.md -> its specification, and its test.
ROWS: Final = {
    number: (specification, file, test) for number, specification, file, test in _ROW.findall(PAGE)
}
_LINES: Final = r"docs/conformance\.md (\d\.\d+(?:, \d\.\d+)*)"


def _docstrings() -> Iterator[str]:
    """The docstring of every test of this folder."""
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield ast.get_docstring(node) or f"{path.name}: {node.name} has no docstring"


def _named(pattern: str) -> set[str]:
    return {found for text in _docstrings() for found in _numbers(text, pattern)}


def _numbers(text: str, pattern: str) -> set[str]:
    return {found for part in re.findall(pattern, text) for found in part.split(", ")}


def test_every_behaviour_has_its_test() -> None:
    """docs/conformance.md: each line names a specification, and a test that says that it shows this line."""
    assert len(ROWS) == len(re.findall(r"^\| \d", PAGE, re.M)) > 80
    for number, (specification, file, test) in ROWS.items():
        assert re.search(r"RFC \d{4}|OpenID|OAuth", specification), number
        docstrings = [
            ast.get_docstring(node) or ""
            for node in ast.parse((HERE / file).read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == test
        ]
        assert docstrings and number in _numbers(docstrings[0], _LINES), (number, file, test)


def test_no_test_names_a_line_that_is_not_there() -> None:
    """docs/conformance.md: a number that it does not have is a slip."""
    assert _named(_LINES) == set(ROWS)


def test_every_test_says_what_it_shows() -> None:
    """docs/conformance.md: one requirement in each docstring, with where it stands: a line, a page, or a specification."""
    source = re.compile(
        r"RFC \d{4}|OpenID|(Core|Discovery|Logout|Fetch|HTML|CSP 3|WCAG 2\.2) §|docs/[\w-]+\.md"
    )
    assert [text for text in _docstrings() if not source.search(text)] == []
