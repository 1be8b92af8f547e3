"""Room on the disk of an SQLite file that is kept for taking away: a full disk must not keep anybody signed in.

    plenty of room          everything is stored
    less than 512 KiB free  nothing new is stored: no sign-in, no code, no refresh
    the disk is full        what takes away (sign-out, lock-out, revocation) draws a portion of the reserve, and is stored
    the reserve is used up  no token is given out any more either, for what is given out could not be taken back

The reserve is a file of real blocks beside the database; a portion is drawn by cutting it off. It is filled up again
as soon as there is room. The file system is looked at once a second at most.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Final, Protocol

import structlog

from service.storage.interface import StoreUnavailable

#: What one who takes away draws at a time, in bytes: a lock-out of some dozen sessions. A larger one draws several.
PORTION: Final = 256 << 10
PORTIONS: Final = 8
#: Nothing new is stored when less is free, in bytes: the disk is then seldom filled up between two looks.
LOW: Final = 512 << 10
#: What a sign-out that has to wait for its answer, and the sweep, leave for what takes away at once, in portions.
HALF: Final = PORTIONS // 2
_LOOK_EVERY_S: Final = 1.0

_log = structlog.get_logger("storage")


class Room(Protocol):
    """Whether there is room for what the store is asked to write."""

    def keep(self) -> None:
        """Keep a reserve from now on, here and in forks. A command does not; it may draw what a service keeps."""
        ...

    def is_short(self) -> bool:
        """Whether nothing new was stored when it was last looked at."""
        ...

    def check_growth(self) -> None:
        """Refuse to store more where room is short.

        Raises:
            StoreUnavailable: when it is.
        """
        ...

    def was_refused(self, error: BaseException | None) -> None:
        """Take note that the disk took no more: until the next look nothing new is stored."""
        ...

    def draw(self, error: BaseException | None, *, leave: int) -> bool:
        """Set a portion free for what failed by this error; False where that is not what it lacked, or nothing is left.

        Args:
            error: what the driver said.
            leave: how many portions are not for this one.
        """
        ...


class Unlimited:
    """Room that is somebody else's to keep: that of a database server."""

    def keep(self) -> None:
        """See `Room.keep`."""

    def is_short(self) -> bool:
        """See `Room.is_short`."""
        return False

    def check_growth(self) -> None:
        """See `Room.check_growth`."""

    def was_refused(self, error: BaseException | None) -> None:
        """See `Room.was_refused`."""

    def draw(self, error: BaseException | None, *, leave: int) -> bool:
        """See `Room.draw`."""
        return False


class Reserve:
    """`Room` beside one SQLite file.

    Args:
        database: its path.
    """

    def __init__(self, database: Path) -> None:
        self._path = f"{database}.reserve"
        self._folder = database.parent
        self._kept = False
        self._look_at = 0.0
        self._may_grow = self._may_give_out = True

    def keep(self) -> None:
        """See `Room.keep`."""
        self._kept = True
        self._look()

    def is_short(self) -> bool:
        """See `Room.is_short`."""
        return not self._may_grow

    def check_growth(self) -> None:
        """See `Room.check_growth`."""
        self._look_sometimes()
        if not self._may_grow:
            raise StoreUnavailable("there is no room for more on the disk of the database")

    def check_giving_out(self) -> None:
        """Refuse to give out what could not be taken back.

        Raises:
            StoreUnavailable: when it could not.
        """
        self._look_sometimes()
        if not self._may_give_out:
            raise StoreUnavailable("there is no room left on the disk to revoke what is given out")

    def was_refused(self, error: BaseException | None) -> None:
        """See `Room.was_refused`."""
        if self._kept and self._lacks_room(error):
            self._may_grow, self._look_at = False, time.monotonic() + _LOOK_EVERY_S

    def draw(self, error: BaseException | None, *, leave: int) -> bool:
        """See `Room.draw`."""
        left = self._size() - PORTION
        if left < leave * PORTION or not self._lacks_room(error):
            return False
        try:
            os.truncate(self._path, left)
        except OSError:  # somebody else's file: then all of it
            try:
                os.unlink(self._path)  # noqa: PTH108 - as everywhere here
            except OSError:
                return False
        self._look_at = 0.0
        _log.warning("reserve_drawn", left_bytes=left)
        return True

    def _look_sometimes(self) -> None:
        if self._kept and time.monotonic() >= self._look_at:
            self._look()

    def _look(self) -> None:
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        size, free = self._size(), self._free()
        wanted = min(PORTIONS, (size + free - LOW) // PORTION)
        if size < wanted * PORTION:
            size, free = self._filled(size, wanted), self._free()
        before = self._may_grow, self._may_give_out
        self._may_grow = size >= PORTION * PORTIONS and free >= LOW
        self._may_give_out = size >= PORTION and free >= 0
        if before != (self._may_grow, self._may_give_out):
            tell = _log.info if self._may_grow else _log.error
            event = "disk_has_room" if self._may_grow else "disk_full"
            tell(event, free_bytes=max(0, free), reserve_bytes=size, gives_out=self._may_give_out)

    def _filled(self, size: int, portions: int) -> int:
        """Make it of so many portions, as far as it goes; its size then. Real blocks: what it holds cannot be compressed."""
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                for number in range(size // PORTION, portions):
                    os.pwrite(file, hashlib.shake_256(bytes([number])).digest(PORTION), number * PORTION)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                return PORTION * portions  # no file may be made here: there is as much free, and that must do
        return self._size()

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size  # noqa: PTH116 - as everywhere beside a request
        except OSError:
            return 0

    def _free(self) -> int:
        """Bytes that the file system has left for us; -1 where it takes nothing at all."""
        try:
            status = os.statvfs(self._folder)
        except OSError:
            return 0
        return -1 if status.f_flag & os.ST_RDONLY else status.f_bavail * status.f_frsize

    def _lacks_room(self, error: BaseException | None) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return False
        if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}:  # the second where a quota is used up
            return True
        # The files beside the database could not be made or grow.
        return code & 0xFF in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and self._free() < PORTION
