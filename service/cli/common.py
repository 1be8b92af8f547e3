"""Shared by all commands: the store of the environment's settings, tables, exit codes."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn

import click

from service.settings import Fault, read_settings
from service.startup import open_store
from service.storage.interface import Contended, StoreRefused, StoreUnavailable
from service.storage.sql import SqlStore
from service.storage.urls import DatabaseUrl

WRONG_CONFIGURATION = 2
FAILED = 1

TABLE_COLUMNS = 80
_LEAST, _LEAST_ID = 8, 12  # of a column that has to shrink

wide_option = click.option(
    "--wide", is_flag=True, help="Show every value in full, however wide the table gets."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@contextlib.contextmanager
def configured_store(*also: str, but: Sequence[Fault] = ()) -> Iterator[SqlStore]:
    """Open the store that the environment names, or end the command if it cannot be used.

    Only faults of the database's settings count, and of the settings in `also`, so that an operator can manage the
    sessions of a service whose keys are wrong. Faults in `but` never count: the command handles them itself.
    """
    reading = read_settings()
    concerned = {"DATABASE_URL", "PYLON_DATA_DIR", *also}
    faults = [fault for fault in reading.faults if fault.setting in concerned and fault not in but]
    if faults:
        fail_configuration(faults)
    store = open_store(reading.settings)
    try:
        yield store
    except StoreRefused as error:
        fail_configuration([Fault("DATABASE_URL", f"{error.reason}; {error.remedy}")])
    except Contended:
        fail(
            "Someone else changed the same data at the same time. Nothing was changed; run the command again."
        )
    except (StoreUnavailable, OSError) as error:
        fail(_why_unavailable(store, reading.settings.database, error))
    finally:
        store.close()


def _why_unavailable(store: SqlStore, database: DatabaseUrl, error: StoreUnavailable | OSError) -> str:
    # Only a migration creates the file, so a mistyped path creates none.
    if database.is_sqlite and not database.path.exists():
        return "There is no database yet: the first start creates it, or run: pylon-oidc migrate"
    with contextlib.suppress(StoreUnavailable):
        if store.schema_state() == "behind":
            return "The database's schema is missing or behind this version; run: pylon-oidc migrate"
    reason = error.reason if isinstance(error, StoreUnavailable) else str(error.strerror)
    return f"The database cannot be reached ({reason})."


def say(text: str, *, err: bool = False) -> None:
    """Print text: wrapped on a terminal, and otherwise one line for each paragraph.

    Args:
        text: the text; each of its lines is a paragraph.
        err: whether to print to stderr.
    """
    if (sys.stderr if err else sys.stdout).isatty():
        columns = max(40, shutil.get_terminal_size().columns)
        text = "\n".join(_paragraph(line, columns) for line in text.splitlines())
    click.echo(text, err=err)


def _paragraph(line: str, columns: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def fail(text: str) -> NoReturn:
    """Print why the operation failed, and exit with 1."""
    say(text, err=True)
    raise SystemExit(FAILED)


def fail_configuration(faults: Sequence[Fault]) -> NoReturn:
    """Print every fault, and exit with 2."""
    for fault in faults:
        say(str(fault), err=True)
    raise SystemExit(WRONG_CONFIGURATION)


def print_rows(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    *,
    name: str,
    as_json: bool,
    wide: bool = False,
    headings: Mapping[str, str] = MappingProxyType({}),
    whole: Collection[str] = (),
) -> None:
    """Print rows as an aligned table of at most 80 columns, or as one JSON object under `name`.

    Long text continues on the next line, and long ids are cut; in the columns of `whole`, they continue too. A column has its name as heading, unless `headings` has a
    shorter one.
    """
    if as_json:
        click.echo(json.dumps({name: list(rows)}, indent=2))
        return
    cells = [
        [headings.get(column, column.replace("_", " ")) for column in columns],
        *([_cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    if not wide:
        ids = [
            column not in whole and all(" " not in line[index] for line in cells[1:])
            for index, column in enumerate(columns)
        ]
        widths = _fitting(widths, ids, TABLE_COLUMNS - 2 * (len(columns) - 1))
    for line in cells:
        for part in _parts(line, widths, [column in whole for column in columns]):
            click.echo(
                "  ".join(text.ljust(width) for text, width in zip(part, widths, strict=True)).rstrip()
            )


def _fitting(widths: Sequence[int], ids: Sequence[bool], room: int) -> list[int]:
    """Reduce the widths until they fit: first ids, whose first characters identify them, then the widest column."""
    fitting = list(widths)
    while sum(fitting) > room and max(fitting) > _LEAST:
        long_ids = [
            width if is_id and width > _LEAST_ID else 0 for width, is_id in zip(fitting, ids, strict=True)
        ]
        widest = long_ids if any(long_ids) else fitting
        fitting[widest.index(max(widest))] -= 1
    return fitting


def _parts(line: Sequence[str], widths: Sequence[int], whole: Sequence[bool]) -> list[list[str]]:
    """Split a row of a table into lines."""
    columns = [
        textwrap.wrap(text, width, break_long_words=is_whole, break_on_hyphens=False) or [""]
        for text, width, is_whole in zip(line, widths, whole, strict=True)
    ]
    height = max(map(len, columns))
    padded = [column + [""] * (height - len(column)) for column in columns]
    return [
        [_cut(text, width) for text, width in zip(part, widths, strict=True)]
        for part in zip(*padded, strict=True)
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else "".join(char if char.isprintable() else "?" for char in str(value))


def as_minute(seconds: int) -> str:
    """Unix s as a date and time in UTC, for a table."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def as_date(seconds: int) -> str:
    """Unix s as an ISO date in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
