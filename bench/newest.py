"""The newest results, for people: into docs/bench.md, and one line of them into the README."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from bench import machine, plots, report
from bench.flows_report import median_of
from bench.providers import node, ours

_RESULTS = Path(__file__).with_name("results")
_PAGE, _README = machine.PROJECT / "docs/bench.md", machine.PROJECT / "README.md"
_PANELS = ("code exchange", "refresh", "userinfo")
_LINE = re.compile(r"^On .*\(\[the benchmark\]\(docs/bench\.md\)\)\.$", re.MULTILINE)


def main() -> int:
    """Draw, and write both pages.

    Returns:
        0, or 1 where there are no results.
    """
    whole = [
        path for path in sorted(_RESULTS.glob("*-cores.json")) if "flows" in json.loads(path.read_text())
    ]
    grown = sorted(_RESULTS.glob("*-growth.json"))
    if not whole:
        print("there are no results of `make bench` yet")
        return 1
    path = whole[-1]
    data = json.loads(path.read_text())
    draw(path, data["flows"])
    parts = [path.with_suffix(".md").read_text().partition("\n\n")[2].strip(), "", _picture(path.stem, "CPU")]
    if grown:
        text = grown[-1].with_suffix(".md").read_text().partition("\n\n")[2].strip()
        parts += ["", "## From 1,000 to 1,000,000", "", text]
        parts += ["", _picture(f"{grown[-1].stem}-sqlite", "Growth")]
    report.record(_PAGE, re.sub(r"^#", "##", "\n".join(parts), flags=re.MULTILINE))
    _README.write_text(_LINE.sub(lambda _: line(data), _README.read_text()))
    return 0


def draw(path: Path, flows: dict[str, Any]) -> None:
    """CPU of an answer, of the server and of its PostgreSQL, next to the results.

    Args:
        path: Of the results.
        flows: What was measured.
    """
    panels = {
        f"{row[0].upper()}{row[1:]}": {
            name: [median_of(rounds, "cpu_us"), median_of(rounds, "database_us")]
            for name, rounds in flows["results"][row].items()
        }
        for row in _PANELS
    }
    for theme in (plots.LIGHT, plots.DARK):
        svg = plots.bars(theme, "CPU of one answer", ("the server", "its PostgreSQL"), panels, "µs")
        path.with_name(f"{path.stem}-{theme.name}.svg").write_text(svg + "\n")


def line(data: dict[str, Any]) -> str:
    """One sentence of a run, for the README."""
    results, about = data["flows"]["results"], data["machine"]
    minted = results["mint HS256"][ours.name("gunicorn", postgres=False)]
    mine = results["code exchange"][ours.name("gunicorn", postgres=False)]
    peer = results["code exchange"].get(node.name("sqlite"))
    said = (
        f"On {about['cores']} cores of {about['cpu']}, gunicorn with two workers mints "
        f"{median_of(minted, 'rate'):,.0f} HS256 tokens a second"
    )
    if peer:
        part = statistics.median(
            one["cpu_us"] / other["cpu_us"] for one, other in zip(mine, peer, strict=True)
        )
        said += f"; a code exchange takes {part:.2f} times the CPU of npm `oidc-provider`, both on SQLite"
    return f"{said} ([the benchmark](docs/bench.md))."


def _picture(stem: str, what: str) -> str:
    at = "../bench/results"
    return f"![{what}, for light pages]({at}/{stem}-light.svg)\n\n[The same for dark pages]({at}/{stem}-dark.svg)"
