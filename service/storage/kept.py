"""One connection a thread, kept: the one way in which the store runs a statement.

Owns: when a connection is opened, when it is given up, what an error of the driver means.
Never touches: what the statements say.

No connection is opened before it is needed, so none crosses a fork.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from service.storage.interface import Contended, StoreUnavailable

Rows = list[tuple[Any, ...]]
#: Runs a statement with the values that it names; the rows that it returns.
Run = Callable[[str, Mapping[str, Any]], Rows]
#: How often a statement or a transaction is tried that gave way to others, and how long it then waits the first time, in s.
ATTEMPTS: Final = 6
_WAIT_S: Final = 0.005
#: When a write has waited in vain for as long as one may, the next ones wait for this long, in s: so that all who came
#: meanwhile are told soon. It ends with the first that gets through, or after a while, when one may wait long again.
_HURRIED_S: Final = 0.25
_HURRY_FOR_S: Final = 5.0
#: A wait for one's turn that is not taken off the wait for the database.
_UNNOTICED_S: Final = 0.05

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Driver(Protocol):
    """What differs between the drivers."""

    #: The statement that begins a transaction that will write.
    begin: str
    #: How long a write may wait for others, in s: for its turn and for the database's lock, together.
    patience_s: float

    @property
    def conflict(self) -> type[Exception]:
        """What the driver raises for a row whose id is there already."""
        ...

    def connect(self) -> Any:
        """A new DBAPI connection in autocommit mode, whose statements name their values."""
        ...

    def is_stale(self, connection: Any) -> bool:
        """Whether the connection no longer leads to the database."""
        ...

    def turn(self, within_s: float) -> contextlib.AbstractContextManager[object]:
        """Around what is written, where one writes at a time: the writers queue, for that long at most."""
        ...

    def set_patience(self, connection: Any, patience_s: float) -> None:
        """Let the statements of the connection wait for others for so long."""
        ...

    def waited_in_vain(self, error: BaseException | None) -> bool:
        """Whether the driver's error says that others have been writing for all that time."""
        ...

    def outage(self, error: BaseException) -> StoreUnavailable | None:
        """What to raise for a driver's error that says that the database cannot be asked; None for every other one."""
        ...

    def gave_way(self, error: BaseException) -> bool:
        """Whether the driver's error says that this lost against another transaction: nothing of it was kept."""
        ...


class Conflict(Exception):
    """A record of that id is there already; nothing of the transaction was kept."""


class GaveWay(Contended):
    """The transaction lost against another one. Nothing of it was kept: it may be run again."""


