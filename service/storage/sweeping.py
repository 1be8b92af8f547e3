"""Removes expired records in the background: one thread for each process, in short slices, on its own connection.

Owns: when the sweep runs, and how much it removes at once.
Never touches: records that requests use. Nothing waits for the sweep, and a failure is only logged.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from service.handles import first_grant_id
from service.storage import statements
from service.storage.interface import Kind, StoreUnavailable
from service.storage.kept import KeptConnections, Rows, tried_again
from service.storage.reserve import HALF, Room

#: How long one transaction may take, in s: on SQLite, other writers wait for it.
SLICE_S: Final = 0.02
#: The time a slice aims at without its commit: slices differ, and a commit takes the same time again or longer.
_AIM_S: Final = SLICE_S * 0.2
#: Grants have no index by their end. Every that many s, all of them are read. Every time, the newest are read, because
#: a code that was never redeemed leaves one behind; the ids contain the time of creation.
_WALK_EVERY_S: Final = 300.0
_NEWEST_S: Final = 600
#: How long the sweep rests after a slice, as a multiple of its time: it runs for a quarter of the time at most.
_REST: Final = 3
#: Seconds until the next check: if something had expired, and at most if nothing has for a while.
_SOON_S: Final = 5.0
_LATER_S: Final = 60.0
_FIRST_S: Final = 1.0
_FEWEST, _MOST = 50, 5000
#: After so many slices, the write-ahead log is written to the database.
_WRITE_BACK_AFTER: Final = 8

_log = structlog.get_logger("storage")


class Sweepable(Protocol):
    """What the sweep needs from a database."""

    #: Room for writes.
    room: Room

    def sweeping_turn(self) -> contextlib.AbstractContextManager[bool]:
        """Held during a slice and the rest after it. Yields whether it is this process's turn, without waiting."""
        ...

    def prepare_sweep(self, connections: KeptConnections) -> None:
        """Prepare the connection of the sweeping thread: its commits only append to the write-ahead log."""
        ...

    def write_back(self, connections: KeptConnections) -> None:
        """Write the write-ahead log to the database. Called while no transaction is open, so that no writer waits."""
        ...

    def give_back(self, connections: KeptConnections, *, within_s: float) -> bool:
        """Return a slice of unused space to the file system. Returns whether there may be more."""
        ...


