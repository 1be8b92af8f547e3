"""What has ended is removed outside the requests: by whom, how fast, and without blocking anyone.

`PYLON_TESTS_SWEEP_ROWS=1000000` sweeps so many grants instead of 80,000 (SQLite) and 20,000 (PostgreSQL).
"""

from __future__ import annotations

import base64
import gc
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.handles import hash_handle
from service.storage.interface import Kind, StoreUnavailable
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.flows.polling import wait_until
from tests.storage.outages import SqliteOutage
from tests.storage.stores import NOW, ended_rows, fill_many, id_of, open_url, record, rows, sqlite_path
from tests.support.gunicorn import PROJECT, clean_environment
from tests.support.pace import in_time

BACKLOG = 4000
DAY_S = 86_400
GRANTS = {"sqlite": 80_000, "postgresql": 20_000}
#: How long a slice of the sweep may take, in s.
SLICE_S = 0.02


def sweeping() -> list[threading.Thread]:
    """The threads of this process that sweep."""
    return [thread for thread in threading.enumerate() if thread.name == "sweep"]


def fill(store: SqlStore, count: int, *, kind: Kind = Kind.INTERACTION, size: int = 600) -> None:
    """Put records that have ended by `NOW`."""
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        store.put(
            *(record(f"{n}", kind=kind, expires_at=NOW, body={"x": "x" * size}) for n in numbers), now=NOW - 1
        )


def test_what_has_ended_is_removed_by_itself(store: SqlStore, database_url: str) -> None:
    """Who writes begins it, and nobody has to write again: records of every kind go when they end, and no live one."""
    ending = [record(f"{number}", kind=kind, expires_at=NOW) for kind in Kind for number in range(60)]
    store.put(*ending, record("live", expires_at=NOW + 3600), now=NOW - 1)
    wait_until(lambda: rows(database_url) == 1)
    assert store.get(Kind.SESSION, hash_handle("live"), now=NOW) is not None


def test_a_store_that_is_let_go_of_leaves_no_thread(sqlite_url: str) -> None:
    """`close` ends the sweep, forgetting the store does so too, and the next write begins it again."""
    store = open_url(sqlite_url)
    store.migrate()
    before = set(sweeping())
    for _ in range(2):
        store.put(record(hash_handle(str(time.monotonic()))), now=NOW)
        assert len(set(sweeping()) - before) == 1
        store.close()
        assert set(sweeping()) <= before
    store.put(record("last"), now=NOW)
    assert len(set(sweeping()) - before) == 1
    del store
    gc.collect()
    assert set(sweeping()) <= before


FORKING = """
import os, sys, threading, time
from tests.storage.stores import NOW, open_url, record
store = open_url(os.environ["DATABASE_URL"])
store.migrate()
store.put(record("master"), now=NOW)
if sys.argv[1] == "closed":
    store.close()
    assert threading.active_count() == 1, threading.enumerate()
if os.fork() == 0:
    store.put(record("worker"), record("ended", expires_at=NOW + 1), now=NOW)
    assert any(thread.name == "sweep" and thread.is_alive() for thread in threading.enumerate())
    time.sleep(3)
    assert store.delete_expired(now=NOW + 1, limit=9) == 0
    store.close()
    sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize("how", ["closed", "open"])
def test_a_worker_begins_its_own(sqlite_url: str, how: str) -> None:
    """A thread does not live on in a fork: the child begins its own, whether or not the master let go of its own."""
    environment = clean_environment(DATABASE_URL=sqlite_url)
    subprocess.run([sys.executable, "-c", FORKING, how], cwd=PROJECT, env=environment, check=True, timeout=60)


LOADING = """
import threading
import service.wsgi
assert threading.active_count() == 1, threading.enumerate()
"""


def test_nothing_of_it_runs_in_the_master(sqlite_url: str) -> None:
    """Loading the application writes a ring of keys, and leaves no thread running when workers are forked."""
    environment = clean_environment(
        DATABASE_URL=sqlite_url,
        PYLON_OIDC_KEYS="managed",
        PYLON_KEY_ENCRYPTION_KEY=base64.b64encode(bytes(range(32))).decode(),
    )
    subprocess.run([sys.executable, "-c", LOADING], cwd=PROJECT, env=environment, check=True, timeout=60)


def test_a_process_that_sweeps_ends_when_it_wants_to(sqlite_url: str) -> None:
    """The sweep holds up no exit, also in the middle of its work."""
    code = (
        "import time\nfrom tests.storage.test_sweep import *\n"
        f"store = open_url({sqlite_url!r})\nstore.migrate()\nfill(store, 4000)\ntime.sleep(1.2)\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=clean_environment(),
        timeout=60,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert in_time(time.monotonic() - began, 30)


def test_several_share_the_work_and_hold_nobody_up(database_url: str) -> None:
    """While two processes' sweeps remove a backlog, a third one still writes: each write waits for a slice, not for the work."""
    with closing(open_url(database_url)) as store:
        fill(store, BACKLOG, size=4000)
    with (
        closing(open_url(database_url)) as one,
        closing(open_url(database_url)) as two,
        closing(open_url(database_url)) as third,
    ):
        for number, sweeper in enumerate((one, two)):
            sweeper.put(record(f"begins {number}", expires_at=NOW + 3600), now=NOW)
        waited = []
        end = time.monotonic() + 30
        while rows(database_url, Kind.INTERACTION) and time.monotonic() < end:
            began = time.monotonic()
            third.put(record(f"meanwhile {began}", kind=Kind.CONSENT, expires_at=NOW + 3600), now=NOW)
            waited.append(time.monotonic() - began)
            time.sleep(0.005)
        assert rows(database_url, Kind.INTERACTION) == 0
    assert in_time(statistics.median(waited), 0.1), sorted(waited)[-10:]


