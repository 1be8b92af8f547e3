"""File systems that can be filled up: a tmpfs each, in a mount namespace that nobody else sees.

A module `on_small_disks.py` is such tests. pytest does not collect it by itself: `run_on_small_disks` runs it in a
namespace of its own, in which it may mount.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gunicorn import PROJECT, clean_environment
from tests.support.stopping import Stoppable


def run_on_small_disks(module: Path, timeout_s: float = 300) -> None:
    """Run a module's tests where they may mount.

    Args:
        module: Its path.
        timeout_s: For all of it.

    Raises:
        pytest.skip.Exception: Where this user may mount nothing; it says what is needed.
        AssertionError: When one of them fails.
    """
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    trial = [*unshare, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp"]
    tried = subprocess.run(trial, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(
            "a full disk is a tmpfs in a mount namespace of its own, which needs root with CAP_SYS_ADMIN, "
            f"or user namespaces: {tried.stderr.strip()}"
        )
    # The path says that it is a module of tests, though its name does not.
    pytest_line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(module),
    ]
    done = subprocess.run(
        [*unshare, *pytest_line],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class SmallDisk(Stoppable):
    """A mounted tmpfs, until it is stopped. Only where one may mount: see `run_on_small_disks`.

    Attributes:
        folder: Where it is.
    """

    def __init__(self, folder: Path, size: str = "10m") -> None:
        """Mount it.

        Args:
            folder: Where; it is there.
            size: As tmpfs takes it.
        """
        self.folder = folder
        options = f"size={size},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)

    def free(self) -> int:
        """Bytes that are free."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def fill(self) -> None:
        """Take all that is free, as another program may."""
        for size in (65536, 4096):
            with contextlib.suppress(OSError), (self.folder / "other").open("ab", buffering=0) as other:
                while other.write(b"\0" * size):
                    pass

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.folder / "other").unlink(missing_ok=True)

    def stop(self) -> None:
        """Unmount it, even if a process still has a file of it open."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
