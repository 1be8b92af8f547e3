"""Tables, and the two files that a run leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine

_RESULTS = Path(__file__).with_name("results")
_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads well in a terminal too: the first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|"
        + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths))
        + "|"
    )
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def number(value: float | None, digits: int = 0) -> str:
    """A figure, with thousands apart; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def about(described: dict[str, Any]) -> str:
    """One paragraph: where and with what."""
    packages = ", ".join(f"{name} {version}" for name, version in described["packages"].items())
    return (
        f"{described['date']}, {described['cpu']}, {described['cores']} cores, {described['memory_gb']} GB, "
        f"Linux {described['kernel']}, load average before the run {described['load_before']}. "
        f"Python {described['python']}, nginx {described['nginx']}, OpenSSL {described['openssl']}, "
        f"wrk {described['wrk']}; {packages}. Commit {described['commit'] or 'unknown'}."
    )


def record(page: Path, text: str) -> None:
    """Put the text between the two `measured` marks of a page.

    Raises:
        ValueError: When the page has no such marks.
    """
    before, _, rest = page.read_text().partition(_BEGIN)
    _, mark, after = rest.partition(_END)
    if not mark:
        raise ValueError(f"{page.name} has no {_BEGIN} and {_END}")
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")


def write(kind: str, described: dict[str, Any], data: dict[str, Any], text: str) -> Path:
    """Write `results/<date>-<machine>.json` and `.md`.

    Args:
        kind: Goes into the name of runs other than the first kind; may be empty.
        described: From `machine.describe`.
        data: Everything that was measured.
        text: The report, in Markdown.

    Returns:
        The path of the Markdown file.
    """
    _RESULTS.mkdir(exist_ok=True)
    name = machine.slug(described) + (f"-{kind}" if kind else "")
    (_RESULTS / f"{name}.json").write_text(json.dumps({"machine": described, **data}, indent=1) + "\n")
    path = _RESULTS / f"{name}.md"
    path.write_text(text + "\n")
    return path
