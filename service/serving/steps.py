"""Runs coroutines without an event loop: each continues in the thread in which what it waits for arrives.

    begin -> wait for the client, again and again -> move to a thread of a pool -> the end

An event loop would be one more thread between the server's and ours. To wake it up for each step costs more than most
steps do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Protocol

Job = Callable[[], object]


class Pool(Protocol):
    """Threads that run jobs."""

    def submit(self, job: Job, /) -> object:
        """Run a job in one of the threads, as soon as one is free.

        Raises:
            RuntimeError: if a thread cannot be started. The job may still run later.
        """


class Moved:
    """To await this moves a coroutine to a thread of a pool: what follows runs there.

    Args:
        pool: the threads.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool: Final = pool

    def __await__(self) -> Generator[Moved]:
        yield self


class Watcher(Protocol):
    """Learns how a coroutine ends."""

    def done(self) -> None:
        """It has returned."""

    def err(self, error: BaseException, /) -> None:
        """It has raised this."""


class Steps:
    """The coroutines that are running.

    Args:
        patience_s: how long each may wait for its client, in all.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        #: Those that wait for their client, with what they wait for. To take one out is to have it: then no other
        #: thread continues it.
        self._waiting: dict[_Run, Any] = {}

    def begin(self, coroutine: Coroutine[Any, Any, object], watcher: Watcher) -> None:
        """Run a coroutine in this thread, up to where it waits. It may await `Moved`, and futures of the client."""
        _Run(coroutine, watcher, self._waiting).step(coroutine.send, None)

    def end_the_late(self, now: float) -> None:
        """Raise a `TimeoutError` in those that have waited for too long. `now` is of the monotonic clock. Any thread may call this."""
        for run in list(self._waiting):
            if now - run.waits_since >= self._patience_s:
                future = self._waiting.pop(run, None)
                if future is not None:
                    future.cancel()
                    run.step(run.coroutine.throw, TimeoutError())


class _Run:
    """One coroutine."""

    __slots__ = ("_moves", "_waiting", "_watcher", "coroutine", "waits_since")

    def __init__(
        self, coroutine: Coroutine[Any, Any, object], watcher: Watcher, waiting: dict[_Run, Any]
    ) -> None:
        self.coroutine = coroutine
        self.waits_since = 0.0
        #: Has one entry while it moves. To take it out is to have the coroutine: a pool that has no thread for a job may
        #: still run it later.
        self._moves: list[Pool] = []
        self._watcher = watcher
        self._waiting = waiting

    def step(self, go_on: Callable[[Any], Any], value: BaseException | None) -> None:
        """Continue the coroutine in this thread, up to where it waits again, or ends."""
        try:
            awaited = go_on(value)
        except StopIteration:
            self._watcher.done()
        except BaseException as error:
            self._watcher.err(error)
        else:
            if isinstance(awaited, Moved):
                self._move_to(awaited.pool)
                return
            self.waits_since = self.waits_since or time.monotonic()
            self._waiting[self] = awaited
            awaited.add_done_callback(self._arrived)

    def _move_to(self, pool: Pool) -> None:
        """Continue in a thread of a pool. If it cannot start one, the error is raised in the coroutine."""
        self._moves.append(pool)
        try:
            pool.submit(self._move)
        except RuntimeError as error:
            if self._has_moved():
                self.step(self.coroutine.throw, error)

    def _move(self) -> None:
        if self._has_moved():
            self.step(self.coroutine.send, None)

    def _has_moved(self) -> bool:
        """Whether it is this thread that continues."""
        try:
            self._moves.pop()
        except IndexError:
            return False
        return True

    def _arrived(self, _future: object) -> None:
        if self._waiting.pop(self, None) is not None:
            self.step(self.coroutine.send, None)


class Nowhere:
    """What futures of the server use as their loop: it calls at once, in the thread in which something has arrived."""

    @staticmethod
    def call_soon(callback: Callable[..., object], *args: object, context: object = None) -> None:
        """Call it. The context is that of this thread."""
        callback(*args)

    call_soon_threadsafe = call_soon
