"""The store's one implementation: the verbs, over the statements of `statements` and the connections of `kept`.

SQLAlchemy writes the SQL, once; the driver runs it. Only a migration goes through an engine.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar

from sqlalchemy import ClauseElement, Connection, Engine, Table
from sqlalchemy.exc import DBAPIError

from service.storage import statements
from service.storage.interface import (
    NEVER,
    Change,
    Contended,
    Decide,
    Fitting,
    Kind,
    NotStanding,
    Record,
    RingOfBefore,
    StoreRefused,
    StoreUnavailable,
)
from service.storage.kept import Conflict, Driver, GaveWay, KeptConnections, Run, tried_again
from service.storage.reserve import HALF, Room
from service.storage.schema import HEAD, TABLES
from service.storage.statements import Statements
from service.storage.sweeping import Sweepable, Sweeper

#: How many records go in one transaction where a kind is trimmed.
TRIM_SLICE: Final = 100
#: From the second on a writer decides under a lock: it loses again only to somebody who stores the first record.
_ATTEMPTS: Final = 5
#: A grant grows when it is used. Its row has that room from the beginning, in bytes of its body and access tokens: a row
#: that grows out of its page makes SQLite move several.
_GRANT_ROOM: Final = 800
#: From which revision on every ring of keys is authenticated.
_RING_AUTHENTICATED: Final = "0005"
#: Whose records only operators change, which may take rights away.
_OF_OPERATORS: Final = frozenset({Kind.CLIENT, Kind.KEY_RING})

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Writing:
    """What one transaction does: it looks at what it stands on, takes one with what falls with it, puts and changes."""

    put: Sequence[Record] = ()
    changes: Sequence[Change] = ()
    standing_on: Sequence[Fitting] = ()
    take: tuple[Kind, str, int | None] | None = None
    falling: Sequence[Fitting] = ()
    ending: bool = False

    @property
    def leaves(self) -> int | None:
        """See `_in_room`."""
        if self.ending:
            return HALF
        # A change of a client may take rights away; the ring is replaced, and what is noted beside it can wait.
        by_operator = all(change.kind is Kind.CLIENT for change in self.changes)
        takes_away = not self.put and by_operator and (self.take is not None or bool(self.changes))
        return 0 if takes_away else None


class _NotThere(Exception):
    """There is nothing to take."""


class _Left(NotStanding):
    """There is nothing to change, or it is left as it is."""


class _Outrun(Exception):
    """Somebody else has changed the record since it was read."""


#: What the table of revisions says, with the revision behind it, while a copy into the database is under way.
COPYING: Final = "copying-"


class Database(Driver, Sweepable, Protocol):
    """What differs between the databases."""

    #: The statement that begins a transaction that sees one moment, and writes nothing.
    begin_snapshot: str

    def exists(self) -> bool:
        """Whether there is something to connect to, as far as that is known here."""
        ...

    def connect_patiently(self) -> Any:
        """As `connect`, without a time in which an answer has to come."""
        ...

    def insert_rows(self, connection: Any, schema: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows, with every column of the table in its order."""
        ...

    def find_schema(self, run: Run, known: str | None) -> str | None:
        """The schema that holds the tables; empty where there is but one, None while they are nowhere.

        Args:
            run: asks the database.
            known: where they were before; of several it is the first that is looked at.
        """
        ...

    def write_refusal(self, run: Run, schema: str) -> StoreUnavailable | None:
        """See `storage.interface.Store.write_refusal`."""
        ...

    #: For what is written.
    room: Room

    def check_revocable(self, connections: KeptConnections) -> None:
        """See `Store.check_revocable`; nothing that takes time."""
        ...

    def engine(self) -> Engine:
        """A new engine, which keeps no connection and writes parameters by name."""
        ...

    def migration_lock(self) -> contextlib.AbstractContextManager[None]:
        """Held around a migration, besides `lock_schema`."""
        ...

    def lock_schema(self, connection: Connection) -> None:
        """Wait, in the migration's transaction, until no other process migrates; then work where the tables are."""
        ...


