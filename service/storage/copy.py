"""Copies a database into another one, of either kind: every table and every column.

Owns: the order, how an interrupted copy continues, and how it is verified.
Never touches: what a record means.

Rows are copied in the order of their keys and committed in batches, so that the rows in the target are always the
first rows of the source. Until all rows are verified, the table of revisions marks the target as an unfinished copy,
and no version of the service runs on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.storage import statements
from service.storage.schema import HEAD, REVISIONS, TABLES, Table
from service.storage.sql import COPYING, SqlStore

BATCH: Final = 5000
_UNDER_WAY: Final = f"{COPYING}{HEAD}"

Row = tuple[Any, ...]


class CopyRefused(Exception):
    """The copy cannot start, or the result differs from the source."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A copied table: the number of records, and the sum of their SHA-256 in hex."""

    table: str
    records: int
    digest: str


def copy_store(source: SqlStore, target: SqlStore, told: Callable[[str, int], None]) -> list[Copied]:
    """Copy a whole database into an empty one, or continue an interrupted copy.

    Args:
        source: the database to copy. It must not change during the copy.
        target: the database to copy into. It is created and migrated if needed.
        told: called after each batch, with the name of a table and how many of its records are copied.

    Returns:
        The copied tables.

    Raises:
        CopyRefused: if the source has another schema version, the target is not empty, or the result differs.
        StoreUnavailable: if one of them is unavailable.
    """
    if (state := source.schema_state()) != "current":
        raise CopyRefused(f"The schema of the source is {state}; run pylon-oidc migrate on it first.")
    _begin(target)
    tables = TABLES.values()
    with _snapshot(source) as read, _open(target) as write:
        for table in tables:
            _copy_table(source, target, read, write, table, told)
    # In new snapshots, which show changes in the source since the copy began.
    with _snapshot(source) as read, _snapshot(target) as copied:
        done = [_verified(source, target, read, copied, table) for table in tables]
    with _open(target) as write:
        _revise(target, write, _UNDER_WAY, HEAD)
    return done


def _begin(target: SqlStore) -> None:
    """Make sure that the target is an empty database, or an earlier start of this copy."""
    state = target.schema_state() if target.exists() else "behind"
    if state == "behind":
        if target.exists() and target.has_tables():
            raise CopyRefused("The target has tables of an older version already. Give an empty database.")
        target.migrate()
    elif state == "ahead":
        raise CopyRefused("The target has the tables of a newer version.")
    with _open(target) as connection:
        ((revision,),) = connection.execute(
            target.text_on(REVISIONS, statements.select_revisions), {}
        ).fetchall()
        if revision == _UNDER_WAY:
            return
        if revision != HEAD:
            raise CopyRefused("The target is a copy that another version began. Give an empty database.")
        for table in TABLES.values():
            if count := _count(target, connection, table):
                raise CopyRefused(
                    f"The target is not empty: {table.name} has {count} records. Give an empty database."
                )
        _revise(target, connection, HEAD, _UNDER_WAY)


def _copy_table(
    source: SqlStore, target: SqlStore, read: Any, write: Any, table: Table, told: Callable[[str, int], None]
) -> None:
    there = _count(target, write, table)
    for rows in _pages(source, read, table, skip=there):
        write.execute(target.database.begin)
        target.database.insert_rows(write, target.schema_name(), table, rows)
        write.execute("COMMIT")
        there += len(rows)
        told(table.name, there)


def _verified(source: SqlStore, target: SqlStore, read: Any, copied: Any, table: Table) -> Copied:
    before, after = _summed(source, read, table), _summed(target, copied, table)
    if before != after:
        raise CopyRefused(
            f"{table.name} differs: {before.records} records in the source, {after.records} in the target. The source "
            "has changed since the copy began: stop what uses it, empty the target, and copy again."
        )
    return after


def _summed(store: SqlStore, connection: Any, table: Table) -> Copied:
    count, total = 0, 0
    for rows in _pages(store, connection, table):
        count += len(rows)
        for row in rows:
            written = json.dumps(list(map(_plain, row)), separators=(",", ":")).encode()
            total += int.from_bytes(hashlib.sha256(written).digest())
    return Copied(table.name, count, f"{total % (1 << 256):064x}")


def _plain(value: Any) -> Any:
    """A value in a form that both kinds of database share: bytes as hex, booleans as numbers."""
    if isinstance(value, bytes):
        return value.hex()
    return int(value) if isinstance(value, bool) else value


def _pages(store: SqlStore, connection: Any, table: Table, *, skip: int = 0) -> Iterator[Sequence[Row]]:
    """The rows of a table in the order of its key, in batches."""
    place = table.columns.index("id_hash")
    sql = store.text_on(table, statements.select_page)
    after: Any = ""
    while rows := connection.execute(sql, {"after": after, "skip": skip, "most": BATCH}).fetchall():
        yield rows
        after, skip = rows[-1][place], 0


def _count(store: SqlStore, connection: Any, table: Table) -> int:
    ((count,),) = connection.execute(store.text_on(table, statements.count), {}).fetchall()
    return int(count)


def _revise(target: SqlStore, connection: Any, before: str, after: str) -> None:
    sql = target.text_on(REVISIONS, statements.update_revision)
    connection.execute(sql, {"before": before, "after": after})


@contextlib.contextmanager
def _open(store: SqlStore) -> Iterator[Any]:
    """A connection without a time limit for statements."""
    try:
        with contextlib.closing(store.database.connect_patiently()) as connection:
            yield connection
    except Exception as error:
        if outage := store.database.outage(error):
            raise outage from error
        raise


@contextlib.contextmanager
def _snapshot(store: SqlStore) -> Iterator[Any]:
    """A connection that reads one snapshot."""
    with _open(store) as connection:
        connection.execute(store.database.begin_snapshot)
        yield connection