class Slices:
    """How long each transaction of the sweep took from its beginning to its commit, in s, and the processor's part of it."""

    def __init__(self, store: SqlStore, path: Path | None) -> None:
        self._path = path
        self.took: list[float] = []
        self.worked: list[float] = []
        #: How many commits wrote to the file of an SQLite database, and not only to its log.
        self.wrote = 0
        self._began, self._written = (0.0, 0.0), 0
        database: Any = store.database
        plain = database.connect
        database.connect = lambda: _Timed(plain(), self)
        store.close()  # the next connection is a timed one

    def told(self, sql: str, *, after: bool) -> None:
        """A statement of the sweep's thread, before it runs or after."""
        if sql.startswith("BEGIN") and after:
            self._began = time.monotonic(), time.thread_time()
        elif sql == "COMMIT" and not after:
            self.took.append(time.monotonic() - self._began[0])
            self.worked.append(time.thread_time() - self._began[1])
        if sql == "COMMIT" and self._path is not None:
            before, self._written = self._written, self._path.stat().st_mtime_ns
            self.wrote += after and self._written != before


class _Timed:
    """A connection that reports the sweep's statements."""

    def __init__(self, connection: Any, slices: Slices) -> None:
        self._connection, self._slices = connection, slices

    def execute(self, sql: str, *values: Any) -> Any:
        is_sweeping = threading.current_thread().name == "sweep"
        if is_sweeping:
            self._slices.told(sql, after=False)
        cursor = self._connection.execute(sql, *values)
        if is_sweeping:
            self._slices.told(sql, after=True)
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_many_grants_that_ended_go_in_short_slices(database_url: str) -> None:
    """Of many grants, made long ago, those that have ended go, and no live one, whether they are single or in long
    runs; writers never wait for more than a slice of 20 ms of the sweep's own work, and never for a checkpoint.
    """
    given = os.environ.get("PYLON_TESTS_SWEEP_ROWS")
    many = int(given) if given else GRANTS[database_url.partition(":")[0]]
    # A long run of live ones, then one live in a hundred.
    fill_many(database_url, Kind.GRANT, many, ended=f"i > {many // 4} AND i % 100 <> 0", begun_at=NOW - DAY_S)
    live = many - ended_rows(database_url)
    with closing(open_url(database_url)) as store:
        slices = Slices(store, sqlite_path(database_url) if database_url.startswith("sqlite") else None)
        store.put(record("begins", expires_at=NOW + DAY_S), now=NOW)
        wait_until(lambda: rows(database_url, Kind.GRANT) <= live, timeout_s=60 + many / 1000)
        time.sleep(0.5)
        assert rows(database_url, Kind.GRANT) == live
        assert ended_rows(database_url) == 0
    assert slices.wrote == 0  # the log is written to the file after the commit, while nobody waits
    took, worked = sorted(slices.took), sorted(slices.worked)
    p95 = len(took) * 95 // 100
    told = f"{many} grants, {len(took)} slices: median {statistics.median(took) * 1000:.1f} ms, 95 % within"
    told += f" {took[p95] * 1000:.1f} ms, of which the processor's are {worked[p95] * 1000:.1f} ms"
    print(told)
    # What a busy machine adds to some of them is not theirs.
    assert in_time(statistics.median(took), 1.5 * SLICE_S), told
    assert statistics.median(worked) < SLICE_S, told
    assert worked[p95] < 2 * SLICE_S, told


