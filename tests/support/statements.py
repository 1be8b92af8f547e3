"""Watching the store as it runs a statement: to hang there, so that a test can kill the process, or to stop
there, so that another connection does something in between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from service.storage.postgres import PostgresDatabase
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase

Watch = Callable[[str], None]
_Result = TypeVar("_Result")
#: Nothing that a test waits for takes so long, in s.
_LONG_S: Final = 30.0
#: Who has not gone on by then waits for a lock, in s.
_BLOCKED_S: Final = 0.3


class _Watched:
    """A connection that reports each statement, without the schema that PostgreSQL's tables are named with."""

    def __init__(self, connection: Any, before: Watch, after: Watch) -> None:
        self._connection, self._before, self._after = connection, before, after

    def execute(self, sql: str, *values: Mapping[str, Any]) -> Any:
        told = sql.replace('"public".', "")
        self._before(told)
        cursor = self._connection.execute(sql, *values)
        self._after(told)
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def watch(*, before: Watch = lambda _: None, after: Watch = lambda _: None) -> None:
    """Call these from now on, in this process, with each statement that a store runs outside a migration."""
    for database in (SqliteDatabase, PostgresDatabase):

        def connect(self: Any, plain: Callable[[Any], Any] = database.connect) -> Any:
            return _Watched(plain(self), before, after)

        database.connect = connect


def watch_store(store: SqlStore, before: Watch) -> None:
    """Call this from now on with each statement of one store, before it runs."""
    database: Any = store._database
    plain = database.connect
    database.connect = lambda: _Watched(plain(), before, lambda _: None)
    store.close()  # the next connection is a watched one


@contextmanager
def stopped(store: SqlStore, *, before: str, then: Callable[[], object], times: int = 1) -> Iterator[None]:
    """Within the block, do something else when the store is about to run a statement that begins so, so many times."""
    left = [times]

    def watcher(sql: str) -> None:
        if left[0] > 0 and sql.startswith(before):
            left[0] -= 1
            then()

    watch_store(store, watcher)
    yield
    assert left[0] < times, f"the store has run no {before}"
    left[0] = 0


class Call(Generic[_Result]):
    """Something that is done in a thread of its own, once it is started."""

    def __init__(self, call: Callable[[], _Result]) -> None:
        self._call = call
        self._results: list[_Result] = []
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._errors.append(error)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def waits(self) -> bool:
        """Whether it is held up."""
        self._thread.join(_BLOCKED_S)
        return self._thread.is_alive()

    def result(self) -> _Result:
        """What came of it, at its end; raises what it raised."""
        self._thread.join(_LONG_S)
        assert not self._thread.is_alive(), "it hangs"
        if self._errors:
            raise self._errors[0]
        return self._results[0]


def at_once(call: Callable[[], _Result]) -> Call[_Result]:
    """A call in a thread of its own, not begun."""
    return Call(call)
