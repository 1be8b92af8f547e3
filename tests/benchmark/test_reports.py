"""What a run prints can be read in a terminal, and names what is missing."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench import flows_report, plots
from bench.flows import About, Flows, Result, known
from bench.providers import ours
from bench.providers.base import ROWS

LACKED = "mint HS256"


@pytest.fixture
def flows() -> Flows:
    """A run of all that is known, with figures that are as long as they get; one provider is absent."""
    names = [name for name in known() if not name.startswith("Dex")]
    results = {
        row: {
            name: [Result(99_999.0, 99_999.4, 9_999.4, 1_234.5, 12_345.6, 999)] * 3
            for name in names
            if row != LACKED or name.startswith(ours.NAME)
        }
        for row in ROWS
    }
    about = {name: About("1.0", "all", 12.345, 1_234.5) for name in names}
    return Flows(about, {"Dex PG": "there is no go"}, [400.0] * 3, 1234.0, results)


def test_tables(flows: Flows) -> None:
    """At most 80 columns; a row that a provider lacks is a dash, and one that is not there is named with its cause."""
    text = flows_report.section(flows)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert [line for line in tables if len(line) > 80] == []
    assert (
        len([line for line in tables if line.replace(" ", "").endswith("|-|-|-|-|-|-|")])
        == len(known()) - 1 - 4
    )
    assert "Dex PG: not available: there is no go" in text


def test_ratios(flows: Flows) -> None:
    """A ratio is the median of the rounds' ratios, and says whether it is as wanted."""
    mine = flows.results["code exchange"][ours.name("gunicorn", postgres=False)]
    mine[:] = [Result(1.0, cpu_us, 0.0, 1.0, 1.0, 0) for cpu_us in (10_000.0, 64_999.0, 90_000.0)]
    line = next(
        line for line in flows_report.section(flows).splitlines() if "exchange, gunicorn, SQLite: CPU" in line
    )
    assert [cell.strip() for cell in line.split("|")[2:5]] == ["0.65 ×", "≤ 0.65 ×", "reached"]
    mine[:] = [Result(1.0, 66_000.0, 0.0, 1.0, 1.0, 0)] * 3
    line = next(
        line for line in flows_report.section(flows).splitlines() if "exchange, gunicorn, SQLite: CPU" in line
    )
    assert line.split("|")[4].strip() == "MISSED"


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK], ids=lambda theme: theme.name)
def test_plots(theme: plots.Theme) -> None:
    """Well-formed, nothing is outside of the page, and each value is written too."""
    bars = plots.bars(
        theme, "<title>", ("a", "b"), {"one & two": {"x": [100.0, 20.0], "y": [1.0, 0.0]}}, "µs"
    )
    lines = plots.lines(theme, "growth", ["1", "2"], {"mint": [1.0, 1.13], "refresh": [1.0, 0.9]}, 1.2)
    for svg, said in ((bars, ["120 µs", "1 µs", "one & two"]), (lines, ["mint 1.13 ×", "refresh 0.90 ×"])):
        page = ElementTree.fromstring(svg)
        texts = [element.text for element in page.iter("{http://www.w3.org/2000/svg}text")]
        assert set(said) <= set(texts)
        boxes = [box for box in page.iter("{http://www.w3.org/2000/svg}rect") if box.get("x")]
        assert all(0 <= float(box.attrib["x"]) <= plots.WIDTH for box in boxes)
        assert all(float(box.attrib["x"]) + float(box.attrib["width"]) <= plots.WIDTH for box in boxes)
