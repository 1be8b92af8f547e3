"""Draws the timeline of the keys: one bar for each key, in a terminal or as an SVG.

A rotation takes an hour and happens every ninety days, so it would be invisible if drawn to scale. Every period between
two changes has a minimum width, and the rest of the width is divided by length.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from service.cli.common import as_date
from service.keys.ring import KeyRecord, role
from service.keys.timeline import Change

#: Label, bar and role are 80 columns together.
_COLUMNS: Final = 44
_LABEL: Final = 18
_MARKS: Final = {"next": "·", "active": "█", "retired": "░"}
_FILLS: Final = {"next": "#9ec5e8", "active": "#1f6f43", "retired": "#c9c3b4"}
_WORDS: Final = {"next": "published, not signing yet", "active": "signs", "retired": "published, verifies"}
_NOT_TO_SCALE: Final = "Not to scale: a short time is drawn longer than it is."
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _LINE = 960, 12, 12, 48, 48, 20
#: An outline that keeps letters readable on top of lines.
_CLEAR: Final = 'paint-order="stroke" stroke="#ffffff" stroke-width="4"'
#: The minimum share of the width for each period between two changes, and for all of them together.
_LEAST_EACH, _LEAST_ALL = 0.05, 0.6


@dataclass(frozen=True, slots=True)
class _Span:
    what: str
    start: int
    end: int


def _spans(key: KeyRecord, end: int) -> list[_Span]:
    """The roles of a key in order, up to the end of the picture."""
    begins = end if key.signs_from is None else key.signs_from
    retires = end if key.retires_at is None else key.retires_at
    gone = retires if key.gone_at is None else key.gone_at
    spans = [
        _Span("next", key.published_at, begins),
        _Span("active", max(begins, key.published_at), retires),
        _Span("retired", retires, gone),
    ]
    return [span for span in spans if span.end > span.start]


class _Scale:
    """Maps a time to a position in the picture.

    Attributes:
        start, end: of the picture; Unix s.
    """

    def __init__(self, keys: Iterable[KeyRecord], changes: Iterable[Change], now: int) -> None:
        keys, ends = list(keys), [change.at for change in changes]
        self.start = min([now, *(key.published_at for key in keys)])
        last = max([now, *ends])
        # Room after the last change, to show its result.
        self.end = last + max(3600, (last - self.start) // 8)
        moments = {now, self.start, self.end, *ends}
        for key in keys:
            moments |= {moment for span in _spans(key, self.end) for moment in (span.start, span.end)}
        self._moments = sorted(moments)
        gaps = len(self._moments) - 1
        self._least = min(_LEAST_EACH, _LEAST_ALL / gaps)
        self._shared = 1 - gaps * self._least

    def __call__(self, moment: int) -> float:
        """0 at the picture's left edge, 1 at its right one."""
        before = sum(1 for known in self._moments[1:] if known <= moment)
        length = self._shared * (moment - self.start) / (self.end - self.start)
        return min(1.0, self._least * before + length)


def marks(changes: Iterable[Change]) -> dict[int, str]:
    """The letter of each change, the same in the picture and in the list below it."""
    moments = sorted({change.at for change in changes})
    return dict(zip(moments, _LETTERS, strict=False))


