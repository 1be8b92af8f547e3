"""The thread that leads runs the loop of a worker, and answers requests in it. If one is slow, another thread leads.

    the leader answers a request -> it is still there after PATIENT_S -> another thread leads -> the first one only ends it

To hand each request that may wait to a thread costs a sixth of a code exchange, and most of them wait for nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from service.serving.plan import PATIENT_S

Item = TypeVar("Item")
#: How long the watching thread sleeps at most: the system may deliver a signal to another thread, which wakes nobody.
_LOOK_S: Final = 1.0
#: Nobody leads: the loop has ended, or must end.
_NOBODY: Final = -1


class Lead(Generic[Item]):
    """The lead of one loop.

    Args:
        turn: one turn of the loop. Returns whether another one follows. Only the thread that leads calls it.
        moved: takes note that another thread is about to lead, and that the one before still answers this item, since
            this time by the monotonic clock. Nobody leads while it runs.
        threads: how many threads there may be, with those that only end a request.
    """

    def __init__(self, turn: Callable[[], bool], moved: Callable[[Item, float], None], threads: int) -> None:
        self._turn, self._moved = turn, moved
        self._most = threads
        #: How many more threads may be in use, and how many of them are there already: they wait for a number, or None.
        self._free, self._idle = threads, 0
        self._next: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._leader = _NOBODY
        #: What the leader is answering, and since when.
        self._item: Item | None = None
        self._since = 0.0
        self._answers = 0
        #: Whether the watching thread waits for the next answer to begin, and how it learns that.
        self._is_asleep = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run the loop to its end. This thread watches it; signals arrive here, and stop no request.

        Raises:
            BaseException: what a turn has raised.
        """
        try:
            with self._lock:
                self._start()
            while self._leader != _NOBODY:
                self._watch()
        finally:
            self._leader = _NOBODY
            for _ in range(self._most):
                self._next.put(None)
        if self._error is not None:
            raise self._error

    def answer(self, item: Item, job: Callable[[Item], None]) -> bool:
        """Do a job, which raises nothing, in the thread that leads.

        Returns:
            Whether this thread still leads. If not, it must not touch anything that belongs to the loop.
        """
        self._since = time.monotonic()
        self._item = item
        self._answers += 1
        if self._is_asleep:
            self._is_asleep = False
            self._bell.put(None)
        job(item)
        with self._lock:
            if self._item is item:
                self._item = None
                return self._leader != _NOBODY  # the watch may have ended
            self._free += 1
            self._idle += 1  # as soon as it has returned
            return False

    def _start(self) -> None:
        """Let a thread lead.

        Raises:
            RuntimeError: if none can be started. The leader stays the same.
        """
        number = next(self._numbers)
        if self._idle:
            self._idle -= 1
            self._next.put(number)
        else:
            threading.Thread(target=self._work, args=(number,)).start()
        self._leader = number
        self._free -= 1

    def _work(self, number: int | None) -> None:
        while number is not None:
            self._run(number)
            number = self._next.get()

    def _run(self, number: int) -> None:
        with self._lock:  # until the thread that has started this one is done
            pass
        try:
            while self._leader == number:
                if not self._turn():
                    break
            else:
                return
        except BaseException as error:
            self._error = error
        self._leader = _NOBODY
        self._bell.put(None)

    def _watch(self) -> None:
        """Sleep until an answer begins, then watch for as long as others follow."""
        self._is_asleep = True
        if self._item is None:
            self._listen(_LOOK_S)
        self._is_asleep = False
        seen = -1
        while self._leader != _NOBODY and (self._item is not None or seen != self._answers):
            seen = self._answers
            self._listen(PATIENT_S / 2)
            if self._item is not None and time.monotonic() - self._since >= PATIENT_S:
                self._move()

    def _listen(self, timeout_s: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=timeout_s)

    def _move(self) -> None:
        """Let another thread lead, unless the leader is about to end its request."""
        with self._lock:
            item = self._item
            if item is None or not self._free or time.monotonic() - self._since < PATIENT_S:
                return
            try:
                self._start()
            except RuntimeError:  # no thread can be started
                return
            self._item = None
            self._moved(item, self._since)
