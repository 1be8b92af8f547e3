"""The store under test, on a fresh database of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from service.storage.sql import SqlStore
from tests.storage.outages import Outage, PostgresOutage, SqliteOutage
from tests.storage.stores import open_url, sqlite_path
from tests.support.postgres import PostgresCluster


@pytest.fixture
def unmigrated_store(database_url: str) -> Iterator[SqlStore]:
    """A store on an empty database."""
    if database_url.startswith("sqlite:"):
        sqlite_path(database_url).touch()
    store = open_url(database_url)
    yield store
    store.close()


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    """A store with its schema."""
    store = open_url(database_url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def second_store(store: SqlStore, database_url: str) -> Iterator[SqlStore]:
    """Another process's view of the database of `store`, as far as connections go."""
    second = open_url(database_url)
    yield second
    second.close()


@pytest.fixture
def outage(database_url: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], Outage]]:
    """Takes the database of `database_url` away while the context lasts."""
    if database_url.startswith("sqlite:"):
        path = sqlite_path(database_url)
        yield lambda: SqliteOutage(path)
    else:
        cluster = request.getfixturevalue("postgres_cluster")
        assert isinstance(cluster, PostgresCluster)
        yield lambda: PostgresOutage(cluster)
