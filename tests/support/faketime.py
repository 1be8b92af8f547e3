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
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise FileNotFoundError("no faketime here: install the package `faketime`")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{offset_s:+d}s",
        # gunicorn tells by a file's times whether a worker lives. (Its monotonic clock is off with the other: with that
        # only left right, `time.sleep` fails.)
        "NO_FAKE_STAT": "1",
    }
