"""Somebody else holds the write lock for long: writers get an error in time, and nobody else notices."""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest

from service.storage.schema import TABLES
from tests.flows.polling import wait_until
from tests.storage.outages import migrated_database
from tests.storage.stores import sqlite_path
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn, on
from tests.support.pace import in_time

SETTINGS = {"PYLON_JWT_SECRET": SECRET, "PYLON_ADMIN_TOKEN": ADMIN, "WEB_CONCURRENCY": "2"}
HELD_S = 8.0
WRITERS = 24
#: What a write may take that others keep from its turn: 5 s for the lock, and before that for a thread.
DEADLINE_S = 7.9


@contextlib.contextmanager
def held(url: str) -> Iterator[None]:
    """The write lock, held by a process that is not the server's, as long as the block lasts."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(sqlite_path(url), isolation_level=None, timeout=10)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.close()
        return
    with psycopg.connect(url) as server:
        names = ", ".join(table.name for table in TABLES.values())
        server.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
        yield
        server.rollback()


@dataclass
class Seen:
    """What the clients of one kind saw."""

    took: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


class Clients:
    """Clients that ask again and again while the block lasts."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def ask(self, status: Callable[[], int], *, pause_s: float = 0.05) -> Seen:
        """Begin another client; what it sees."""
        seen = Seen()

        def run() -> None:
            while not self._over.is_set():
                began = time.monotonic()
                seen.statuses.append(status())
                seen.took.append(time.monotonic() - began)
                time.sleep(pause_s)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return seen

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """End them with the block."""
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(20)


def _answered(
    server: Gunicorn, method: str, path: str, headers: dict[str, str], body: bytes | None, status: int
) -> bool:
    return server.call(method, path, headers=headers, body=body).status == status


@pytest.mark.parametrize(
    "case",
    ["sqlite", "postgres", "postgres with PORT", "sqlite on granian", "postgres on granian"],
)
def test_a_slow_write_stops_nobody_else(request: pytest.FixtureRequest, case: str) -> None:
    """For 8 s nothing can be written: mints, documents and health answer as before, writes are 503; all is well at once afterwards."""
    port = "4321" if case.endswith("with PORT") else None
    with (
        migrated_database(request, case) as (url, _),
        Gunicorn(**on(case), DATABASE_URL=url, PORT=port, **SETTINGS) as server,
    ):
        token = server.sign_in()
        admin = {"Authorization": f"Bearer {ADMIN}"}

        def write() -> int:
            body = {"user_id": "ada"}
            return server.call("POST", "/api/auth/session", headers=admin, body=body, timeout=30).status

        clients = Clients()
        with clients.at_work(), held(url):
            held_until = time.monotonic() + HELD_S
            writing = [clients.ask(write) for _ in range(WRITERS)]
            time.sleep(0.5)
            reading = [clients.ask(lambda: server.mint(token).status)]
            for path in ("/oidc/jwks", "/.well-known/openid-configuration", "/healthz", "/readyz"):
                reading.append(clients.ask(lambda path=path: server.call("GET", path).status))
            session = {"Authorization": f"Bearer {token}"}
            form = admin | {"Content-Type": "application/x-www-form-urlencoded"}
            for method, path, headers, body, status in (
                ("GET", "/api/auth/me", session, None, 200),
                ("GET", "/oidc/userinfo", session, None, 401),
                ("POST", "/oidc/introspect", form, b"token=a", 200),
            ):
                asked = (method, path, headers, body, status)
                reading.append(clients.ask(lambda asked=asked: 200 if _answered(server, *asked) else 0))
            time.sleep(max(0.0, held_until - time.monotonic()))
        for seen in reading:
            assert set(seen.statuses) == {200}
            assert len(seen.took) > 20
            print(f"median {statistics.median(seen.took):.4f} s, longest {max(seen.took):.4f} s")
            assert in_time(statistics.median(seen.took), 0.1)
            assert in_time(max(seen.took), 2.5)  # behind a write it was 4.8 s and more
        for seen in writing:
            assert seen.statuses[0] == 503
            assert in_time(max(seen.took), DEADLINE_S)
        released = time.monotonic()
        wait_until(lambda: write() == 201)
        assert in_time(time.monotonic() - released, 1)
        assert write() == 201
