"""Keeps one connection for each thread. The store runs all statements through it.

Owns: when a connection is opened and closed, and what an error of the driver means.
Never touches: the content of statements.

A connection is opened only when it is needed, so none is shared across a fork.
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
#: Runs a statement with named values, and returns its rows.
Run = Callable[[str, Mapping[str, Any]], Rows]
#: How often a statement or transaction that lost is tried, and how long it waits before the second attempt, in s.
ATTEMPTS: Final = 6
_WAIT_S: Final = 0.005
#: After a write has waited in vain for the whole limit, the next ones wait only this long, in s, so that all waiting
#: requests get an answer soon. The normal limit applies again after the first success, or after a while.
_HURRIED_S: Final = 0.25
_HURRY_FOR_S: Final = 5.0
#: A wait for the turn this short is not subtracted from the wait for the database.
_UNNOTICED_S: Final = 0.05

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Driver(Protocol):
    """What differs between the drivers."""

    #: The statement that starts a transaction that will write.
    begin: str
    #: How long a write may wait for others, in s: for its turn and for the database's lock together.
    patience_s: float

    @property
    def conflict(self) -> type[Exception]:
        """The driver's exception for a row whose id already exists."""
        ...

    def connect(self) -> Any:
        """Open a DBAPI connection in autocommit mode, with named parameters."""
        ...

    def is_stale(self, connection: Any) -> bool:
        """Whether the connection no longer reaches the database."""
        ...

    def turn(self, within_s: float) -> contextlib.AbstractContextManager[object]:
        """Held during a write, if only one may write at a time. Writers queue for at most that long."""
        ...

    def set_patience(self, connection: Any, patience_s: float) -> None:
        """Set how long the statements of the connection may wait for others."""
        ...

    def waited_in_vain(self, error: BaseException | None) -> bool:
        """Whether the driver's error means that others were writing during the whole wait."""
        ...

    def outage(self, error: BaseException) -> StoreUnavailable | None:
        """The exception for a driver's error that means that the database is unavailable; None for other errors."""
        ...

    def gave_way(self, error: BaseException) -> bool:
        """Whether the driver's error means that this transaction lost against another one and was rolled back."""
        ...


class Conflict(Exception):
    """A record of that id already exists. The transaction was rolled back."""


class GaveWay(Contended):
    """The transaction lost against another one and was rolled back. It may run again."""


def tried_again(verb: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Run a verb again, a few times, if one of its transactions lost against another.

    Raises:
        StoreUnavailable: if all attempts lost.
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
            StoreUnavailable: if the database is unavailable.
        """
        return self._begun(sql, values)[1]

    @tried_again
    def write(self, sql: str, values: Mapping[str, Any]) -> int:
        """Run one statement that changes something, in its own transaction. Returns how many rows it changed.

        It runs only once: if its answer is lost, it is unknown whether it was done.

        Raises:
            StoreUnavailable: if the database is unavailable.
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
        """Run all statements of a block, or none. It is committed at the end, and rolled back by any exception.

        Raises:
            StoreUnavailable: if the database is unavailable, or others write for too long; `GaveWay` if the block may
                run again.
            Conflict: if an id already exists.
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
        """Held during a write. Yields how long it may still wait for others, in s; None for the connection's own limit."""
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
        """Close this thread's connection. Other threads close theirs when they next need one."""
        self._generation += 1
        self._drop()

    def current(self) -> Any:
        """The connection of this thread, or None, for questions that need no statement."""
        return getattr(self._kept, "connection", None)

    def let_go(self) -> None:
        """Close only this thread's connection."""
        self._drop()

    def _begun(
        self, sql: str, values: Mapping[str, Any], patience_s: float | None = None
    ) -> tuple[Any, Rows]:
        """Run a first statement. It follows nothing and changes nothing, so it may run again."""
        try:
            connection = self._connection(patience_s)
            try:
                return connection, _rows(connection.execute(sql, values))
            except Exception as error:
                if self._driver.gave_way(error):  # a single statement: there is nothing to roll back
                    raise GaveWay from error
                self._drop()
                # The connection may have died with an earlier server: try a new one, once. Nobody waits twice.
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
        """The connection of this thread. Its statements wait that long for others; None for the default."""
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
        except Exception:  # close it instead: the database rolls back what was not committed
            self._drop()


def _rows(cursor: Any) -> Rows:
    # Read all of them: a statement that returns rows only ends when they are read.
    rows: Rows = cursor.fetchall() if cursor.description else []
    return rows
