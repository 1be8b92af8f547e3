"""SQLite: the embedded default, for one machine.

WAL, so that readers and the writer do not wait for each other; `synchronous=FULL`, so that a revocation that was
answered for survives a power cut; `BEGIN IMMEDIATE`, so that a transaction that will write never has to give up
halfway. The file is never made by serving, only by a migration: a database that was taken away is an outage, not a
new and empty one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from service.storage.interface import StoreUnavailable

BUSY_TIMEOUT_S: Final = 5


class SqliteDatabase:
    """`storage.sql.Database` on one file."""

    begin = "BEGIN IMMEDIATE"
    conflict = sqlite3.IntegrityError
    has_revision = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._uri = f"file:{quote(str(self._path))}?mode=rw"

    def engine(self) -> Engine:
        """See `storage.sql.Database.engine`."""
        engine = create_engine(
            "sqlite://",
            creator=self.connect,
            poolclass=NullPool,
            paramstyle="named",
            hide_parameters=True,
        )
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(self.begin))
        return engine

    def is_stale(self, connection: Any) -> bool:
        """See `storage.kept.Driver.is_stale`: whether the file was moved or replaced under the connection."""
        return bool(connection.file != self._identity())

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - per request, and twice as fast
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def connect(self) -> _Connection:
        """See `storage.kept.Driver.connect`."""
        # Before the file is opened: one that is replaced in between is found stale, never read for ever.
        identity = self._identity()
        # Autocommit; what needs a transaction begins it in words.
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
            connection.file = identity
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def migration_lock(self) -> Iterator[None]:
        """See `storage.sql.Database.migration_lock`: makes folder and file, turns WAL on."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            try:
                with contextlib.closing(self.connect()) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.DatabaseError as error:
                raise StoreUnavailable from error
            yield
        finally:
            os.close(lock)

    def lock_schema(self, connection: Connection) -> None:
        """See `storage.sql.Database.lock_schema`: `BEGIN IMMEDIATE` has done it."""

    def is_outage(self, error: BaseException) -> bool:
        """See `storage.kept.Driver.is_outage`: every error that is about the file."""
        return isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)
        )

    def gave_way(self, _error: BaseException) -> bool:
        """See `storage.kept.Driver.gave_way`: a writer has the file to itself from its beginning."""
        return False


class _Connection(sqlite3.Connection):
    """A connection that remembers which file it has open."""

    file: tuple[int, int] | None = None