def _in_room(*, leaves: int | None) -> Callable[[Callable[_Given, _Result]], Callable[_Given, _Result]]:
    """Run a verb in the room that there is for it.

    Args:
        leaves: of what takes away, which draws from the reserve where the disk is full: how many portions of it are not
            for this one. None: it stores more, which is refused where room is short.
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
    """`storage.interface.Store` on a SQL database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connections = KeptConnections(database)
        self._schema: str | None = None
        self._statements = Statements(database.engine().dialect, self._known_schema)
        self._text = self._statements.text
        self._sweeper = Sweeper(self._connections, database, self._text)

    # --- reads ---

    def get(self, kind: Kind, id_hash: str, *, now: int) -> Record | None:
        """See `Store.get`."""
        sql = self._text(statements.select_one, kind)
        rows = self._connections.read(sql, {"wanted": id_hash, "now": now})
        return _record(kind, rows[0]) if rows else None

    def list(
        self, kind: Kind, *, subject: str | None = None, session_id: str | None = None, now: int
    ) -> list[Record]:
        """See `Store.list`."""
        fitting = _given(subject=subject, session_id=session_id)
        if not _can_fit(fitting):
            return []
        sql = self._text(statements.select_fitting, kind, tuple(fitting))
        return [_record(kind, row) for row in self._connections.read(sql, {**fitting, "now": now})]

    def schema_state(self) -> Literal["current", "behind", "ahead", "copying"]:
        """See `Store.schema_state`."""
        return self._schema_state(self._connections.read)

    @property
    def database(self) -> Database:
        """The database itself, for who copies all of it."""
        return self._database

    def exists(self) -> bool:
        """Whether there is a database."""
        return self._database.exists()

    def has_tables(self) -> bool:
        """Whether the database has tables of ours, of any version."""
        return self._database.find_schema(self._connections.read, None) is not None

    def schema_name(self) -> str:
        """The schema of the tables; empty where there is but one."""
        return self._known_schema()

    def compiled(self, statement: ClauseElement) -> str:
        """The text of a statement on whole tables."""
        return self._statements.compiled(statement)

    def write_refusal(self) -> StoreUnavailable | None:
        """See `Store.write_refusal`."""
        return self._database.write_refusal(self._connections.read, self._known_schema())

    def _known_schema(self) -> str:
        """Where the tables are: looked for once, so that it does not depend on a session of the server."""
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
            self._sweeper.begin(now)
        try:
            self._write(_Writing(records, changes, standing_on, ending=ending), now)
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
        writing = _Writing(put, changes, standing_on, take=(kind, id_hash, version), falling=falling)
        try:
            taken, _ = self._write(writing, now)
        except _NotThere:
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
            _, (changed,) = self._write(_Writing(changes=[change], standing_on=standing_on), now)
        except _Left:
            return None
        return changed

    def swap(self, record: Record, *, ending: bool = False, now: int) -> bool:
        """See `Store.swap`."""
        sql = self._text(statements.swap_one, record.kind)
        values = {**_row(record), "wanted": record.id_hash, "known_version": record.version, "now": now}
        return self.in_room(lambda: bool(self._connections.write(sql, values)), leaves=0 if ending else None)

    @tried_again
    def replace(self, kind: Kind, id_hash: str, successor: Record, *, now: int) -> bool:
        """See `Store.replace`."""
        sql = self._text(statements.update_one, kind)
        values = {"wanted": id_hash, "now": now, **_row(successor)}

        def work() -> bool:
            with self._connections.transaction() as run:
                return bool(run(sql, values))

        return self.in_room(work, leaves=0 if kind in _OF_OPERATORS else None)

    @tried_again
    @_in_room(leaves=0)
    def delete(self, *fitting: Fitting, without_tokens: Sequence[Fitting] = (), now: int) -> int:
        """See `Store.delete`."""
        with self._connections.transaction() as run:
            counts = [self._deleted(run, each, now) for each in fitting]
            for each in without_tokens:
                said = each.said()
                if _can_fit(said):
                    sql = self._text(statements.empty_fitting, each.kind, tuple(said))
                    run(sql, {**said, "tokens": b"", "now": now})
        return counts[0]

    def _deleted(self, run: Run, fitting: Fitting, now: int) -> int:
        said = fitting.said()
        if not _can_fit(said):
            return 0
        return len(
            run(self._text(statements.delete_fitting, fitting.kind, tuple(said)), {**said, "now": now})
        )

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
        count, largest = map(int, row)  # sums are no integers everywhere
        if count <= most and largest <= most_of_one:
            return 0
        # Nobody waits while it is found out which go; they go in the order of their ids, so that two do not cross.
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
            return sum(len(run(sql, {"wanted": id_hash})) for id_hash in ids)

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
        """Return room that is no longer needed to the file system, all of it: for a command, not for a request."""
        while self._database.give_back(self._connections, within_s=0.5):
            time.sleep(0.05)  # those who wait for the file come first, and a service that does the same

    def check_revocable(self) -> None:
        """See `Store.check_revocable`."""
        self._database.check_revocable(self._connections)

    def keep_room(self) -> None:
        """Keep room for what takes away, from now on, here and in forks: for a service, not for a command."""
        self._database.room.keep()

    # --- one transaction ---

    def _write(self, writing: _Writing, now: int) -> tuple[Record | None, tuple[Record, ...]]:
        """All of it or nothing: what was taken, and what was changed, as it is now."""
        return self.in_room(lambda: self._decide_and_write(writing, now), leaves=writing.leaves)

    def _decide_and_write(self, writing: _Writing, now: int) -> tuple[Record | None, tuple[Record, ...]]:
        # Decided outside every lock, for the first attempt; who lost decides again, where nobody else can be faster.
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
                    return taken, tuple(wanted for _, wanted in decided)
            except Conflict:
                if not inserted:
                    raise
            except _Outrun:
                pass
        raise Contended

    def _check_standing(self, run: Run, standing_on: Sequence[Fitting], now: int) -> None:
        for each in standing_on:
            said = each.said()
            sql = self._text(statements.select_standing, each.kind, tuple(said))
            if not _can_fit(said) or not run(sql, {**said, "now": now}):
                raise NotStanding

    def _taken(self, run: Run, writing: _Writing, now: int) -> Record | None:
        if writing.take is None:
            return None
        kind, id_hash, version = writing.take
        said: dict[str, str | int] = {"wanted": id_hash}
        if version is not None:
            said["known_version"] = version
        rows = run(self._text(statements.delete_one, kind, tuple(said)), {**said, "now": now})
        if not rows:
            raise _NotThere
        for each in writing.falling:
            self._deleted(run, each, now)
        return _record(kind, rows[0])

    def _decided(
        self, run: Run, change: Change, now: int, *, lock: bool = False
    ) -> tuple[Record | None, Record]:
        """The record that is known by that id, live or not, and what it becomes."""
        statement = statements.select_to_change if lock else statements.select_known
        rows = run(self._text(statement, change.kind), {"wanted": change.id_hash})
        known = _record(change.kind, rows[0]) if rows else None
        given = known if known is not None and known.expires_at > now else change.new
        wanted = None if given is None else change.decide(given)
        if wanted is None:
            raise _Left
        if known is not None and wanted is known:  # it is content with it as it is
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
        values = {"wanted": known.id_hash, "known_version": known.version, **_row(wanted)}
        if not run(self._text(statements.update_known, wanted.kind), values):
            raise _Outrun

    # --- the schema ---

    @tried_again
    def migrate(self, ring_of_before: RingOfBefore | None = None) -> None:
        """See `Store.migrate`. It is one transaction: where it gave way to a request, it is run again."""
        from alembic import command  # 0.3 s of imports that serving does not need
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option(
            "script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%")
        )
        with self._database.migration_lock(), self._migration() as connection:
            self._database.lock_schema(connection)

            def run(sql: str, values: Mapping[str, Any]) -> list[Any]:
                return list(connection.exec_driver_sql(sql, dict(values)))

            state, before = self._schema_state(run), self._revisions(run)
            if state == "copying":
                raise StoreRefused(
                    "a copy into the database is not finished", "run the same pylon-oidc store copy again"
                )
            if state == "ahead":  # a newer version was here: nothing is left to do
                return
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError:
                raise StoreRefused(
                    "its table alembic_version is another program's", "give the service a database of its own"
                ) from None
            if ring_of_before is not None and before and before[0] < _RING_AUTHENTICATED:
                self._adopt(run, ring_of_before)

    def _adopt(self, run: Run, ring_of_before: RingOfBefore) -> None:
        """Replace a record of the ring of keys; the tables have just been migrated, which nobody does twice."""
        self._schema_state(run)  # where the tables are now
        sql = self._text(statements.select_fitting, Kind.KEY_RING, ())
        found = [_record(Kind.KEY_RING, row) for row in run(sql, {"now": 0})]
        if successor := ring_of_before(found):
            known, wanted = successor
            run(self._text(statements.update_one, Kind.KEY_RING), {"wanted": known, "now": 0, **_row(wanted)})

    @contextlib.contextmanager
    def _migration(self) -> Iterator[Connection]:
        try:
            with self._database.engine().begin() as connection:
                yield connection
        except DBAPIError as error:
            if error.orig is not None and self._database.gave_way(error.orig):
                raise GaveWay from error.orig
            if error.orig is not None and (outage := self._database.outage(error.orig)):
                raise outage from error.orig
            raise

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
        """What the tables say that their revision is, where the schema was found."""
        if self._schema is None:
            return ()
        return tuple(str(revision) for (revision,) in run(self._statements.revisions(), {}))

    def _insert(self, run: Run, records: Iterable[Record]) -> None:
        for record in records:
            run(self._text(statements.insert_one, record.kind), _row(record))

    def close(self) -> None:
        """See `Store.close`."""
        self._sweeper.end()
        self._connections.close()


