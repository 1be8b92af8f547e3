"""A mint asks the database once; a code is one transaction, an exchange and a refresh are one statement that writes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from webtest import TestApp

from service.app import create_app
from service.keys.signing import Keys
from service.keys.starting import load_keyring
from service.records.sessions import SignIn
from service.sessions import LocalSessions
from service.settings import read_settings
from service.storage.interface import Fitting, Kind
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.storage.stores import open_url, sqlite_path
from tests.storage.worlds import ACTS, new_scene, world_on
from tests.support.gunicorn import SECRET
from tests.support.postgres import PostgresCluster

MINTS = 20


class _TracedSqlite(SqliteDatabase):
    """SQLite whose every connection notes each statement that it runs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.statements: list[str] = []

    def connect(self) -> Any:
        connection = super().connect()
        connection.set_trace_callback(self.statements.append)
        return connection


def _traced_sqlite(url: str) -> tuple[SqlStore, Callable[[], list[str]]]:
    database = _TracedSqlite(sqlite_path(url))
    return SqlStore(database), lambda: database.statements


def _traced_postgres(url: str, cluster: PostgresCluster) -> tuple[SqlStore, Callable[[], list[str]]]:
    name = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE \"{name}\" SET log_statement = 'all'")
    pattern = re.compile(r"LOG:  (?:statement|execute [^:]+): (.*(?:\n\t.*)*)")
    return open_url(url), lambda: pattern.findall(cluster.log())


@pytest.fixture
def traced(
    database_url: str, request: pytest.FixtureRequest
) -> Iterator[tuple[SqlStore, Callable[[], list[str]]]]:
    """A store, and what has reached its database so far, as the database itself reports it."""
    if database_url.startswith("sqlite:"):
        store, statements = _traced_sqlite(database_url)
    else:
        store, statements = _traced_postgres(database_url, request.getfixturevalue("postgres_cluster"))
    store.migrate()
    yield store, statements
    store.close()


def test_a_mint_is_one_statement(traced: tuple[SqlStore, Callable[[], list[str]]]) -> None:
    """Each `POST /api/auth/jwt` sends the database one statement, a SELECT, and opens no transaction."""
    store, statements = traced
    settings = read_settings({"PYLON_JWT_SECRET": SECRET}).settings
    sessions = LocalSessions(store, lifetime_s=60)
    app = TestApp(create_app(settings, store, Keys(load_keyring(settings, make_key_file=False))))
    new = sessions.create(SignIn(user_id="alice"), now=int(time.time()))
    headers = {"Authorization": f"Bearer {new.token}", "Host": "id.example.com"}
    app.post("/api/auth/jwt", headers=headers, status=200)  # opens the connection
    before = len(statements())
    for _ in range(MINTS):
        app.post("/api/auth/jwt", headers=headers, status=200)
    made = statements()[before:]
    assert len(made) == MINTS, made
    assert all(re.match(r'SELECT [^()]+ FROM ("public"\.)?session WHERE', statement) for statement in made), (
        made
    )


def _shape(statements: list[str]) -> list[str]:
    """The first word of each, with its table; not with the tables of statements within it."""
    shapes = []
    for statement in statements:
        outer = re.sub(r"\(SELECT [^()]*\)", "", statement)
        table = re.search(r'(?:FROM|INTO|UPDATE)\s+(?:"public"\.)?(\w+)', outer)
        shapes.append(f"{statement.split()[0]} {table[1] if table else ''}".strip())
    return shapes


def test_a_flow_writes_three_times(
    traced: tuple[SqlStore, Callable[[], list[str]]], database_url: str
) -> None:
    """What a code, its exchange and a refresh ask of the database, statement by statement.

    The two locks on what a code stands on, its session and its client, are all that it costs not to be issued during
    their end.
    """
    store, statements = traced
    world = world_on(store, database_url)
    scene = new_scene(world, first_party=True)

    def asked(act: str) -> list[str]:
        before = len(statements())
        assert ACTS[act](world, scene).status in {200, 303}
        return _shape(statements()[before:])

    reads = ["SELECT client", "SELECT session", "SELECT visit"]
    stored = ["BEGIN", "SELECT session", "SELECT client", "INSERT oauth_grant", "COMMIT"]
    # By then the session has signed its user in to the client.
    assert asked("authorize") == reads + stored
    store.delete(Fitting(Kind.VISIT, subject=scene.user), now=scene.now)
    assert asked("authorize") == [*reads, *stored[:-1], "INSERT visit", "COMMIT"]
    used = ["SELECT client", "SELECT oauth_grant", "UPDATE oauth_grant"]  # the grant is read with its user
    assert asked("redeem") == used
    assert asked("refresh") == used
