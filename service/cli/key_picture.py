"""The timeline of the keys as a picture: one bar a key, in a terminal or as an SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from service.cli.common import as_date
from service.protocol.key_ring import Change, KeyRecord, role

_COLUMNS: Final = 64
_LABEL: Final = 26
_MARKS: Final = {"next": "·", "active": "█", "retired": "░"}
_FILLS: Final = {"next": "#9ec5e8", "active": "#1f6f43", "retired": "#c9c3b4"}
_WORDS: Final = {"next": "published, not signing yet", "active": "signs", "retired": "published, verifies"}
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _LINE = 1180, 250, 20, 56, 34, 20


@dataclass(frozen=True, slots=True)
class _Span:
    what: str
    start: int
    end: int


def _spans(key: KeyRecord, end: int) -> list[_Span]:
    """What a key is, one thing after the other, up to the end of the picture."""
    begins = end if key.signs_from is None else key.signs_from
    retires = end if key.retires_at is None else key.retires_at
    gone = retires if key.gone_at is None else key.gone_at
    spans = [
        _Span("next", key.published_at, begins),
        _Span("active", begins, retires),
        _Span("retired", retires, gone),
    ]
    return [span for span in spans if span.end > span.start]


def _range(keys: Iterable[KeyRecord], changes: Iterable[Change], now: int) -> tuple[int, int]:
    starts = [key.published_at for key in keys] or [now]
    ends = [change.at for change in changes] or [now]
    start, end = min(now, *starts), max(now, *ends)
    return start, end + max(3600, (end - start) // 8)  # room behind the last change, to see what it leads to


def draw_text(keys: Sequence[KeyRecord], changes: Sequence[Change], now: int) -> str:
    """Bars of characters, now as a line through them."""
    start, end = _range(keys, changes, now)

    def column(moment: int) -> int:
        return min(_COLUMNS - 1, (moment - start) * _COLUMNS // (end - start))

    at_now = column(now)
    lines = [" " * (_LABEL + at_now) + "now " + as_date(now)]
    for key in keys:
        bar = [" "] * _COLUMNS
        for span in _spans(key, end):
            first = column(span.start)
            for place in range(first, max(first, column(span.end) - (span.end < end)) + 1):
                bar[place] = _MARKS[span.what]
        bar[at_now] = "│"
        label = f"{key.alg} {_short(key.kid)}"
        lines.append(f"{label:<{_LABEL}}{''.join(bar)} {role(key, now)}")
    lines.append(" " * _LABEL + f"{as_date(start):<{_COLUMNS - 20}}{as_date(end)}")
    lines.append(" " * _LABEL + "   ".join(f"{_MARKS[what]} {word}" for what, word in _WORDS.items()))
    return "\n".join(line.rstrip() for line in lines)


def _short(kid: str) -> str:
    return kid if len(kid) <= 16 else f"{kid[:15]}…"


def draw_svg(keys: Sequence[KeyRecord], changes: Sequence[Change], now: int) -> str:
    """The same as an SVG that needs nothing else: no script, no font, no address."""
    start, end = _range(keys, changes, now)
    height = _TOP + _ROW * len(keys) + 84 + _LINE * len(changes)

    def x(moment: int) -> float:
        return round(_LEFT + (moment - start) / (end - start) * (_WIDTH - _LEFT - _RIGHT), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13" role="img">',
        "<title>The timeline of the signing keys</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for row, key in enumerate(keys):
        y = _TOP + row * _ROW
        parts.append(
            f'<text x="12" y="{y + 17}" fill="#222222">{escape(key.alg)} {escape(_short(key.kid))}'
            f' <tspan fill="#666666">{role(key, now)}</tspan></text>'
        )
        for span in _spans(key, end):
            told = f"{key.kid}: {_WORDS[span.what]}, {as_date(span.start)} to {as_date(span.end)}"
            width = max(2.0, round(x(span.end) - x(span.start), 1))
            parts.append(
                f'<rect x="{x(span.start)}" y="{y}" width="{width}" height="24" fill="{_FILLS[span.what]}">'
                f"<title>{escape(told)}</title></rect>"
            )
    bottom = _TOP + _ROW * len(keys)
    for change in changes:
        told = (
            f"{as_date(change.at)}: {change.alg} {change.kid or 'a new key'} {change.what}; {change.reason}"
        )
        parts.append(
            f'<path d="M{x(change.at)} {bottom} l4 8 h-8 z" fill="#555555"><title>{escape(told)}</title></path>'
        )
    parts.append(
        f'<path d="M{x(now)} {_TOP - 12} V{bottom + 10}" stroke="#b3261e" stroke-width="1.5"/>'
        f'<text x="{x(now)}" y="{_TOP - 20}" fill="#b3261e" text-anchor="middle">now</text>'
        f'<text x="{_LEFT}" y="{bottom + 28}" fill="#444444">{as_date(start)}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{bottom + 28}" fill="#444444" text-anchor="end">{as_date(end)}</text>'
    )
    for place, (what, word) in enumerate(_WORDS.items()):
        left = _LEFT + place * 220
        parts.append(
            f'<rect x="{left}" y="{bottom + 42}" width="14" height="14" fill="{_FILLS[what]}"/>'
            f'<text x="{left + 20}" y="{bottom + 54}" fill="#222222">{word}</text>'
        )
    for line, change in enumerate(changes):
        told = f"{as_date(change.at)}  {change.alg} {_short(change.kid or 'a new key')} {change.what}: {change.reason}"
        parts.append(f'<text x="12" y="{bottom + 88 + line * _LINE}" fill="#444444">{escape(told)}</text>')
    return "\n".join([*parts, "</svg>\n"])