class Sweeper:
    """Sweeps one store.

    Args:
        connections: the store's connections; the sweeping thread has its own.
        database: what differs between the databases.
        text: makes a statement on the table of a kind.
    """

    def __init__(self, connections: KeptConnections, database: Sweepable, text: Callable[..., str]) -> None:
        self._connections = connections
        self._database = database
        self._text = text
        self._limits = dict.fromkeys(Kind, _FEWEST)
        self._walk_at = 0.0
        self._walked: str | None = None
        self._slices = 0
        self._told = (0, 0.0)
        self._starting = threading.Lock()
        #: Called with the ids of clients that were removed because nobody used them. Only a service sets it.
        self.clients_ended: Callable[[Sequence[str]], None] | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._end: Callable[[], object] = lambda: None

    def begin(self, now: int) -> None:
        """Start sweeping in this process, if it has not started. Called by each write of a record that expires. `now` is Unix s.

        Threads do not survive a fork: the child starts its own.
        """
        self._told = (now, time.monotonic())
        if self._pid != os.getpid() or self._thread is None:
            self._start()

    def end(self) -> None:
        """Stop, and wait until the thread has ended. The next write starts it again."""
        if self._pid == os.getpid():
            self._end()
        self._thread = None

    def _start(self) -> None:
        if self._pid != os.getpid():  # a lock that was held at the fork would never be released
            self._starting, self._pid = threading.Lock(), os.getpid()
            self._thread = None
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is not None:
                return
            stop = threading.Event()
            thread = threading.Thread(target=_run, args=(weakref.ref(self), stop), name="sweep", daemon=True)
            thread.start()
            # Also stops if the store is garbage-collected, and when the process ends.
            self._end = weakref.finalize(self, _stop, stop, thread)
            self._thread = thread
        except RuntimeError:  # no thread can be started now: the next write tries again
            pass
        finally:
            self._starting.release()

    def round(self, stop: threading.Event) -> bool:
        """Remove expired records until none are left, or it is another process's turn. Returns whether to check again soon."""
        try:
            self._database.prepare_sweep(self._connections)
            if self._database.room.is_short():
                # Then the log starts again at its beginning, and what is removed takes no more room in it.
                self._database.write_back(self._connections)
            found = [self._sweep(kind, stop) for kind in Kind if kind is not Kind.GRANT]
            found.append(self._walk(stop))
            while not stop.is_set() and self._database.give_back(self._connections, within_s=SLICE_S):
                stop.wait(SLICE_S * _REST)
            return any(found) or self._database.room.is_short()
        except StoreUnavailable as error:
            if self._database.room.draw(error.__cause__, leave=HALF):  # removing records makes room
                return True
            _log.warning("sweep_failed", cause=type(error.__cause__).__name__, detail=error.reason)
        except Exception as error:  # nothing waits for the sweep, so the failure is logged
            _log.error("sweep_failed", cause=type(error).__name__)
        return False

    def _sweep(self, kind: Kind, stop: threading.Event) -> bool:
        found = False
        while not stop.is_set() and self._has_ended(kind):
            found = True
            with self._database.sweeping_turn() as is_ours:
                if not is_ours:
                    break
                took_s = self._slice(kind)
                stop.wait(min(took_s, 1.0) * _REST)
        return found

    def _walk(self, stop: threading.Event) -> bool:
        """Read the grants in the order of their ids. Returns whether one had expired."""
        found, newest = False, first_grant_id(self._now() - _NEWEST_S)
        if self._walked is None and time.monotonic() >= self._walk_at:
            self._walk_at, self._walked = time.monotonic() + _WALK_EVERY_S, ""
        after: str | None = newest if self._walked is None else self._walked
        while after is not None and not stop.is_set():
            began = time.monotonic()
            after, has_ended = self._step(after)
            if self._walked is not None:
                self._walked = after
            found = found or has_ended
            stop.wait(min(time.monotonic() - began, 1.0) * _REST)
        return found

    @tried_again
    def _step(self, after: str) -> tuple[str | None, bool]:
        """Read one slice. Returns its last id, or None after the last slice, and whether it had an expired grant."""
        limit, read = self._limits[Kind.GRANT], self._connections.read
        began = time.monotonic()
        ((last,),) = read(
            self._text(statements.select_slice_end, Kind.GRANT), {"after": after, "limit": limit}
        )
        if last is None:
            return None, False
        slice_ = {"after": after, "last": last, "now": self._now()}
        has_ended = bool(read(self._text(statements.select_ended_between, Kind.GRANT), slice_))
        if has_ended:
            with self._database.sweeping_turn() as is_ours:
                if is_ours:
                    with self._connections.transaction() as run:
                        began = time.monotonic()  # waiting for other writers is not its own work
                        run(self._text(statements.delete_ended_between, Kind.GRANT), slice_)
                        # Fewer rows do not make a commit faster.
                        self._fit(Kind.GRANT, time.monotonic() - began)
            self._slice_ended()
        else:
            self._fit(Kind.GRANT, time.monotonic() - began)
        return last, has_ended

    def _fit(self, kind: Kind, took_s: float) -> None:
        """Set the size of the next slice."""
        fitting = int(self._limits[kind] * min(2.0, _AIM_S / max(took_s, 1e-6)))
        self._limits[kind] = max(_FEWEST, min(_MOST, fitting))

    def _has_ended(self, kind: Kind) -> bool:
        return bool(self._connections.read(self._text(statements.select_ended, kind), {"now": self._now()}))

    @tried_again
    def _slice(self, kind: Kind) -> float:
        limit = self._limits[kind]
        with self._connections.transaction() as run:
            began = time.monotonic()  # waiting for other writers is not its own work
            removed = run(self._text(statements.delete_ended, kind), {"now": self._now(), "limit": limit})
        took_s = time.monotonic() - began
        self.tell(kind, removed)
        if len(removed) == limit or took_s > SLICE_S:
            self._fit(kind, took_s)
        self._slice_ended()
        return took_s

    def tell(self, kind: Kind, removed: Rows) -> None:
        """Tell which records were removed; see `clients_ended`. Called after the commit."""
        if kind is Kind.CLIENT and removed and self.clients_ended is not None:
            self.clients_ended([client_id for (client_id,) in removed])

    def _slice_ended(self) -> None:
        self._slices += 1
        if self._slices % _WRITE_BACK_AFTER == 0:
            self._database.write_back(self._connections)

    def _now(self) -> int:
        now, told_at = self._told
        return now + int(time.monotonic() - told_at)

    def let_go(self) -> None:
        """Close the connection of this thread."""
        self._connections.let_go()


def _run(of: weakref.ref[Sweeper], stop: threading.Event) -> None:
    """The thread's function. It does not keep the store alive while it rests."""
    wait_s = _FIRST_S
    while not stop.wait(wait_s):
        sweeper = of()
        if sweeper is None:
            return
        wait_s = _SOON_S if sweeper.round(stop) else min(wait_s * 2, _LATER_S)
        if stop.is_set():
            sweeper.let_go()
        del sweeper


def _stop(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    if thread is not threading.current_thread():
        thread.join(10)