def _with_room(most: int) -> int:
    """A sixteenth less: finding out what goes reads the whole table, which is not to be done each time."""
    return most - most // 16


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _can_fit(values: Mapping[str, Any]) -> bool:
    # PostgreSQL takes no NUL in text, so that nothing stored has one: it fits nothing.
    return not any(isinstance(value, str) and "\0" in value for value in values.values())


def _encode(record: Record) -> str:
    body = json.dumps(record.body, separators=(",", ":"))
    return body.ljust(_GRANT_ROOM - len(record.tokens)) if record.kind is Kind.GRANT else body


def _row(record: Record) -> dict[str, Any]:
    return {
        "id_hash": record.id_hash,
        "expires_at": record.expires_at,
        "subject": record.subject,
        "grant_id": record.grant_id,
        "session_id": record.session_id,
        "body": _encode(record),
        "client_id": record.client_id,
        "version": record.version,
        "outlives_session": record.outlives_session,
        "tokens": record.tokens,
    }


#: The columns of each kind, as its statements return them.
_READ: Final = {
    kind: tuple(column.name for column in statements.columns(table)) for kind, table in TABLES.items()
}


def _record(kind: Kind, row: tuple[Any, ...]) -> Record:
    values = dict(zip(_READ[kind], row, strict=True))
    values["body"] = json.loads(values["body"])
    if kind is Kind.GRANT:  # a database without truth values has numbers
        values["outlives_session"] = bool(values["outlives_session"])
    return Record(kind, **values)