def tried_again(verb: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Run a verb of transactions again when one of them gave way, a few times.

    Raises:
        StoreUnavailable: when it always did.
    """

    @functools.wraps(verb)
    def run(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        for attempt in range(1, ATTEMPTS):
            try:
                return verb(*args, **kwargs)
            except GaveWay:
                time.sleep(_WAIT_S * attempt)
        return verb(*args, **kwargs)

    return run


class KeptConnections:
    """The connections of this process."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._kept = threading.local()
        self._generation = 0
        self._hurry_until = 0.0

    @tried_again
    def read(self, sql: str, values: Mapping[str, Any]) -> Rows:
        """Run one statement that changes nothing.

        Raises:
            StoreUnavailable: when the database cannot be asked.
        """
        return self._begun(sql, values)[1]

    @tried_again
    def write(self, sql: str, values: Mapping[str, Any]) -> int:
        """Run one statement that changes something, in a transaction of its own; how many rows it changed.

        It is run once: where its answer is lost, nobody knows whether it was done.

        Raises:
            StoreUnavailable: when the database cannot be asked.
        """
        with self._in_turn() as patience_s:
            try:
                count: int = self._connection(patience_s).execute(sql, values).rowcount
                return count
            except BaseException as error:
                if self._driver.gave_way(error):
                    raise GaveWay from error
                self._drop()
                if outage := self._driver.outage(error):
                    raise outage from error
                raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Run]:
        """All statements of a block, or none: it is committed at its end, and undone by any exception.

        Raises:
            StoreUnavailable: when the database cannot be asked, or others write for too long; `GaveWay` when the block
                may be run again.
            Conflict: when an id was taken.
        """
        with self._in_turn() as patience_s:
            connection, _ = self._begun(self._driver.begin, {}, patience_s)
            try:
                yield lambda sql, values: _rows(connection.execute(sql, values))
                connection.execute("COMMIT")
            except BaseException as error:
                if self._driver.gave_way(error):
                    self._roll_back(connection)
                    raise GaveWay from error
                if outage := self._driver.outage(error):
                    self._drop()
                    raise outage from error
                self._roll_back(connection)
                if isinstance(error, self._driver.conflict):
                    raise Conflict from error
                raise

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[float | None]:
        """Around what is written: how long it may still wait for others, in s; None: as long as its connection does."""
        full_s, began = self._driver.patience_s, time.monotonic()
        is_hurried = began < self._hurry_until
        patience_s = _HURRIED_S if is_hurried else full_s
        with self._driver.turn(patience_s):
            left_s = max(0.0, began + patience_s - time.monotonic())
            is_short = left_s < full_s - _UNNOTICED_S
            try:
                yield left_s if is_short else None
            except StoreUnavailable as error:
                if not is_hurried and self._driver.waited_in_vain(error.__cause__):
                    self._hurry_until = time.monotonic() + _HURRY_FOR_S
                raise
            finally:
                if is_short and (kept := self.current()) is not None:
                    self._driver.set_patience(kept, full_s)
            self._hurry_until = 0.0

    def close(self) -> None:
        """Let go of this thread's connection; other threads let go of theirs when they next need one."""
        self._generation += 1
        self._drop()

    def current(self) -> Any:
        """The connection of this thread, None where it has none; to be asked what costs no statement."""
        return getattr(self._kept, "connection", None)

    def let_go(self) -> None:
        """Let go of this thread's connection alone."""
        self._drop()

    def _begun(
        self, sql: str, values: Mapping[str, Any], patience_s: float | None = None
    ) -> tuple[Any, Rows]:
        """Run a first statement: nothing went before it and it changes nothing, so that it may be run again."""
        try:
            connection = self._connection(patience_s)
            try:
                return connection, _rows(connection.execute(sql, values))
            except Exception as error:
                if self._driver.gave_way(error):  # a statement of its own: there is nothing to roll back
                    raise GaveWay from error
                self._drop()
                # The connection may have died with the last database: a new one is tried, once. Nobody waits twice.
                is_lost = self._driver.outage(error) and self._driver.is_stale(connection)
                if not is_lost or isinstance(error, TimeoutError):
                    raise
            connection = self._connection(patience_s)
            return connection, _rows(connection.execute(sql, values))
        except GaveWay:
            raise
        except Exception as error:
            self._drop()
            if outage := self._driver.outage(error):
                raise outage from error
            raise

    def _connection(self, patience_s: float | None = None) -> Any:
        """The connection of this thread; its statements wait for others for so long. None: for as long as ever."""
        kept = self._kept
        connection = getattr(kept, "connection", None)
        if connection is None or kept.generation != self._generation or self._driver.is_stale(connection):
            self._drop()
            connection, kept.generation = self._driver.connect(), self._generation
            kept.connection = connection
        if patience_s is not None:
            self._driver.set_patience(connection, patience_s)
        return connection

    def _drop(self) -> None:
        connection = getattr(self._kept, "connection", None)
        self._kept.connection = None
        if connection is not None:
            connection.close()

    def _roll_back(self, connection: Any) -> None:
        try:
            connection.execute("ROLLBACK")
        except Exception:  # it is closed instead, and the database undoes what was not committed
            self._drop()


def _rows(cursor: Any) -> Rows:
    # All of them: a statement that returns rows is at its end when they were read, not before.
    rows: Rows = cursor.fetchall() if cursor.description else []
    return rows
