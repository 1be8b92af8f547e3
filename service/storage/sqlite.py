"""SQLite: the embedded default, for one machine.

WAL, so that readers and the writer do not wait for each other; `synchronous=FULL`, so that a confirmed revocation
survives a power cut; `BEGIN IMMEDIATE`, so that a transaction that will write never has to give up halfway. Only a
migration creates the file: if the database is missing, that is an outage, not a reason to start with an empty one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from service.storage.interface import StoreRefused, StoreUnavailable
from service.storage.kept import KeptConnections, Run
from service.storage.reserve import Reserve, Room
from service.storage.schema import FIRST, Table
from service.storage.statements import LOCKS
from service.storage.turn import Turn

if TYPE_CHECKING:
    from sqlalchemy import Engine

BUSY_TIMEOUT_S: Final = 5
#: The write-ahead log is truncated to this size in bytes once all of it is in the database: SQLite's normal maximum.
_LOG_BYTES: Final = 4 << 20
#: Free pages that stay in the file for later use: 1 MiB of them, or a quarter of the file.
_FREE_PAGES: Final = 256


class SqliteDatabase:
    """`storage.database.Database` on one file."""

    begin = "BEGIN IMMEDIATE"
    begin_snapshot = "BEGIN"
    conflict = sqlite3.IntegrityError
    patience_s = float(BUSY_TIMEOUT_S)

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._name = str(self._path)
        self._uri = f"file:{quote(str(self._path))}?mode=rw"
        self._reserve = Reserve(self._path)
        self.room: Room = self._reserve
        self._turn = Turn(self._path)

    def spelled(self, sql: str) -> str:
        """See `storage.database.Database.spelled`: without locks of rows, because one transaction writes at a time."""
        for lock in LOCKS:
            sql = sql.replace(lock, "")
        return sql

    def engine(self) -> Engine:
        """See `storage.database.Database.engine`."""
        from sqlalchemy import create_engine, event
        from sqlalchemy.pool import NullPool

        engine = create_engine(
            "sqlite://", creator=self.connect, poolclass=NullPool, paramstyle="named", hide_parameters=True
        )
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(self.begin))
        return engine

    def is_stale(self, connection: Any) -> bool:
        """See `storage.kept.Driver.is_stale`: whether the file was moved or replaced under the connection."""
        return bool(connection.file != self._identity())

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._name)  # noqa: PTH116 - per request, and twice as fast
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def connect(self) -> _Connection:
        """See `storage.kept.Driver.connect`."""
        # Before the file is opened: if it is replaced in between, it counts as stale, and is not read forever.
        identity = self._identity()
        # Autocommit: transactions are started explicitly.
        connection = sqlite3.connect(
            self._uri,
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
            connection.file = identity
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def migration_lock(self) -> Iterator[None]:
        """See `storage.database.Database.migration_lock`: creates the folder and the file, and turns WAL on."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileExistsError):
                # Only a new file: to close an existing one would drop the locks that SQLite has on it in this process.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with self._turn.taken(BUSY_TIMEOUT_S):
                try:
                    with contextlib.closing(self.connect()) as connection:
                        # Only a file without tables accepts this setting. Free pages can then be cut off the file.
                        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
                        connection.execute("PRAGMA journal_mode=WAL")
                except sqlite3.DatabaseError as error:
                    raise StoreUnavailable(str(error)) from error
                yield
        finally:
            os.close(lock)

    def lock_schema(self, _run: Run) -> None:
        """See `storage.database.Database.lock_schema`: `BEGIN IMMEDIATE` has done it."""

    def create_tables(self, connections: KeptConnections) -> bool:
        """See `storage.database.Database.create_tables`: if the file is empty."""
        with connections.transaction() as run:
            if run("SELECT name FROM sqlite_master LIMIT 1", {}):
                return False
            for sql in Path(__file__).with_name("tables.sql").read_text().split(";\n"):
                run(sql, {})
        return True

    @contextlib.contextmanager
    def sweeping_turn(self) -> Iterator[bool]:
        """See `storage.sweeping.Sweepable.sweeping_turn`: one process sweeps at a time, and none during a migration."""
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # no room in the folder, or another user's lock: the database's own lock is enough
            yield True
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def prepare_sweep(self, connections: KeptConnections) -> None:
        """See `storage.sweeping.Sweepable.prepare_sweep`."""
        connections.read("PRAGMA wal_autocheckpoint=0", {})

    def write_back(self, connections: KeptConnections) -> None:
        """See `storage.sweeping.Sweepable.write_back`: as much as no reader still needs."""
        connections.read("PRAGMA wal_checkpoint(PASSIVE)", {})

    def give_back(self, connections: KeptConnections, *, within_s: float) -> bool:
        """See `storage.sweeping.Sweepable.give_back`: cuts free pages off the file."""
        until = time.monotonic() + within_s
        free, pages = _number(connections, "freelist_count"), _number(connections, "page_count")
        surplus = free - max(_FREE_PAGES, pages // 4)
        if surplus <= 0 or _number(connections, "auto_vacuum") != 2:
            # A reader may have kept the file from shrinking until now.
            if pages * _number(connections, "page_size") < os.stat(self._name).st_size:  # noqa: PTH116 - as above
                self.write_back(connections)
            self._shorten_log(connections)
            return False
        with self.sweeping_turn() as is_ours, connections.transaction() as run:
            while is_ours and surplus > 0 and time.monotonic() < until:
                run("PRAGMA incremental_vacuum(1)", {})
                surplus -= 1
        # The file shrinks when the write-ahead log is written to it, without waiting for anyone.
        self.write_back(connections)
        if surplus <= 0:
            self._shorten_log(connections)
        return surplus > 0

    def _shorten_log(self, connections: KeptConnections) -> None:
        """Truncate the write-ahead log if it has grown during a long read, or room is short; but not while it is in use."""
        most = 0 if self.room.is_short() else _LOG_BYTES + (1 << 20)
        try:
            if os.stat(f"{self._path}-wal").st_size <= most:  # noqa: PTH116
                return
        except OSError:
            return
        connections.read("PRAGMA busy_timeout=0", {})
        try:
            connections.read("PRAGMA wal_checkpoint(TRUNCATE)", {})
        finally:
            connections.read(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000}", {})

    def check_revocable(self, connections: KeptConnections) -> None:
        """See `storage.database.Database.check_revocable`: checks the reserve."""
        self._reserve.check_giving_out()

    def turn(self, within_s: float) -> contextlib.AbstractContextManager[object]:
        """See `storage.kept.Driver.turn`."""
        return self._turn.taken(within_s)

    def set_patience(self, connection: Any, patience_s: float) -> None:
        """See `storage.kept.Driver.set_patience`."""
        connection.execute(f"PRAGMA busy_timeout={int(patience_s * 1000)}")

    def waited_in_vain(self, error: BaseException | None) -> bool:
        """See `storage.kept.Driver.waited_in_vain`."""
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY

    def outage(self, error: BaseException) -> StoreUnavailable | None:
        """See `storage.kept.Driver.outage`: every error that is about the file."""
        if not isinstance(error, sqlite3.DatabaseError):
            return None
        if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)):
            return None
        return StoreUnavailable(str(error))

    def exists(self) -> bool:
        """See `storage.database.Database.exists`."""
        return self._path.exists()

    def connect_patiently(self) -> _Connection:
        """See `storage.database.Database.connect_patiently`."""
        return self.connect()

    def insert_rows(self, connection: Any, _schema: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See `storage.database.Database.insert_rows`."""
        names = (*table.columns, *table.unused)
        values = ", ".join("?" * len(names))
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})", rows)  # noqa: S608

    def find_schema(self, run: Run, _known: str | None) -> str | None:
        """See `storage.database.Database.find_schema`: a file has one."""
        tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'", {})}
        return "" if tables.issuperset(FIRST) else None

    def write_refusal(self, _run: Run, _schema: str) -> StoreUnavailable | None:
        """See `storage.database.Database.write_refusal`: the file, and the folder of its log."""
        for path in (self._path, self._path.parent):
            if not os.access(path, os.W_OK):
                return StoreRefused(f"{path.name} cannot be written", "give the service's user its rights")
        return None

    def gave_way(self, _error: BaseException) -> bool:
        """See `storage.kept.Driver.gave_way`: never, because a writer has the file for itself from the start."""
        return False


class _Connection(sqlite3.Connection):
    """A connection that remembers which file it has open."""

    file: tuple[int, int] | None = None


def _number(connections: KeptConnections, pragma: str) -> int:
    return int(connections.read(f"PRAGMA {pragma}", {})[0][0])
