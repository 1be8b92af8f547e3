"""What a database is, for the store: where SQLite and PostgreSQL differ."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Table

from service.storage.interface import StoreUnavailable
from service.storage.kept import Driver, KeptConnections, Run
from service.storage.reserve import Room
from service.storage.sweeping import Sweepable


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
