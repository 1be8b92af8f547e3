"""Writers of one SQLite file queue: threads within a process, processes for each other, and none for one that died."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from service.storage.turn import Turn
from tests.support.gunicorn import PROJECT

_HOLDER = """
import sys, time
from pathlib import Path
from service.storage.turn import Turn
assert Turn(Path(sys.argv[1])).acquire(5)
print("held", flush=True)
time.sleep(60)
"""


def _holder(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], cwd=PROJECT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_another_process_is_waited_for_until_the_deadline_and_not_once_it_died(tmp_path: Path) -> None:
    """A deadline ends the wait; `kill -9` of the holder ends it too, within milliseconds."""
    (tmp_path / "pylon.db").touch()
    turn = Turn(tmp_path / "pylon.db")
    with _holder(tmp_path / "pylon.db") as holder:
        try:
            began = time.monotonic()
            assert not turn.acquire(0.3)
            assert 0.3 <= time.monotonic() - began < 2
            threading.Timer(0.2, holder.kill).start()
            assert turn.acquire(20)
            assert time.monotonic() - began < 10
            turn.release()
        finally:
            holder.kill()


def test_threads_of_a_process_queue_and_a_fork_has_a_turn_of_its_own(tmp_path: Path) -> None:
    """One thread has it at a time; what a child of a fork gets is not its parent's."""
    (tmp_path / "pylon.db").touch()
    turn = Turn(tmp_path / "pylon.db")
    assert turn.acquire(1)
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(turn.acquire(0.1)))
    waiting.start()
    waiting.join(10)
    assert got == [False]
    turn.release()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            code = 0 if turn.acquire(1) else 1
            time.sleep(0.5)
        os._exit(code)
    time.sleep(0.2)
    assert not turn.acquire(0.05)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert turn.acquire(1)
    turn.release()


def test_without_its_file_nobody_waits(tmp_path: Path) -> None:
    """Where the lock cannot be made the database's own decides, and nothing is made beside a database that is not there."""
    turn = Turn(tmp_path / "pylon.db")
    assert turn.acquire(0.1)
    turn.release()
    assert not list(tmp_path.iterdir())
