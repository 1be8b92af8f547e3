"""The interface of a database: everything in which SQLite and PostgreSQL differ."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from service.storage.interface import StoreUnavailable
from service.storage.kept import Driver, KeptConnections, Run
from service.storage.reserve import Room
from service.storage.schema import Table
from service.storage.sweeping import Sweepable

if TYPE_CHECKING:  # only a migration loads it
    from sqlalchemy import Engine


class Database(Driver, Sweepable, Protocol):
    """What differs between the databases."""

    #: The statement that starts a read-only transaction on one snapshot.
    begin_snapshot: str

    def exists(self) -> bool:
        """Whether there is a database to connect to, as far as that is known here."""
        ...

    def connect_patiently(self) -> Any:
        """Like `connect`, without a time limit for answers."""
        ...

    def insert_rows(self, connection: Any, schema: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows, with all columns of the table in its order."""
        ...

    def find_schema(self, run: Run, known: str | None) -> str | None:
        """The schema of the tables; empty if the database has only one, None if there are no tables.

        Args:
            run: runs a statement.
            known: the schema where they were before, which is tried first.
        """
        ...

    def write_refusal(self, run: Run, schema: str) -> StoreUnavailable | None:
        """See `storage.interface.Store.write_refusal`."""
        ...

    #: Room for writes.
    room: Room

    def check_revocable(self, connections: KeptConnections) -> None:
        """See `Store.check_revocable`. It must take no time."""
        ...

    def spelled(self, sql: str) -> str:
        """A statement of `storage.statements` as this database writes it."""
        ...

    def engine(self) -> Engine:
        """A new engine for a migration, without a connection pool. Its connections wait as long as needed for an answer."""
        ...

    def create_tables(self, connections: KeptConnections) -> bool:
        """Create all tables of a new database at once, as the migrations leave them. Returns whether that was done."""
        ...

    def migration_lock(self) -> contextlib.AbstractContextManager[None]:
        """Held during a migration, in addition to `lock_schema`."""
        ...

    def lock_schema(self, run: Run) -> None:
        """Wait, in the migration's transaction, until no other process migrates. Then use the schema of the tables."""
        ...
