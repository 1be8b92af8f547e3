"""The sweep in running servers: it keeps up with what is put, whatever the server, and needs no request to go on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from service.storage.interface import Kind
from tests.flows.polling import wait_until
from tests.storage.stores import rows, sqlite_path
from tests.support.gunicorn import ADMIN, PROJECT, SECRET, Gunicorn, clean_environment
from tests.support.stopping import end_process

LOAD_S = 12.0
CLIENTS = 4


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
    """Under as many sign-ins as it takes, each over after a second, the tables do not grow; then they are empty.

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
        there = []
        with signing_in(server) as made:
            end = time.monotonic() + LOAD_S
            while time.monotonic() < end:
                time.sleep(0.25)
                there.append(rows(database_url, Kind.SESSION))
            put = sum(made)
        half = len(there) // 2
        # A worker looks every 5 s at most while there is something: that much waits, and never more.
        assert max(there) < put * 9 / LOAD_S, (there, put)
        assert max(there[half:]) < 1.3 * max(there[:half]), (there, put)
        wait_until(lambda: rows(database_url, Kind.SESSION) == 0, timeout_s=30)
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
        wait_until(socket_path.exists, timeout_s=30)
        for _ in range(20):
            _post_by_socket(socket_path)
        assert rows(url, Kind.SESSION) == 20
        wait_until(lambda: rows(url, Kind.SESSION) == 0, timeout_s=30)
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

    wait_until(ask)
