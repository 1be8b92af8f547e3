"""What is killed loses nothing that was answered for; what is asked to stop finishes first (docs/deploy.md)."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import Engine, event

from service.storage.interface import Kind
from service.storage.sqlite import BUSY_TIMEOUT_S, SqliteDatabase
from tests.flows.polling import wait_until
from tests.storage.outages import hanging, migrated_database
from tests.storage.stores import NOW, migrate, open_url, record
from tests.support.gunicorn import ADMIN, PROJECT, SECRET, Gunicorn, clean_environment
from tests.support.pace import in_time

SETTINGS = {
    "PYLON_JWT_SECRET": SECRET,
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_OIDC_ISSUER": "https://id.example.com",
}
CLIENTS = 6


@dataclass
class Load:
    """Clients that sign users in, refresh and mint without a pause, and note what they were answered."""

    server: Gunicorn
    #: The newest token of each user whose every request was answered.
    tokens: dict[str, str] = field(default_factory=dict)
    #: Users of whom a request went unanswered: the session may be there, or under a token that nobody saw.
    uncertain: set[str] = field(default_factory=set)
    #: Our ports of the connections on which no answer came, and what came instead.
    unanswered: dict[int, str] = field(default_factory=dict)
    #: Answers that are no success.
    refused: list[tuple[int, bytes]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _ask(self, path: str, token: str, status: int, body: object = None) -> str:
        """Send one request; its token when it was answered, else an empty text."""
        connection, begun = self.server.connection(60), time.monotonic()
        connection.connect()
        port = connection.sock.getsockname()[1]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", path, body=None if body is None else json.dumps(body), headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.unanswered[port] = f"{time.monotonic() - begun:.1f} s, then {error!r}"
            return ""
        finally:
            connection.close()
        if answer.status != status:
            self.refused.append((answer.status, content))
            return ""
        return str(json.loads(content)["token"])

    def _run(self, client: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            user = f"user-{client}-{number}"
            self.uncertain.add(user)
            token = self._ask("/api/auth/session", ADMIN, 201, {"user_id": user})
            if not token:
                continue
            newer = self._ask("/api/auth/refresh", token, 200)
            if not newer:
                continue
            self.tokens[user] = newer
            self.uncertain.discard(user)
            self._ask("/api/auth/jwt", newer, 200)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The clients run while the context lasts."""
        clients = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._stop.set()
            for client in clients:
                client.join()

    def wait_for_more(self, count: int) -> None:
        """Return when that many more users are signed in."""
        enough = len(self.tokens) + count
        wait_until(lambda: len(self.tokens) >= enough, 30)


def _kill(server: Gunicorn, pid: int) -> set[int]:
    """Kill a worker; the clients' ports of the connections that it held."""
    worker = psutil.Process(pid)
    worker.suspend()  # so that it takes no further connection between the look and the kill
    wait_until(lambda: worker.status() == psutil.STATUS_STOPPED)
    # The kernel's list is read in pieces, and may miss what is there while others come and go: it is read three times.
    held = {
        wire.raddr.port
        for _ in range(3)
        for wire in worker.net_connections("tcp")
        if wire.laddr.port == server.port and wire.raddr
    }
    worker.kill()
    wait_until(lambda: pid not in server.worker_pids() and len(server.worker_pids()) == 2)
    return held


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def struck(request: pytest.FixtureRequest) -> Iterator[tuple[Load, set[int]]]:
    """A server two of whose workers were killed under load: what its clients saw, and what the killed ones held."""
    with (
        migrated_database(request) as (url, _),
        Gunicorn(DATABASE_URL=url, **SETTINGS) as server,
    ):
        load, held = Load(server), set()
        with load.running():
            for _ in range(2):
                load.wait_for_more(20)
                held |= _kill(server, server.worker_pids()[0])
            load.wait_for_more(20)
        yield load, held


def test_a_killed_worker_loses_no_acknowledged_session(struck: tuple[Load, set[int]]) -> None:
    """Every session whose token was answered, by sign-in or refresh, still mints after workers were killed."""
    load, _ = struck
    assert len(load.tokens) >= 60
    statuses = {user: load.server.mint(token).status for user, token in load.tokens.items()}
    assert {user: status for user, status in statuses.items() if status != 200} == {}


def test_a_killed_worker_doubles_no_session(struck: tuple[Load, set[int]]) -> None:
    """Nobody has two sessions after one sign-in and a refresh, also when the answer was lost with the worker."""
    load, _ = struck
    headers = {"Authorization": f"Bearer {ADMIN}"}
    for user in [*load.uncertain, *list(load.tokens)[:20]]:
        listed = load.server.call("GET", f"/api/auth/users/{user}/sessions", headers=headers).json()[
            "sessions"
        ]
        assert len(listed) == 1 or (user in load.uncertain and not listed)


def test_no_request_fails_but_those_of_the_killed_worker(struck: tuple[Load, set[int]]) -> None:
    """Only requests that a killed worker held stay without an answer, and none gets an error for one."""
    load, held = struck
    assert {port: what for port, what in load.unanswered.items() if port not in held} == {}
    assert load.refused == []


