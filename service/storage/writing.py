"""Writes in one transaction: all of it or nothing. A writer that loses to another one decides again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from service import json_text
from service.storage import statements
from service.storage.interface import (
    Change,
    Contended,
    Fitting,
    Kind,
    Leaving,
    NotStanding,
    Record,
    Remains,
)
from service.storage.kept import Conflict, KeptConnections, Run, tried_again
from service.storage.reserve import HALF
from service.storage.rows import can_fit, record_of, row_of

#: From the second attempt on a writer holds a lock: it can then lose only to one that stores the first record.
_ATTEMPTS: Final = 5
#: The most records that one statement inserts.
_AT_ONCE: Final = 50
#: The kinds that may leave something behind.
_LEAVE_SOMETHING: Final = frozenset({Kind.SESSION, Kind.GRANT})


@dataclass(frozen=True, slots=True)
class Writing:
    """The steps of one transaction: check required records, take one with those that depend on it, put, and change."""

    put: Sequence[Record] = ()
    changes: Sequence[Change] = ()
    standing_on: Sequence[Fitting] = ()
    take: tuple[Kind, str, int | None] | None = None
    falling: Sequence[Fitting] = ()
    ending: bool = False

    @property
    def leaves(self) -> int | None:
        """How much of the reserve this may use: see `storage.sql.SqlStore.in_room`."""
        if self.ending:
            return HALF
        # A change of a client may revoke rights. The key ring is replaced, and other changes can wait.
        by_operator = all(change.kind is Kind.CLIENT for change in self.changes)
        takes_away = not self.put and by_operator and (self.take is not None or bool(self.changes))
        return 0 if takes_away else None


class NotThere(Exception):
    """The record to take does not exist."""


class Left(NotStanding):
    """The record to change does not exist, or `decide` left it as it is."""


class _Outrun(Exception):
    """Another request has changed the record since it was read."""


class Writer:
    """Runs transactions on the kept connections.

    Args:
        connections: those of the store.
        text: makes a statement on the table of a kind.
        remains: what is stored instead of sessions and grants that are removed; None: nothing is.
    """

    def __init__(
        self, connections: KeptConnections, text: Callable[..., str], remains: Remains | None
    ) -> None:
        self._connections = connections
        self._remains = remains
        self._text = text

    def write(self, writing: Writing, now: int) -> tuple[Record | None, tuple[Record, ...]]:
        """Do all of it or nothing. Returns the taken record, and the changed records as they are now."""
        # The first attempt decides without a lock. A writer that lost decides again under a lock.
        decided = [self._decided(self._connections.read, each, now) for each in writing.changes]
        for attempt in range(_ATTEMPTS):
            inserted = False
            try:
                with self._connections.transaction() as run:
                    self._check_standing(run, writing.standing_on, now)
                    taken = self._taken(run, writing, now)
                    self._insert(run, writing.put)
                    inserted = True
                    if attempt > 0:
                        decided = [self._decided(run, each, now, lock=True) for each in writing.changes]
                    for known, wanted in decided:
                        self._store(run, known, wanted)
                        if known is not None and known.tokens and not wanted.tokens:
                            self._keep_remains(run, [known], now)
                    return taken, tuple(wanted for _, wanted in decided)
            except Conflict:
                if not inserted:
                    raise
            except _Outrun:
                pass
        raise Contended

    def swap(self, record: Record, beside: Record | None, now: int) -> bool:
        """Store a changed record, and a new one unless its id exists. Returns False if the first has changed since."""
        values = {**row_of(record), "wanted": record.id_hash, "known_version": record.version, "now": now}
        if beside is not None:
            return self._swap_both(record.kind, values, beside)
        return bool(self._connections.write(self._text(statements.swap_one, record.kind), values))

    @tried_again
    def _swap_both(self, kind: Kind, values: Mapping[str, Any], beside: Record) -> bool:
        with self._connections.transaction() as run:
            if not run(self._text(statements.swap_returning, kind), values):
                return False
            self._insert_many(run, [beside], statements.insert_missing)
        return True

    def _check_standing(self, run: Run, standing_on: Sequence[Fitting], now: int) -> None:
        for each in standing_on:
            said = each.said()
            sql = self._text(statements.select_standing, each.kind, tuple(said))
            if not can_fit(said) or not run(sql, {**said, "now": now}):
                raise NotStanding

    def _taken(self, run: Run, writing: Writing, now: int) -> Record | None:
        if writing.take is None:
            return None
        kind, id_hash, version = writing.take
        said: dict[str, str | int] = {"wanted": id_hash}
        if version is not None:
            said["known_version"] = version
        rows = run(self._text(statements.delete_one, kind, tuple(said)), {**said, "now": now})
        if not rows:
            raise NotThere
        taken = record_of(kind, rows[0])
        self._keep_remains(run, [taken], now)
        for each in writing.falling:
            self.deleted(run, each, now)
        return taken

    def _decided(
        self, run: Run, change: Change, now: int, *, lock: bool = False
    ) -> tuple[Record | None, Record]:
        """The stored record of that id, live or not, and its new version."""
        statement = statements.select_to_change if lock else statements.select_known
        rows = run(self._text(statement, change.kind), {"wanted": change.id_hash})
        known = record_of(change.kind, rows[0]) if rows else None
        given = known if known is not None and known.expires_at > now else change.new
        wanted = None if given is None else change.decide(given)
        if wanted is None:
            raise Left
        if known is not None and wanted is known:  # it is left as it is
            return known, known
        if known is not None:
            wanted = replace(wanted, version=known.version + 1)
        return known, replace(wanted, kind=change.kind, id_hash=change.id_hash)

    def _store(self, run: Run, known: Record | None, wanted: Record) -> None:
        if wanted is known:
            return
        if known is None:
            self._insert(run, [wanted])
            return
        values = {"wanted": known.id_hash, "known_version": known.version, **row_of(wanted)}
        if not run(self._text(statements.update_known, wanted.kind), values):
            raise _Outrun

    def end(
        self,
        fitting: Sequence[Fitting],
        without_tokens: Sequence[Fitting],
        leaving: Leaving | None,
        now: int,
    ) -> int:
        """Delete the records that fit, and remove the access tokens of grants that stay. Returns how many were deleted."""
        with self._connections.transaction() as run:
            counts: list[int] = []
            left: list[Record] = []
            for each in fitting:
                if leaving is None or each.kind is not Kind.VISIT:
                    counts.append(self.deleted(run, each, now))
                else:
                    gone = self._gone(run, each, now)
                    counts.append(len(gone))
                    left += leaving(gone)
            for each in without_tokens:
                self._empty(run, each, now)
            self._insert_many(run, left)
        return counts[0]

    def _gone(self, run: Run, fitting: Fitting, now: int) -> list[tuple[Record, Sequence[Mapping[str, Any]]]]:
        """Delete the records that fit. Returns each record, with the bodies of its client's records."""
        said = fitting.said()
        if not can_fit(said):
            return []
        sql = self._text(statements.delete_with_clients, fitting.kind, tuple(said))
        return [
            (record_of(fitting.kind, tuple(row)), [json_text.read(body) for body in {first, last} if body])
            for *row, first, last in run(sql, {**said, "now": now})
        ]

    def _insert_many(
        self, run: Run, records: Sequence[Record], statement: statements.Build = statements.insert_many
    ) -> None:
        """Insert records of one kind, many in one statement."""
        for first in range(0, len(records), _AT_ONCE):
            some = records[first : first + _AT_ONCE]
            sql = self._text(statement, some[0].kind, len(some))
            rows = map(row_of, some)
            run(sql, {f"{name}_{number}": row[name] for number, row in enumerate(rows) for name in row})

    def deleted(self, run: Run, fitting: Fitting, now: int) -> int:
        """Delete the records that fit. Returns their number."""
        said = fitting.said()
        if not can_fit(said):
            return 0
        if self._remains is None or fitting.kind not in _LEAVE_SOMETHING:
            sql = self._text(statements.delete_fitting, fitting.kind, tuple(said))
            return len(run(sql, {**said, "now": now}))
        sql = self._text(statements.delete_one, fitting.kind, tuple(said))
        gone = [record_of(fitting.kind, row) for row in run(sql, {**said, "now": now})]
        self._keep_remains(run, gone, now)
        return len(gone)

    def _empty(self, run: Run, fitting: Fitting, now: int) -> None:
        """Remove the access tokens of the grants that fit."""
        said = fitting.said()
        if not can_fit(said):
            return
        sql = self._text(statements.empty_fitting, fitting.kind, tuple(said))
        emptied = run(sql, {**said, "tokens": b"", "now": now})
        self._keep_remains(run, (record_of(fitting.kind, row) for row in emptied), now)

    def _keep_remains(self, run: Run, records: Iterable[Record], now: int) -> None:
        """Store what remains of sessions and grants, unless it is already stored."""
        if self._remains is None:
            return
        found = (self._remains(each, now) for each in records if each.kind in _LEAVE_SOMETHING)
        remains = [each for each in found if each is not None]
        self._insert_many(run, remains, statements.insert_missing)

    def _insert(self, run: Run, records: Iterable[Record]) -> None:
        for record in records:
            run(self._text(statements.insert_one, record.kind), row_of(record))
