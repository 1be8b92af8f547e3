"""Whose turn it is to write a file of SQLite: the writers of one machine queue, where SQLite would let them sleep.

SQLite's own wait sleeps longer and longer, up to 100 ms at a time, while the file is long free. So the threads of a
process queue for one lock, and processes for one of the kernel's, on the folder of the database: there is no file of
it, and it ends with its holder, however that ends. It decides nothing. Who does not get it in time goes on without, and
so does everybody where there is no such lock: then SQLite's own says who writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: How long a process waits between two looks, in s: at first, and when it has waited so long that the holder hangs.
_LOOK_S: Final = 0.0004
_LATER_S: Final = 0.005
_LONG_S: Final = 0.25
#: So many times in a row a process may have it; then it leaves it free for so long, in s, that others have looked.
_IN_A_ROW: Final = 4
_FREE_S: Final = 0.0006

#: What this thread holds: it never waits for itself.
_held = threading.local()


class _Queue:
    """The threads of one process that wait, and the file by which it waits for other processes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_a_row = 0
        self.free_since = 0.0
        self.file: int | None = None


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
            if queue.file is not None:
                fcntl.flock(queue.file, fcntl.LOCK_UN)
            queue.free_since = time.monotonic()
            queue.lock.release()

    def _wait(self, queue: _Queue, until: float) -> bool:
        """Wait for other processes, until a time of the monotonic clock; whether it is ours."""
        began = now = time.monotonic()
        is_next = now - queue.free_since < _FREE_S
        queue.in_a_row = (queue.in_a_row + 1) % _IN_A_ROW if is_next else 1
        if not queue.in_a_row:
            time.sleep(_FREE_S)
        while not self._is_ours(queue):
            now = time.monotonic()
            if now >= until:
                return False
            time.sleep(_LOOK_S if now - began < _LONG_S else _LATER_S)
        return True

    def _is_ours(self, queue: _Queue) -> bool:
        """Whether no other process has it; also where there is no such lock."""
        try:
            if queue.file is None:
                queue.file = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                weakref.finalize(queue, os.close, queue.file)
            fcntl.flock(queue.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no rights, or a file system that has none
            pass
        return True
