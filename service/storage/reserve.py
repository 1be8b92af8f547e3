"""Keeps disk space in reserve for deletions and revocations, so that a full disk never keeps anyone signed in.

    plenty of room          everything is stored
    less than 512 KiB free  no new records: no sign-in, no code, no refresh
    the disk is full        sign-out, lock-out and revocation use a portion of the reserve, and are stored
    the reserve is used up  no tokens are issued either, because they could not be revoked

The reserve is a file of real blocks next to the database. Using a portion shortens the file. It is refilled as soon as
there is room. The file system is checked once a second at most.
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

#: The size of a portion in bytes: enough to lock out a few dozen sessions. A larger lock-out uses several portions.
PORTION: Final = 256 << 10
PORTIONS: Final = 8
#: If less is free, in bytes, no new records are stored. The disk then rarely fills up between two checks.
LOW: Final = 512 << 10
#: How many portions the sweep, and a sign-out that waits for an answer, leave for immediate deletions.
HALF: Final = PORTIONS // 2
_LOOK_EVERY_S: Final = 1.0

_log = structlog.get_logger("storage")


class Room(Protocol):
    """Decides whether there is room for a write."""

    def keep(self) -> None:
        """Keep a reserve from now on, in this process and its forks. Commands do not, but may use the service's reserve."""
        ...

    def is_short(self) -> bool:
        """Whether room was short at the last check."""
        ...

    def check_growth(self) -> None:
        """Refuse to store more if room is short.

        Raises:
            StoreUnavailable: if it is.
        """
        ...

    def was_refused(self, error: BaseException | None) -> None:
        """Note that the disk is full: no new records are stored until the next check."""
        ...

    def draw(self, error: BaseException | None, *, leave: int) -> bool:
        """Release a portion for a write that failed with this error. False if it failed for another reason, or none is left.

        Args:
            error: the driver's error.
            leave: how many portions must be left for others.
        """
        ...


class Unlimited:
    """Room that we do not manage: a database server's."""

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
    """`Room` next to one SQLite file.

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
            raise StoreUnavailable("the disk of the database is full")

    def check_giving_out(self) -> None:
        """Refuse to issue tokens that could not be revoked.

        Raises:
            StoreUnavailable: if there is no room left for that.
        """
        self._look_sometimes()
        if not self._may_give_out:
            raise StoreUnavailable("there is no room left on the disk to revoke issued tokens")

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
        except OSError:  # another user's file: release all of it
            try:
                os.unlink(self._path)  # noqa: PTH108 - as everywhere here
            except OSError:
                return False
        self._look_at = 0.0
        _log.warning("reserve_used", left_bytes=left)
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
        """Grow the file to that many portions, as far as possible. Returns its size. Its random content cannot be compressed."""
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
                # No file can be created here: that much is free, which has to be enough.
                return PORTION * portions
        return self._size()

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size  # noqa: PTH116 - as everywhere next to a request
        except OSError:
            return 0

    def _free(self) -> int:
        """Bytes that are free for us on the file system; -1 if it accepts no writes."""
        try:
            status = os.statvfs(self._folder)
        except OSError:
            return 0
        return -1 if status.f_flag & os.ST_RDONLY else status.f_bavail * status.f_frsize

    def _lacks_room(self, error: BaseException | None) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return False
        if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}:  # the second if a quota is used up
            return True
        # The files next to the database could not be created or extended.
        return code & 0xFF in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and self._free() < PORTION
