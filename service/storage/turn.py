"""Whose turn it is to write a file of SQLite: the writers of one machine queue, where SQLite would let them sleep.

SQLite's own wait sleeps longer and longer, up to 100 ms at a time, while the file is long free. So the threads of a
process queue for one lock, and processes for one of the kernel's, on the folder of the database: there is no file of
it, and it ends with its holder, however that ends. It decides nothing. Who does not get it in time goes on without, and
so does everybody where there is no such lock: then SQLite's own says who writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: How long a process waits between two looks, in s: who has waited for long looks as often as the others, or would starve.
_LOOK_S: Final = 0.0004
#: So many times in a row a process may have it, and for so long, in s; then it leaves it free until others have looked:
#: for so long, in s, and for this part of the time that it had it, as waiters of a slow disk are late.
_IN_A_ROW: Final = 4
_ROW_S: Final = 0.02
_FREE_S: Final = 0.0006
_FREE_PART: Final = 0.02

#: What this thread holds: it never waits for itself.
_held = threading.local()


class _Queue:
    """The threads of one process that wait, and the file by which it waits for other processes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_a_row = 0
        self.free_since = self.row_since = 0.0
        self._file: int | None = None
        self._closing: weakref.finalize[..., _Queue] | None = None

    def is_ours(self, folder: str) -> bool:
        """Whether no other process has it; also where there is no such lock."""
        try:
            if self._file is None:
                self._file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._closing = weakref.finalize(self, os.close, self._file)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no rights, or a file system that has none
            pass
        return True

    def leave(self) -> None:
        """Let the next one have it, whatever the kernel says: what is closed locks nothing."""
        try:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            if (
                self._closing is not None
            ):  # what is closed already must not be closed again: its number may be another's
                (self._closing.detach if error.errno == errno.EBADF else self._closing)()
            self._file = None
        finally:
            self.free_since = time.monotonic()
            self.lock.release()


class Turn:
    """The turn to write a database, of one thread of one process of this machine.

    Args:
        database: its path.
    """

    def __init__(self, database: Path) -> None:
        self._folder = str(database.parent)
        # By process: what a fork has is its parent's.
        self._queues: dict[int, _Queue] = {}

    @contextlib.contextmanager
    def taken(self, within_s: float) -> Iterator[bool]:
        """Within the block it is this thread's turn; whether it is: after so long it goes on without."""
        held = _held.__dict__
        if self._folder in held:
            yield True
            return
        queue = self._queues.get(os.getpid()) or self._queues.setdefault(os.getpid(), _Queue())
        until = time.monotonic() + within_s
        if not queue.lock.acquire(timeout=within_s):
            yield False
            return
        held[self._folder] = True
        try:
            yield self._wait(queue, until)
        finally:
            del held[self._folder]
            queue.leave()

    def _wait(self, queue: _Queue, until: float) -> bool:
        """Wait for other processes, until a time of the monotonic clock; whether it is ours."""
        now = time.monotonic()
        is_next = now - queue.free_since < _FREE_S
        queue.in_a_row = (queue.in_a_row + 1) % _IN_A_ROW if is_next else 1
        if not is_next:
            queue.row_since = now
        elif not queue.in_a_row or now - queue.row_since > _ROW_S:
            time.sleep(max(_FREE_S, (now - queue.row_since) * _FREE_PART))
            queue.in_a_row, queue.row_since = 0, time.monotonic()
        while not queue.is_ours(self._folder):
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_S)
        return True
