"""Standing beside the store as it runs a statement: to hang there, so that a test can kill the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.storage.postgres import PostgresDatabase
from service.storage.sqlite import SqliteDatabase

Watch = Callable[[str], None]


class _Watched:
    """A connection that tells of each statement."""

    def __init__(self, connection: Any, before: Watch, after: Watch) -> None:
        self._connection, self._before, self._after = connection, before, after

    def execute(self, sql: str, *values: Mapping[str, Any]) -> Any:
        self._before(sql)
        cursor = self._connection.execute(sql, *values)
        self._after(sql)
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def watch(*, before: Watch = lambda _: None, after: Watch = lambda _: None) -> None:
    """Call these from now on, in this process, with each statement that a store runs outside a migration."""
    for database in (SqliteDatabase, PostgresDatabase):

        def connect(self: Any, plain: Callable[[Any], Any] = database.connect) -> Any:
            return _Watched(plain(self), before, after)

        database.connect = connect