def hang_in_a_migration() -> None:
    """A module of the tests: migrate `DATABASE_URL`, and hang when it makes a table until it may continue."""

    def hang(statement: str) -> None:
        if "CREATE TABLE session" in statement:
            print("in the middle", flush=True)
            sys.stdin.readline()

    def connect(database: SqliteDatabase) -> Any:
        connection = connected(database)
        connection.set_trace_callback(hang)
        return connection

    connected, SqliteDatabase.connect = SqliteDatabase.connect, connect
    event.listen(Engine, "after_cursor_execute", lambda _connection, _cursor, sql, *_: hang(sql))
    migrate(os.environ["DATABASE_URL"])


def _hanging_migration(url: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process in the middle of its migration's transaction."""
    return hanging(f"from {__name__} import hang_in_a_migration as hang; hang()", url)


def test_a_migration_killed_in_the_middle_left_nothing(database_url: str) -> None:
    """After `kill -9` in a migration's transaction the schema is as it was before, and `migrate` makes it whole."""
    with _hanging_migration(database_url) as process:
        process.kill()
        process.wait()
    with closing(open_url(database_url)) as store:
        wait_until(lambda: store.schema_state() == "behind")
        store.migrate()
        assert store.schema_state() == "current"
        assert store.put(record(), now=NOW) is True
        assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()


def test_a_server_starts_after_a_migration_killed_in_the_middle(
    gunicorn: Callable[..., Gunicorn], sqlite_url: str
) -> None:
    """The next start migrates an SQLite database whose migration was killed, and works."""
    with _hanging_migration(sqlite_url) as process:
        process.kill()
        process.wait()
    server = gunicorn(DATABASE_URL=sqlite_url, **SETTINGS)
    assert server.call("GET", "/readyz").status == 200
    assert server.mint(server.sign_in()).status == 200


@contextmanager
def _waiting_migration(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `migrate` that waits for another one to end."""
    command = [sys.executable, "-m", "service", "migrate"]
    process = subprocess.Popen(command, cwd=PROJECT, env=clean_environment(DATABASE_URL=url))
    try:
        if url.startswith("postgresql:"):
            with psycopg.connect(url, autocommit=True) as watcher:
                waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
                wait_until(lambda: watcher.execute(waiting).fetchone())
        else:
            with pytest.raises(subprocess.TimeoutExpired):  # longer than SQLite itself waits for a lock
                process.wait(BUSY_TIMEOUT_S + 1.5)
        yield process
    finally:
        process.kill()
        process.wait()


def test_who_waits_for_a_migration_goes_on_when_it_is_killed(database_url: str) -> None:
    """A second `migrate` waits for the first one, and does the work when that one dies."""
    with _hanging_migration(database_url) as first, _waiting_migration(database_url) as second:
        first.kill()
        assert second.wait(30) == 0
    with closing(open_url(database_url)) as store:
        assert store.schema_state() == "current"


def test_who_waits_for_a_migration_has_nothing_left_to_do(database_url: str) -> None:
    """A second `migrate` waits for the first one, and succeeds when that one has done the work."""
    with _hanging_migration(database_url) as first, _waiting_migration(database_url) as second:
        first.communicate("continue\n", timeout=90)
        assert first.returncode == 0
        assert second.wait(30) == 0
    with closing(open_url(database_url)) as store:
        assert store.schema_state() == "current"


def _held_by_a_worker(server: Gunicorn, port: int) -> bool:
    """Whether a worker has accepted our connection."""
    return any(
        wire.raddr and wire.raddr.port == port
        for pid in server.worker_pids()
        for wire in psutil.Process(pid).net_connections("tcp")
    )


@pytest.fixture
def plain(each_server: str, gunicorn: Callable[..., Gunicorn]) -> Gunicorn:
    """A server on SQLite with both its workers up."""
    server = gunicorn(**SETTINGS)
    wait_until(lambda: len(server.worker_pids()) == 2)
    return server


def test_a_request_under_way_is_finished_after_sigterm(plain: Gunicorn) -> None:
    """A request that a worker has begun is answered in full after SIGTERM, then the server ends with 0."""
    body = json.dumps({"user_id": "late"}).encode()
    with closing(plain.connection()) as connection:
        connection.connect()
        connection.putrequest("POST", "/api/auth/session")
        for name, value in {
            "Authorization": f"Bearer {ADMIN}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }.items():
            connection.putheader(name, value)
        connection.endheaders(body[:5])
        port = connection.sock.getsockname()[1]
        wait_until(lambda: _held_by_a_worker(plain, port))
        plain.process.send_signal(signal.SIGTERM)
        wait_until(lambda: re.search("Handling signal: term|Shutting down granian", plain.output()))
        with pytest.raises(subprocess.TimeoutExpired):
            plain.wait(1)
        connection.send(body[5:])
        answer = connection.getresponse()
        assert answer.status == 201
        assert json.loads(answer.read())["user_id"] == "late"
    assert plain.wait() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_soon(plain: Gunicorn, how: signal.Signals) -> None:
    """Without a request under way SIGTERM, or Ctrl-C, ends the server with 0 within a few seconds."""
    assert plain.mint(plain.sign_in()).status == 200
    begun = time.monotonic()
    plain.process.send_signal(how)
    assert plain.wait() == 0
    assert in_time(time.monotonic() - begun, 12)


def test_no_process_is_left_behind(plain: Gunicorn) -> None:
    """After the end of the master none of its workers lives, and nobody listens at its port."""
    family = psutil.Process(plain.pid).children(recursive=True)
    assert plain.stop() == 0
    assert psutil.wait_procs(family, timeout=60)[1] == []
    with pytest.raises(ConnectionRefusedError):
        plain.call("GET", "/healthz")
