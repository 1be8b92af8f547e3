"""The sweep in running servers: it keeps up with what is put, with each server, and needs no request to continue."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.storage.interface import Kind
from tests.flows.polling import wait_until
from tests.storage.stores import rows, sqlite_path
from tests.support.gunicorn import ADMIN, PROJECT, SECRET, Gunicorn, clean_environment
from tests.support.stopping import end_process

LOAD_S = 13.0
CLIENTS = 4
#: What waits, in seconds of putting: a second's life, the 5 s in which a worker looks, and how long a look takes.
WAITS_S = 9.0
#: What is left after a look: what lives, in whole seconds, and what ended meanwhile.
LEFT_S = 4.0


@dataclass(frozen=True)
class Sample:
    """What was seen at a moment: the rows that are there, and how many were put until then."""

    at_s: float
    rows: int
    put: int


def put_within(samples: Sequence[Sample], sample: Sample, last_s: float) -> int:
    """How many were put in the seconds before a sample; those whose answer is on its way are counted too."""
    before = [earlier.put for earlier in samples if earlier.at_s <= sample.at_s - last_s]
    return sample.put - max(before, default=0) + CLIENTS


@contextmanager
def signing_in(server: Gunicorn) -> Iterator[list[int]]:
    """Sign users in for a second each, as fast as it goes; how many it were so far."""
    made, stop = [0] * CLIENTS, threading.Event()

    def run(number: int) -> None:
        body = b'{"user_id": "ada", "expires_in": 1, "device": "' + b"x" * 200 + b'"}'
        while not stop.is_set():
            answer = server.call(
                "POST", "/api/auth/session", headers={"Authorization": f"Bearer {ADMIN}"}, body=body
            )
            assert answer.status == 201, answer.body
            made[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_it_keeps_up_with_what_is_put(request: pytest.FixtureRequest, worker_class: str) -> None:
    """Under as many sign-ins as it takes, each over after a second, only the last seconds' rows wait; then none.

    SQLite by workers of one thread, PostgreSQL by workers of four.
    """
    database_url = request.getfixturevalue("sqlite_url" if worker_class == "sync" else "postgres_url")
    argv = () if worker_class == "sync" else ("--threads", "4")
    if database_url.startswith("postgresql:"):
        subprocess.run(
            [sys.executable, "-m", "service", "migrate"],
            cwd=PROJECT,
            env=clean_environment(DATABASE_URL=database_url),
            check=True,
        )
    with Gunicorn(
        DATABASE_URL=database_url, PYLON_JWT_SECRET=SECRET, PYLON_ADMIN_TOKEN=ADMIN, argv=argv
    ) as server:
        samples = []
        with signing_in(server) as made:
            began = time.monotonic()
            while (at_s := time.monotonic() - began) < LOAD_S:
                samples.append(Sample(at_s, rows(database_url, Kind.SESSION), sum(made)))
                time.sleep(0.25)
        # Compared with what was put just before, not with the beginning: no machine is equally fast all the time.
        for sample in samples:
            assert sample.rows <= put_within(samples, sample, WAITS_S), samples
        lately = [sample for sample in samples if sample.at_s > LOAD_S - WAITS_S]
        assert any(sample.rows <= put_within(samples, sample, LEFT_S) for sample in lately), samples
        wait_until(lambda: rows(database_url, Kind.SESSION) == 0, timeout_s=60)
        assert "sweep_failed" not in server.output()


def test_it_works_in_granian(tmp_path: Path) -> None:
    """Another server runs the same callable, and what has ended goes there too."""
    url, socket_path = f"sqlite:///{tmp_path / 'pylon.db'}", tmp_path / "s"
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "2", "--no-ws"]
    command += ["--uds", str(socket_path), "service.wsgi:app"]
    environment = clean_environment(
        DATABASE_URL=url,
        PYLON_DATA_DIR=str(tmp_path),
        PYLON_JWT_SECRET=SECRET,
        PYLON_ADMIN_TOKEN=ADMIN,
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
    try:
        wait_until(socket_path.exists, timeout_s=60)
        for _ in range(20):
            _post_by_socket(socket_path)
        assert rows(url, Kind.SESSION) == 20
        wait_until(lambda: rows(url, Kind.SESSION) == 0, timeout_s=60)
    finally:
        end_process(process, 20)
    assert sqlite_path(url).exists()


def _post_by_socket(path: Path) -> None:
    from tests.support.gunicorn import _UnixConnection

    def ask() -> bool:
        with closing(_UnixConnection(path, 10)) as connection, suppress(OSError):
            connection.request(
                "POST",
                "/api/auth/session",
                body=b'{"user_id": "ada", "expires_in": 1}',
                headers={
                    "Host": "localhost",
                    "Authorization": f"Bearer {ADMIN}",
                    "Content-Type": "application/json",
                },
            )
            return connection.getresponse().status == 201
        return False

    wait_until(ask, timeout_s=60)  # until its first worker has begun