def draw_text(
    keys: Sequence[KeyRecord], changes: Sequence[Change], now: int, late: Collection[str] = ()
) -> str:
    """Draw bars of characters, with a line for the current time.

    Args:
        keys: the published keys.
        changes: the coming changes.
        now: Unix s.
        late: the ids of keys whose rotation is overdue.
    """
    scale = _Scale(keys, changes, now)

    def column(moment: int) -> int:
        return round(scale(moment) * _COLUMNS)

    at_now = column(now)
    word = f"now {as_date(now)}"
    lines = [" " * (_LABEL + at_now - (len(word) - 1 if at_now > _COLUMNS // 2 else 0)) + word]
    for key in keys:
        bar = [" "] * _COLUMNS
        for span in _spans(key, scale.end):
            first = min(column(span.start), _COLUMNS - 1)
            for place in range(first, max(first + 1, column(span.end))):
                bar[place] = _MARKS[span.what]
        line = "".join(bar[:at_now]) + "│" + "".join(bar[at_now:])
        lines.append(f"{f'{key.alg} {_short(key.kid, 9)}':<{_LABEL}}{line} {_role(key, now, late)}")
    if letters := marks(changes):
        lines.append(" " * _LABEL + _letters(letters, column, at_now))
    lines.append(" " * _LABEL + f"{as_date(scale.start):<{_COLUMNS - 19}}{as_date(scale.end)}")
    lines.append(" " * _LABEL + "   ".join(f"{_MARKS[what]} {word}" for what, word in _WORDS.items()))
    lines.append(" " * _LABEL + _NOT_TO_SCALE)
    return "\n".join(line.rstrip() for line in lines)


def _letters(letters: dict[int, str], column: Callable[[int], int], at_now: int) -> str:
    """Put each letter under the column of its change, or in the next free column."""
    line = [" "] * (_COLUMNS + 1 + len(letters))
    for moment, letter in letters.items():
        place = column(moment)
        place += place >= at_now  # after the line
        line[line.index(" ", place)] = letter
    return "".join(line)


def _role(key: KeyRecord, now: int, late: Collection[str]) -> str:
    return role(key, now) + (", overdue" if key.kid in late else "")


def _short(kid: str, most: int = 16) -> str:
    return kid if len(kid) <= most else f"{kid[: most - 1]}…"


def draw_svg(
    keys: Sequence[KeyRecord], changes: Sequence[Change], now: int, late: Collection[str] = ()
) -> str:
    """Draw the same as a self-contained SVG, without scripts, fonts or links."""
    scale, letters = _Scale(keys, changes, now), marks(changes)
    bottom = _TOP + _ROW * len(keys)
    height = bottom + 96 + _LINE * (len(changes) + 1)

    def x(moment: int) -> float:
        return round(_LEFT + scale(moment) * (_WIDTH - _LEFT - _RIGHT), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13" role="img">',
        "<title>The timeline of the signing keys</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    parts += _bars(keys, scale.end, x)
    for moment, letter in letters.items():
        parts.append(
            f'<path d="M{x(moment)} {_TOP} V{bottom}" stroke="#555555" stroke-width="0.5" stroke-dasharray="2 3"/>'
            f'<text x="{x(moment)}" y="{bottom + 12}" fill="#222222" text-anchor="middle">{letter}</text>'
        )
    parts.append(f'<path d="M{x(now)} {_TOP - 18} V{bottom + 4}" stroke="#b3261e" stroke-width="1.5"/>')
    for row, key in enumerate(keys):
        colour = "#b3261e" if key.kid in late else "#555555"
        parts.append(
            f'<text x="{_LEFT}" y="{_TOP + row * _ROW + 12}" fill="#222222" {_CLEAR}>{escape(key.alg)} {escape(_short(key.kid, 64))}'
            f' <tspan fill="{colour}">{_role(key, now, late)}</tspan></text>'
        )
    anchor = "start" if x(now) < 100 else "end" if x(now) > _WIDTH - 100 else "middle"
    parts.append(
        f'<text x="{x(now)}" y="{_TOP - 26}" fill="#b3261e" text-anchor="{anchor}">now {as_date(now)}</text>'
        f'<text x="{_LEFT}" y="{bottom + 34}" fill="#444444">{as_date(scale.start)}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{bottom + 34}" fill="#444444" text-anchor="end">{as_date(scale.end)}</text>'
    )
    for left, (what, word) in zip((_LEFT, 220, 300), _WORDS.items(), strict=True):
        parts.append(
            f'<rect x="{left}" y="{bottom + 48}" width="14" height="14" fill="{_FILLS[what]}"/>'
            f'<text x="{left + 20}" y="{bottom + 60}" fill="#222222">{word}</text>'
        )
    parts.append(f'<text x="{_LEFT}" y="{bottom + 82}" fill="#444444">{_NOT_TO_SCALE}</text>')
    return "\n".join([*parts, *_lines(changes, letters, bottom), "</svg>\n"])


def _lines(changes: Sequence[Change], letters: dict[int, str], bottom: int) -> Iterator[str]:
    """One line of text for each change."""
    for line, change in enumerate(changes):
        told = f"{letters.get(change.at, '')}  {as_date(change.at)}  {change.alg} {_short(change.kid or 'a new key')} {change.what}: {change.reason}"
        yield f'<text x="{_LEFT}" y="{bottom + 110 + line * _LINE}" fill="#444444">{escape(told)}</text>'


def _bars(keys: Sequence[KeyRecord], end: int, x: Callable[[int], float]) -> Iterator[str]:
    """One row for each key, with its roles in order."""
    for row, key in enumerate(keys):
        y = _TOP + row * _ROW + 18
        for span in _spans(key, end):
            told = f"{key.kid}: {_WORDS[span.what]}, {as_date(span.start)} to {as_date(span.end)}"
            width = max(2.0, round(x(span.end) - x(span.start), 1))
            yield (
                f'<rect x="{x(span.start)}" y="{y}" width="{width}" height="20" fill="{_FILLS[span.what]}">'
                f"<title>{escape(told)}</title></rect>"
            )