def test_a_code_that_nobody_redeems_goes_within_seconds(store: SqlStore, database_url: str) -> None:
    """Its grant ends with it, and is looked at each time, also after all grants were walked through."""
    store.put(record("before", kind=Kind.GRANT, expires_at=NOW), now=NOW - 1)
    wait_until(lambda: rows(database_url, Kind.GRANT) == 0)
    codes = [record(f"code {n}", kind=Kind.GRANT, expires_at=NOW + 1) for n in range(20)]
    store.put(*codes, record("redeemed", kind=Kind.GRANT, expires_at=NOW + DAY_S), now=NOW)
    wait_until(lambda: rows(database_url, Kind.GRANT) == 1)
    assert [each.id_hash for each in store.list(Kind.GRANT, now=NOW)] == [id_of("redeemed", Kind.GRANT)]


def test_a_grant_that_is_used_as_it_ends_stays_or_is_gone(store: SqlStore, second_store: SqlStore) -> None:
    """A process whose clock is a second behind may still use what the sweep removes: a caller that was promised it is stored has it."""
    grants = [record(f"g{n}", kind=Kind.GRANT, expires_at=NOW) for n in range(1500)]
    for first in range(0, len(grants), 500):
        store.put(*grants[first : first + 500], now=NOW - 10)
    used = []
    # The last ones first, towards the sweep.
    for each in sorted(grants, key=lambda each: each.id_hash, reverse=True)[:750]:
        if second_store.swap(replace(each, expires_at=NOW + DAY_S), now=NOW - 1):
            used.append(each.id_hash)
        if len(used) == 20:
            store.put(record("begins", expires_at=NOW + DAY_S), now=NOW)
    assert len(used) > 20
    wait_until(lambda: len(store.list(Kind.GRANT, now=NOW - 1)) == len(used))
    assert {each.id_hash for each in store.list(Kind.GRANT, now=NOW)} == set(used)


def test_a_failure_is_told_and_decides_nothing(sqlite_url: str) -> None:
    """A sweep that cannot ask the database is a line in the log; it continues when the database is back."""
    tape = io.StringIO()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(tape), cache_logger_on_first_use=False)
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        store.put(record("ended", expires_at=NOW), now=NOW - 1)
        with SqliteOutage(sqlite_path(sqlite_url)):
            wait_until(lambda: "sweep_failed" in tape.getvalue())
            with pytest.raises(StoreUnavailable):
                store.put(record("refused"), now=NOW)
        store.put(record("live"), now=NOW)
        wait_until(lambda: rows(sqlite_url) == 1, timeout_s=60)


def test_the_file_is_as_small_as_before(sqlite_url: str) -> None:
    """SQLite: what a flood took is given back to the file system, except 1 MiB that is kept to be filled again."""
    path = sqlite_path(sqlite_url)
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        fill(store, BACKLOG, size=8000)
        full = path.stat().st_size
        assert full > 24 << 20
        wait_until(lambda: rows(sqlite_url) == 0, timeout_s=60)
        wait_until(lambda: path.stat().st_size < 3 << 20, timeout_s=60)
        log = path.with_name(path.name + "-wal")
        store.put(record("after"), now=NOW)
        assert log.stat().st_size < 9 << 20


def test_a_reader_only_delays_that(sqlite_url: str) -> None:
    """SQLite: a read that sees the file as it was keeps it from shrinking, and the next time it shrinks."""
    path = sqlite_path(sqlite_url)
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        fill_many(sqlite_url, Kind.GRANT, 6_000, ended="1 = 1", begun_at=NOW - DAY_S)
        with closing(SqliteDatabase(path).connect()) as writer:
            writer.execute(f"DELETE FROM {Kind.GRANT.value}")
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        full = path.stat().st_size
        with closing(SqliteDatabase(path).connect()) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master")
            for _ in range(10):  # each time a quarter of the rest stays free
                store.give_back()
            assert path.stat().st_size >= full
        store.give_back()
        assert path.stat().st_size < full // 2


def test_a_file_of_before_is_swept_all_the_same(sqlite_url: str) -> None:
    """One that was made without the means to give pages back keeps its size, and the sweep has an end."""
    path = sqlite_path(sqlite_url)
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        store.close()
        with closing(SqliteDatabase(path).connect()) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA auto_vacuum=NONE")
            connection.execute("VACUUM")
            connection.execute("PRAGMA journal_mode=WAL")
        fill(store, 1500, size=8000)
        wait_until(lambda: rows(sqlite_url) == 0, timeout_s=60)
        store.put(record("next", expires_at=NOW), now=NOW - 1)
        wait_until(lambda: rows(sqlite_url) == 0, timeout_s=60)
