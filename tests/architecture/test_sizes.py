"""Files and functions of the service stay small enough to be read whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HOUSE = Path(__file__).parents[2] / "service"
FILE_LINES: Final = 400
FUNCTION_LINES: Final = 45


def too_large(house: Path) -> Iterator[str]:
    """The files with too many lines, and the functions, as `file` and `file::function`."""
    for path in sorted(house.rglob("*.py")):
        name, text = str(path.relative_to(house)), path.read_text()
        if len(text.splitlines()) > FILE_LINES:
            yield name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > FUNCTION_LINES:
                yield f"{name}::{node.name}"


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_and_functions_are_small() -> None:
    """No file has more than 400 lines and no function more than 45."""
    assert list(too_large(HOUSE)) == []


def test_a_large_file_and_a_long_function_are_found(tmp_path: Path) -> None:
    """One line more than what is allowed, of each."""
    (tmp_path / "file.py").write_text("x = 1\n" * 401)
    (tmp_path / "function.py").write_text("def long() -> None:\n" + "    pass\n" * 45)
    (tmp_path / "small.py").write_text("def short() -> None:\n" + "    pass\n" * 44 + "x = 1\n" * 355)
    assert list(too_large(tmp_path)) == ["file.py", "function.py::long"]
