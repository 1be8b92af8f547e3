"""Debian's faketime around a program that a test starts: its clock is off."""

from __future__ import annotations

from pathlib import Path


def clock_environment(offset_s: int) -> dict[str, str]:
    """What a process must have in its environment for its clock to be off.

    The library itself, not the program `faketime`, which would stand between a test and the process that it ends.

    Args:
        offset_s: How many seconds it is ahead; 0 leaves it as it is.

    Raises:
        FileNotFoundError: When it is not installed.
    """
    if offset_s == 0:
        return {}
    return {"FAKETIME": f"{offset_s:+d}s", **_environment()}


class MovingClock:
    """A clock of several processes, which a test moves while they run.

    Args:
        file: where it is; every process must be able to read it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.move(0)

    def move(self, offset_s: int) -> None:
        """Let it be so many seconds ahead. A process that runs notices within a second."""
        self._file.write_text(f"{offset_s:+d}s\n")
        self._file.chmod(0o644)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to go by it.

        Raises:
            FileNotFoundError: When faketime is not installed.
        """
        return {"FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_CACHE_DURATION": "1", **_environment()}


def _environment() -> dict[str, str]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise FileNotFoundError("no faketime here: install the package `faketime`")
    return {
        "LD_PRELOAD": str(library),
        # gunicorn tells by a file's times whether a worker lives. (Its monotonic clock is off with the other: if only
        # that one is left right, `time.sleep` fails.)
        "NO_FAKE_STAT": "1",
    }
