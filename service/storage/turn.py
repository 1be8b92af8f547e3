"""A queue for the writers of an SQLite file on one machine, because SQLite would let them sleep too long.

SQLite's own wait sleeps for longer and longer, up to 100 ms at a time, even if the file has long been free. So the
threads of a process queue for one lock, and the processes queue for a kernel lock on the folder of the database. The
kernel lock needs no file of its own, and ends with its holder. This queue is not needed for safety: a writer that does
not get its turn in time continues without it, and so do all writers if there is no such lock. SQLite's own lock then
decides who writes.
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

#: How long a process waits between two checks, in s. It stays the same, so that those that wait for long do not starve.
_LOOK_S: Final = 0.0004
#: How many times in a row a process may have the turn, and for how long, in s. It then leaves it free for others to
#: check: for this time in s, and for this part of the time that it had it, because waiters on a slow disk are late.
_IN_A_ROW: Final = 4
_ROW_S: Final = 0.02
_FREE_S: Final = 0.0006
_FREE_PART: Final = 0.02

#: What this thread holds, so that it never waits for itself.
_held = threading.local()


class _Queue:
    """The waiting threads of one process, and the file on which it waits for other processes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_a_row = 0
        self.free_since = self.row_since = 0.0
        self._file: int | None = None
        self._closing: weakref.finalize[..., _Queue] | None = None

    def is_ours(self, folder: str) -> bool:
        """Whether no other process has the turn. Also true if there is no such lock."""
        try:
            if self._file is None:
                self._file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._closing = weakref.finalize(self, os.close, self._file)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no permission, or a file system without locks
            pass
        return True

    def leave(self) -> None:
        """Give up the turn. If the kernel refuses, closing the file releases the lock."""
        try:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            # Never close it twice: its number may already belong to another file.
            if self._closing is not None:
                (self._closing.detach if error.errno == errno.EBADF else self._closing)()
            self._file = None
        finally:
            self.free_since = time.monotonic()
            self.lock.release()


class Turn:
    """The turn to write a database, which one thread of one process on this machine has.

    Args:
        database: its path.
    """

    def __init__(self, database: Path) -> None:
        self._folder = str(database.parent)
        # One for each process: a fork inherits that of its parent.
        self._queues: dict[int, _Queue] = {}

    @contextlib.contextmanager
    def taken(self, within_s: float) -> Iterator[bool]:
        """Wait for this thread's turn, for at most that long, and keep it during the block. Yields whether it has the turn."""
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
        """Wait for other processes, until a time of the monotonic clock. Returns whether it is our turn."""
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
