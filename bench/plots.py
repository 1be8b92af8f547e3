"""Two kinds of drawings, as SVG, each for light and for dark pages: bars, and lines that should stay flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise
from pathlib import Path

WIDTH = 800
_FONT = "font-family='system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"
_NAMES, _ROW = 210, 20
_PLOT = WIDTH - _NAMES - 70


@dataclass(frozen=True)
class Theme:
    """Colours of a page, and of series, which differ in lightness too."""

    name: str
    page: str
    text: str
    faint: str
    series: tuple[str, ...]


LIGHT = Theme(
    "light",
    "#ffffff",
    "#1f2328",
    "#d1d9e0",
    ("#0b5cad", "#8ab8e6", "#b3541e", "#4b7a2b", "#8a3ea8", "#8d8d8d"),
)
DARK = Theme(
    "dark",
    "#0d1117",
    "#e6edf3",
    "#3d444d",
    ("#58a6ff", "#2b5c94", "#f0883e", "#7ee787", "#d2a8ff", "#8b949e"),
)


def bars(
    theme: Theme,
    title: str,
    parts: Sequence[str],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    unit: str,
) -> str:
    """Horizontal bars, a panel below the other, each with a scale of its own.

    Args:
        theme: Its colours.
        title: What it shows.
        parts: What a bar is made of, from left to right.
        panels: By their names: by the name of a bar, the values of its parts.
        unit: Of the values.

    Returns:
        The SVG.
    """
    y, out = 60, []
    for number, part in enumerate(parts):
        x = 20 + 190 * number
        out += [_box(x, 38, 12, 12, theme.series[number]), _text(theme, x + 18, 48, part)]
    for panel, of in panels.items():
        most = max((sum(values) for values in of.values()), default=1.0) or 1.0
        out.append(_text(theme, 20, y + 24, panel, bold=True))
        y += 34
        for name, values in of.items():
            out.append(_text(theme, _NAMES - 8, y + 13, name, anchor="end"))
            ends = list(accumulate(values, initial=0.0))
            for number, (begin, end) in enumerate(pairwise(ends)):
                left, right = (_NAMES + _PLOT * value / most for value in (begin, end))
                out.append(_box(left, y + 2, max(right - left, 0.5), _ROW - 6, theme.series[number]))
            label = f"{ends[-1]:,.0f} {unit}"
            out.append(_text(theme, _NAMES + _PLOT * ends[-1] / most + 6, y + 13, label))
            y += _ROW
    return _page(theme, title, y + 20, out)


def lines(
    theme: Theme,
    title: str,
    ticks: Sequence[str],
    series: Mapping[str, Sequence[float]],
    bound: float,
) -> str:
    """Lines from left to right, each value relative to its first, and a dashed one that none should exceed.

    Args:
        theme: Its colours.
        title: What it shows.
        ticks: Below the plot, one a value.
        series: By their names: one value a tick.
        bound: Of the dashed line.

    Returns:
        The SVG.
    """
    top, height, left, right = 60, 220, 60, WIDTH - 200
    most = max([bound, *(max(values) for values in series.values())]) * 1.1

    def x(number: int) -> float:
        return left + (right - left) * number / max(len(ticks) - 1, 1)

    def y(value: float) -> float:
        return top + height * (1 - value / most)

    out = [
        f"<path d='M{left} {y(value):.1f}H{right}' stroke='{theme.faint}' stroke-dasharray='{dash}'/>"
        for value, dash in ((0.0, "none"), (1.0, "none"), (bound, "6 4"))
    ]
    out += [_text(theme, left - 8, y(value) + 4, f"{value:g} ×", anchor="end") for value in (0.0, 1.0, bound)]
    out += [
        _text(theme, x(number), top + height + 22, tick, anchor="middle") for number, tick in enumerate(ticks)
    ]
    for number, (name, values) in enumerate(series.items()):
        colour = theme.series[number % len(theme.series)]
        points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(values))
        out.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2.5'/>")
        key = top + 20 + 24 * number
        out.append(_box(right + 20, key - 10, 12, 12, colour))
        out.append(_text(theme, right + 38, key, f"{name} {values[-1]:.2f} ×"))
    return _page(theme, title, top + height + 40, out)


def save(folder: Path, name: str, drawn: Mapping[str, str]) -> list[Path]:
    """Write `NAME-light.svg` and `NAME-dark.svg`.

    Args:
        folder: Where.
        name: Of both.
        drawn: The SVG by the name of its theme.
    """
    paths = []
    for theme, svg in drawn.items():
        path = folder / f"{name}-{theme}.svg"
        path.write_text(svg + "\n")
        paths.append(path)
    return paths


def _page(theme: Theme, title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0f}' "
        f"viewBox='0 0 {WIDTH} {height:.0f}' role='img' aria-label='{escape(title, quote=True)}'>"
    )
    page = f"<rect width='100%' height='100%' fill='{theme.page}'/>"
    return "\n".join([head, page, _text(theme, 20, 24, title, bold=True, size=15), *parts, "</svg>"])


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' fill='{colour}'/>"


def _text(
    theme: Theme, x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False, size: int = 12
) -> str:
    weight = " font-weight='600'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} font-size='{size}'{weight} text-anchor='{anchor}' "
        f"fill='{theme.text}'>{escape(text)}</text>"
    )
