"""The store's only implementation: its verbs use the statements of `statements` and the connections of `kept`.

Serving loads neither SQLAlchemy nor Alembic: only a migration needs them (`upgrading`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, ParamSpec, TypeVar

from service.storage import statements
from service.storage.database import Database
from service.storage.interface import (
    NEVER,
    Change,
    Decide,
    Fitting,
    Kind,
    Leaving,
    Record,
    Remains,
    RingOfBefore,
    StoreRefused,
    StoreUnavailable,
)
from service.storage.kept import Conflict, KeptConnections, Run, tried_again
from service.storage.reserve import HALF
from service.storage.rows import can_fit, record_of, row_of
from service.storage.schema import HEAD, REVISIONS, Table
from service.storage.statements import Build, Statements
from service.storage.sweeping import Sweeper
from service.storage.writing import Left, NotThere, Writer, Writing

#: How many records one transaction removes when a kind is trimmed.
TRIM_SLICE: Final = 100
#: From which revision on every ring of keys is authenticated.
_RING_AUTHENTICATED: Final = "0005"
#: The kind that only operators change; a change may revoke rights.
_OF_OPERATORS: Final = frozenset({Kind.CLIENT, Kind.KEY_RING})

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


#: The entry in the table of revisions, followed by the revision, while a copy into the database is running.
COPYING: Final = "copying-"


def _in_room(*, leaves: int | None) -> Callable[[Callable[_Given, _Result]], Callable[_Given, _Result]]:
    """Run a verb within the disk space that it may use.

    Args:
        leaves: for a verb that removes: how many portions of the reserve it must leave when the disk is full. None
            for a verb that adds, which is refused when room is short.
    """

    def of(verb: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
        @functools.wraps(verb)
        def run(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
            store: Any = args[0]
            result: _Result = store.in_room(lambda: verb(*args, **kwargs), leaves=leaves)
            return result

        return run

    return of


class SqlStore:
    """`storage.interface.Store` on a SQL database. `remains`: what is stored for sessions and grants that go."""

    def __init__(self, database: Database, remains: Remains | None = None) -> None:
        self._database = database
        self._connections = KeptConnections(database)
        self._schema: str | None = None
        self._statements = Statements(database.spelled, self._known_schema)
        self._text = self._statements.text
        self._writer = Writer(self._connections, self._text, remains)
        self.sweeper = Sweeper(self._connections, database, self._text)

    # --- reads ---

    def get(self, kind: Kind, id_hash: str, *, with_user: bool = False, now: int) -> Record | None:
        """See `Store.get`."""
        sql = self._text(statements.select_with_user if with_user else statements.select_one, kind)
        rows = self._connections.read(sql, {"wanted": id_hash, "now": now})
        return record_of(kind, rows[0], with_user=with_user) if rows else None

    def due(self, kind: Kind, *, until: int, most: int, but: Sequence[str] = (), now: int) -> list[Record]:
        """See `Store.due`."""
        sql = self._text(statements.select_due, kind, len(but))
        not_of = {f"but_{number}": client_id for number, client_id in enumerate(but)}
        values = {"until": until, "most": most, "now": now, **not_of}
        return [record_of(kind, row) for row in self._connections.read(sql, values)]

    def list(
        self, kind: Kind, *, subject: str | None = None, session_id: str | None = None, now: int
    ) -> list[Record]:
        """See `Store.list`."""
        fitting = _given(subject=subject, session_id=session_id)
        if not can_fit(fitting):
            return []
        sql = self._text(statements.select_fitting, kind, tuple(fitting))
        return [record_of(kind, row) for row in self._connections.read(sql, {**fitting, "now": now})]

    def schema_state(self) -> Literal["current", "behind", "ahead", "copying"]:
        """See `Store.schema_state`."""
        return self._schema_state(self._connections.read)

    @property
    def database(self) -> Database:
        """The database itself, to copy all of it."""
        return self._database

    def exists(self) -> bool:
        """Whether there is a database."""
        return self._database.exists()

    def has_tables(self) -> bool:
        """Whether the database has our tables, of any version."""
        return self._database.find_schema(self._connections.read, None) is not None

    def schema_name(self) -> str:
        """The schema of the tables; empty if the database has only one."""
        return self._known_schema()

    def text_on(self, table: Table, build: Build) -> str:
        """The text of a statement on a whole table."""
        return self._statements.on(table, build)

    def write_refusal(self) -> StoreUnavailable | None:
        """See `Store.write_refusal`."""
        return self._database.write_refusal(self._connections.read, self._known_schema())

    def _known_schema(self) -> str:
        """The schema of the tables, looked up once, so that it does not depend on a session of the server."""
        if self._schema is None:
            self._schema = self._database.find_schema(self._connections.read, None)
        if self._schema is None:
            raise StoreUnavailable("there are no tables")
        return self._schema

    # --- writes ---

    @tried_again
    def put(
        self,
        *records: Record,
        changes: Sequence[Change] = (),
        standing_on: Sequence[Fitting] = (),
        ending: bool = False,
        now: int,
    ) -> bool:
        """See `Store.put`."""
        if any(record.expires_at < NEVER for record in records):
            self.sweeper.begin(now)
        try:
            self._write(Writing(records, changes, standing_on, ending=ending), now)
        except Conflict:
            return False
        return True

    @tried_again
    def take(
        self,
        kind: Kind,
        id_hash: str,
        *,
        put: Sequence[Record] = (),
        changes: Sequence[Change] = (),
        falling: Sequence[Fitting] = (),
        standing_on: Sequence[Fitting] = (),
        version: int | None = None,
        now: int,
    ) -> Record | None:
        """See `Store.take`."""
        writing = Writing(put, changes, standing_on, take=(kind, id_hash, version), falling=falling)
        try:
            taken, _ = self._write(writing, now)
        except NotThere:
            return None
        return taken

    @tried_again
    def change(
        self,
        kind: Kind,
        id_hash: str,
        decide: Decide,
        *,
        new: Record | None = None,
        standing_on: Sequence[Fitting] = (),
        now: int,
    ) -> Record | None:
        """See `Store.change`."""
        change = Change(kind, id_hash, decide, new)
        try:
            _, (changed,) = self._write(Writing(changes=[change], standing_on=standing_on), now)
        except Left:
            return None
        return changed

    def swap(self, record: Record, *, beside: Record | None = None, ending: bool = False, now: int) -> bool:
        """See `Store.swap`."""
        return self.in_room(lambda: self._writer.swap(record, beside, now), leaves=0 if ending else None)

    @tried_again
    def replace(self, kind: Kind, id_hash: str, successor: Record, *, now: int) -> bool:
        """See `Store.replace`."""
        sql = self._text(statements.update_one, kind)
        values = {"wanted": id_hash, "now": now, **row_of(successor)}

        def work() -> bool:
            with self._connections.transaction() as run:
                return bool(run(sql, values))

        return self.in_room(work, leaves=0 if kind in _OF_OPERATORS else None)

    @tried_again
    @_in_room(leaves=0)
    def delete(
        self,
        *fitting: Fitting,
        without_tokens: Sequence[Fitting] = (),
        leaving: Leaving | None = None,
        now: int,
    ) -> int:
        """See `Store.delete`."""
        return self._writer.end(fitting, without_tokens, leaving, now)

    @tried_again
    @_in_room(leaves=HALF)
    def delete_expired(self, *, now: int, limit: int) -> int:
        """See `Store.delete_expired`."""
        removed = 0
        for kind in Kind:
            with self._connections.transaction() as run:
                removed += len(run(self._text(statements.delete_ended, kind), {"now": now, "limit": limit}))
        return removed

    def trim(self, kind: Kind, *, most_of_one: int, most: int) -> int:
        """See `Store.trim`."""
        (row,) = self._connections.read(self._text(statements.count_by_subject, kind), {})
        count, largest = map(int, row)  # not every database returns sums as integers
        if count <= most and largest <= most_of_one:
            return 0
        # Finding the records blocks nobody. They are removed in the order of their ids, so that two calls do not deadlock.
        kept = {"most_of_one": _with_room(most_of_one), "most": _with_room(most)}
        beyond = sorted(self._connections.read(self._text(statements.select_beyond, kind), kept))
        ids = [id_hash for (id_hash,) in beyond]
        slices = (ids[first : first + TRIM_SLICE] for first in range(0, len(ids), TRIM_SLICE))
        return sum(self._remove(kind, each) for each in slices)

    @tried_again
    @_in_room(leaves=HALF)
    def _remove(self, kind: Kind, ids: Sequence[str]) -> int:
        sql = self._text(statements.delete_known, kind)
        with self._connections.transaction() as run:
            removed = [row for id_hash in ids for row in run(sql, {"wanted": id_hash})]
        self.sweeper.tell(kind, removed)
        return len(removed)

    # --- room ---

    def in_room(self, work: Callable[[], _Result], *, leaves: int | None) -> _Result:
        """See `_in_room`."""
        room = self._database.room
        if leaves is None:
            room.check_growth()
        while True:
            try:
                return work()
            except StoreUnavailable as error:
                if leaves is None:
                    room.was_refused(error.__cause__)
                if leaves is None or not room.draw(error.__cause__, leave=leaves):
                    raise

    def give_back(self) -> None:
        """Return all unused space to the file system. For commands, not for requests."""
        while self._database.give_back(self._connections, within_s=0.5):
            time.sleep(0.05)  # let others that wait for the file go first, and a service that does the same

    def check_revocable(self) -> None:
        """See `Store.check_revocable`."""
        self._database.check_revocable(self._connections)

    def keep_room(self) -> None:
        """Keep a reserve for deletions from now on, in this process and its forks. For a service, not for a command."""
        self._database.room.keep()

    # --- one transaction ---

    def _write(self, writing: Writing, now: int) -> tuple[Record | None, tuple[Record, ...]]:
        """Do all of it or nothing. Returns the taken record, and the changed records as they are now."""
        return self.in_room(lambda: self._writer.write(writing, now), leaves=writing.leaves)

    # --- the schema ---

    @tried_again
    def migrate(self, ring_of_before: RingOfBefore | None = None) -> None:
        """See `Store.migrate`. It is one transaction, and runs again if it lost against a request."""
        with self._database.migration_lock():
            if not self._database.create_tables(self._connections):
                self._upgrade(ring_of_before)

    def _upgrade(self, ring_of_before: RingOfBefore | None) -> None:
        """Run the migrations that the database does not have yet."""
        # SQLAlchemy and Alembic: a third of the time and memory of a start that does not need them.
        from service.storage import upgrading

        with upgrading.transaction(self._database) as connection:
            run = upgrading.run_on(connection)
            self._database.lock_schema(run)
            state, before = self._schema_state(run), self._revisions(run)
            if state == "copying":
                raise StoreRefused(
                    "a copy into the database is not finished", "run the same pylon-oidc store copy again"
                )
            if state == "ahead":  # a newer version has migrated already: there is nothing to do
                return
            upgrading.upgrade(connection)
            if ring_of_before is not None and before and before[0] < _RING_AUTHENTICATED:
                self._adopt(run, ring_of_before)

    def _adopt(self, run: Run, ring_of_before: RingOfBefore) -> None:
        """Replace a record of the key ring. This runs only once, right after the tables were migrated."""
        self._schema_state(run)  # where the tables are now
        sql = self._text(statements.select_fitting, Kind.KEY_RING, ())
        found = [record_of(Kind.KEY_RING, row) for row in run(sql, {"now": 0})]
        if successor := ring_of_before(found):
            known, wanted = successor
            run(
                self._text(statements.update_one, Kind.KEY_RING),
                {"wanted": known, "now": 0, **row_of(wanted)},
            )

    def _schema_state(self, run: Run) -> Literal["current", "behind", "ahead", "copying"]:
        schema = self._database.find_schema(run, self._schema)
        if schema != self._schema:
            self._schema = schema
            self._statements.forget()
        revisions = self._revisions(run)
        if revisions == (HEAD,):
            return "current"
        if revisions and revisions[0].startswith(COPYING):
            return "copying"
        return "ahead" if revisions and revisions[0] > HEAD else "behind"

    def _revisions(self, run: Run) -> tuple[str, ...]:
        """The revisions that the tables record, in the schema where they were found."""
        if self._schema is None:
            return ()
        return tuple(
            str(revision) for (revision,) in run(self.text_on(REVISIONS, statements.select_revisions), {})
        )

    def rest(self) -> None:
        """See `Store.rest`."""
        self._connections.let_go()

    def close(self) -> None:
        """See `Store.close`."""
        self.sweeper.end()
        self._connections.close()


def _with_room(most: int) -> int:
    """A sixteenth less, because finding what to remove reads the whole table, which must not happen every time."""
    return most - most // 16


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
