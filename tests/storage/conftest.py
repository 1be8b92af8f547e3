"""The store under test, on a fresh database of each kind."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from service.storage.sql import SqlStore
from tests.storage.outages import Outage, PostgresOutage, SqliteOutage
from tests.storage.stores import open_url, sqlite_path
from tests.support.postgres import PostgresCluster


@pytest.fixture
def quiet() -> Iterator[None]:
    """No line a request."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database without any schema, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database with its schema, once of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "pylon.sqlite3"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    cluster = request.getfixturevalue("postgres_cluster")
    cluster.start()
    url = cluster.create_database(like=request.getfixturevalue("migrated_postgres"))
    yield url
    cluster.start()
    cluster.drop_database(url)


@pytest.fixture
def unmigrated_store(empty_database_url: str) -> Iterator[SqlStore]:
    """A store on an empty database."""
    if empty_database_url.startswith("sqlite:"):
        sqlite_path(empty_database_url).touch()
    store = open_url(empty_database_url)
    yield store
    store.close()


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    """A store with its schema."""
    store = open_url(database_url)
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
