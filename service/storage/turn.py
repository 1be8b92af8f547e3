"""Whose turn it is to write a SQLite file: threads of a process queue here, and then processes for each other.

SQLite's own wait sleeps longer and longer, up to 100 ms at a time, while the file is long free. So a process lets one
thread ask for it, and who finds another process at work looks again within two milliseconds. The lock is the kernel's:
it ends with its holder, however that ends. It decides nothing: SQLite's lock does, also where this one cannot be had.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Final

_FIRST_LOOK_S: Final = 0.0003
_LONGEST_LOOK_S: Final = 0.002


class Turn:
    """The turn of this process at a file, of which one thread has it.

    Args:
        path: of the database; the lock is on a file beside it.
    """

    def __init__(self, path: Path) -> None:
        self._database = path
        self._path = f"{path}.turn"
        self._threads = threading.Lock()
        self._file: int | None = None
        self._pid = 0

    def acquire(self, timeout_s: float) -> bool:
        """Wait for the turn; whether it came within that time."""
        until = time.monotonic() + timeout_s
        if not self._threads.acquire(timeout=timeout_s):
            return False
        look_s = _FIRST_LOOK_S
        while not self._is_ours():
            if time.monotonic() >= until:
                self._threads.release()
                return False
            time.sleep(look_s)
            look_s = min(look_s * 1.5, _LONGEST_LOOK_S)
        return True

    def release(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._threads.release()

    def _is_ours(self) -> bool:
        if self._pid != os.getpid():  # a fork has its parent's lock with its parent's file
            self._file, self._pid = None, os.getpid()
        try:
            if self._file is None:
                os.stat(self._database)  # noqa: PTH116 - where there is none, nothing is made beside it
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no database, no room, no rights: its own lock is enough
            pass
        return True
