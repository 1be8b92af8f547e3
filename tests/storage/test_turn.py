"""The writers of one SQLite file queue: threads within a process, processes for each other, and nobody for one that died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.storage.turn import Turn
from tests.storage.stores import NOW, open_url, record, sqlite_path
from tests.support.gunicorn import PROJECT
from tests.support.pace import in_time

_HOLDER = """
import sys, time
from pathlib import Path
from service.storage.turn import Turn
with Turn(Path(sys.argv[1])).taken(5) as is_ours:
    assert is_ours
    print("held", flush=True)
    time.sleep(60)
"""
#: Writes again and again, for a while; says how often.
_WRITER = """
import sys, time
from pathlib import Path
from service.storage.turn import Turn
turn, count = Turn(Path(sys.argv[1])), 0
print("ready", flush=True)
sys.stdin.readline()
until = time.monotonic() + 1.5
while time.monotonic() < until:
    with turn.taken(5) as is_ours:
        assert is_ours
        time.sleep(0.002)
        count += 1
print(count, flush=True)
"""


@contextlib.contextmanager
def _process(code: str, database: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(database)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() in {"held", "ready"}
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_process_is_waited_for_until_the_deadline_and_not_once_it_died(tmp_path: Path) -> None:
    """A deadline ends the wait; so does `kill -9` of the holder, within milliseconds."""
    turn = Turn(tmp_path / "pylon.db")
    with _process(_HOLDER, tmp_path / "pylon.db") as holder:
        began = time.monotonic()
        with turn.taken(0.3) as is_ours:
            assert not is_ours
        took = time.monotonic() - began
        assert took >= 0.3 and in_time(took, 2)
        threading.Timer(0.2, holder.kill).start()
        with turn.taken(20) as is_ours:
            assert is_ours
        assert in_time(time.monotonic() - began, 10)
    assert not list(tmp_path.iterdir()), "it needs no file"


def test_threads_of_a_process_queue_and_a_fork_has_a_turn_of_its_own(tmp_path: Path) -> None:
    """One thread has it at a time; what a child of a fork gets is not its parent's."""
    turn = Turn(tmp_path / "pylon.db")
    got: list[bool] = []

    def ask(within_s: float) -> None:
        with turn.taken(within_s) as is_ours:
            got.append(is_ours)

    with turn.taken(1) as is_ours:
        assert is_ours
        waiting = threading.Thread(target=ask, args=(0.1,))
        waiting.start()
        waiting.join(60)
        assert got == [False]
        late = threading.Thread(target=ask, args=(20,))
        late.start()
    late.join(60)
    assert got == [False, True]
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException), turn.taken(1) as is_ours:
            code = 0 if is_ours else 1
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(code)
    os.waitpid(child, os.WUNTRACED)
    try:
        with turn.taken(0.05) as is_ours:
            assert not is_ours, "a frozen process holds it, and nobody waits for that without end"
    finally:
        os.kill(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with turn.taken(5) as is_ours:
        assert is_ours


def test_a_thread_never_waits_for_itself(sqlite_url: str) -> None:
    """Who has the turn, and writes by another store, is let through: the database's own lock decides."""
    with closing(open_url(sqlite_url)) as one, closing(open_url(sqlite_url)) as other:
        one.migrate()
        began = time.monotonic()
        with one.database.turn(5):
            assert other.put(record(), now=NOW)
        assert in_time(time.monotonic() - began, 2)
        assert one.get(record().kind, record().id_hash, now=NOW) == record()


def test_processes_take_turns(tmp_path: Path) -> None:
    """Of two that write without a pause neither keeps the other out."""
    with _process(_WRITER, tmp_path / "pylon.db") as one, _process(_WRITER, tmp_path / "pylon.db") as other:
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        counts = [int(process.stdout.readline()) for process in (one, other) if process.stdout]
    assert min(counts) > sum(counts) / 5, counts


#: Writes slowly without a pause, for a while; says how long it waited at most, in s.
_SLOW_WRITER = """
import sys, time
from pathlib import Path
from service.storage.turn import Turn
turn, longest = Turn(Path(sys.argv[1])), 0.0
print("ready", flush=True)
sys.stdin.readline()
until = time.monotonic() + 5
while (began := time.monotonic()) < until:
    with turn.taken(5):
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.1)
print(longest, flush=True)
"""


def test_on_a_slow_disk_nobody_starves(tmp_path: Path) -> None:
    """Of three that write for 0.1 s at a time none waits for long: each leaves the file free after every write."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(_SLOW_WRITER, tmp_path / "pylon.db")) for _ in range(3)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        waits = [float(process.stdout.readline()) for process in processes if process.stdout]
    assert in_time(max(waits), 2.5), waits


def test_a_lock_that_cannot_be_given_back_stops_nobody(tmp_path: Path) -> None:
    """flock(2) may fail, as where its descriptor was closed: the turn ends all the same, and the next one takes it again."""
    turn = Turn(tmp_path / "pylon.db")
    with turn.taken(1) as is_ours:
        assert is_ours
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if link.readlink() == tmp_path:
                    os.close(int(link.name))
    for _ in range(2):
        with turn.taken(0) as is_ours:
            assert is_ours
    with _process(_HOLDER, tmp_path / "pylon.db"), turn.taken(0.05) as is_ours:
        assert not is_ours


def test_a_migration_queues_too(sqlite_url: str) -> None:
    """With writers that pass the turn to each other, one that does not queue would find the file locked each time."""
    path = sqlite_path(sqlite_url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(open_url(sqlite_url)) as store, _process(_HOLDER, path) as holder:
        began = time.monotonic()
        threading.Timer(0.4, holder.kill).start()
        store.migrate()
        assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_where_there_is_no_such_lock_nobody_waits(tmp_path: Path, folder: str) -> None:
    """The database's own lock decides then."""
    (tmp_path / "file").touch()
    with Turn(tmp_path / folder / "pylon.db").taken(0.1) as is_ours:
        assert is_ours


def test_nothing_is_made_beside_a_database(sqlite_url: str) -> None:
    """What backups and tools find in the folder is what they know."""
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        store.put(record(), now=NOW)
        names = {path.name for path in sqlite_path(sqlite_url).parent.iterdir()}
    assert names == {f"pylon.sqlite3{end}" for end in ("", "-wal", "-shm", ".lock")}
