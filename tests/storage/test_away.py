"""A database that is away has its own error, and nothing has to be restarted when it is back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from service.handles import hash_handle
from service.storage.interface import Fitting, Kind, StoreUnavailable
from service.storage.postgres import PostgresDatabase
from service.storage.sql import SqlStore
from service.storage.sweeping import Sweeper
from tests.flows.polling import wait_until
from tests.storage.outages import Outage, SqliteOutage
from tests.storage.stores import NOW, open_url, record, sqlite_path
from tests.support.pace import in_time
from tests.support.postgres import PostgresCluster

ID = record().id_hash
VERBS: dict[str, Callable[[SqlStore], object]] = {
    "put": lambda store: store.put(record("new"), now=NOW),
    "get": lambda store: store.get(Kind.SESSION, ID, now=NOW),
    "take": lambda store: store.take(Kind.SESSION, ID, now=NOW),
    "swap": lambda store: store.swap(record("grant", kind=Kind.GRANT), now=NOW),
    "change": lambda store: store.change(Kind.USER, "id", lambda known: known, new=record(), now=NOW),
    "replace": lambda store: store.replace(Kind.SESSION, ID, record("two"), now=NOW),
    "list": lambda store: store.list(Kind.SESSION, subject="", now=NOW),
    "delete": lambda store: store.delete(Fitting(Kind.SESSION, subject=""), now=NOW),
    "delete_expired": lambda store: store.delete_expired(now=NOW, limit=9),
    "schema_state": lambda store: store.schema_state(),
}

CLIENTS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def _unavailable(store: SqlStore) -> list[str]:
    """The verbs that raise `StoreUnavailable` now."""
    told = []
    for name, ask in VERBS.items():
        try:
            ask(store)
        except StoreUnavailable:
            told.append(name)
    return told


def test_every_verb_tells_an_outage(store: SqlStore, outage: Callable[[], Outage]) -> None:
    """While the database is away each verb raises `StoreUnavailable`, also over connections that were open."""
    store.put(record(), now=NOW)
    assert store.get(Kind.SESSION, ID, now=NOW) is not None
    with outage():
        assert _unavailable(store) == list(VERBS)
        assert _unavailable(store) == list(VERBS)


def test_all_heals_when_the_database_is_back(store: SqlStore, outage: Callable[[], Outage]) -> None:
    """Back again, each verb works at the first call, with every record that was there."""
    store.put(record(), now=NOW)
    store.get(Kind.SESSION, ID, now=NOW)
    with outage():
        _unavailable(store)
    assert store.get(Kind.SESSION, ID, now=NOW) == record()
    assert _unavailable(store) == []


def test_an_outage_that_nobody_noticed_does_no_harm(store: SqlStore, outage: Callable[[], Outage]) -> None:
    """A database that was away between two calls, as in a restart, is not noticed by reads or writes."""
    store.put(record(), now=NOW)
    store.get(Kind.SESSION, ID, now=NOW)
    with outage():
        pass
    assert store.get(Kind.SESSION, ID, now=NOW) == record()
    assert store.put(record("after"), now=NOW) is True


def test_a_write_refused_for_an_outage_was_not_made(store: SqlStore, outage: Callable[[], Outage]) -> None:
    """After `StoreUnavailable` nothing of the call is kept."""
    store.put(record(), now=NOW)
    with outage():
        _unavailable(store)
    assert store.list(Kind.SESSION, subject="", now=NOW) == [record()]


def test_a_moved_file_is_not_made_anew(sqlite_url: str) -> None:
    """While SQLite's file is away, nothing makes a new and empty one in its place."""
    store, path = _store_with_one(sqlite_url)
    with SqliteOutage(path):
        _unavailable(store)
        assert not list(path.parent.glob(f"{path.name}*[!k]")), "only the migration's lock stays"
    store.close()


def test_another_file_in_its_place_is_read_at_once(sqlite_url: str) -> None:
    """A restored SQLite file is what is asked from then on: nothing of the old one is answered."""
    store, path = _store_with_one(sqlite_url)
    other = open_url(f"sqlite:///{path}.restored")
    other.migrate()
    other.put(record("restored"), now=NOW)
    other.close()
    with SqliteOutage(path):
        Path(f"{path}.restored").rename(path)
        assert store.get(Kind.SESSION, ID, now=NOW) is None
        assert store.get(Kind.SESSION, hash_handle("restored"), now=NOW) is not None
        assert store.take(Kind.SESSION, ID, now=NOW) is None
        store.close()
    assert store.get(Kind.SESSION, ID, now=NOW) == record()
    store.close()


@pytest.mark.parametrize("content", [b"", b"not a database, but a text of some length\n" * 40])
def test_a_file_that_is_no_database_is_an_outage(sqlite_url: str, content: bytes) -> None:
    """An empty or a foreign file in the database's place is an error, is left as it is, and all is well when it is gone."""
    store, path = _store_with_one(sqlite_url)
    with SqliteOutage(path):
        path.write_bytes(content)
        assert set(VERBS) - set(_unavailable(store)) <= {"schema_state"}
        assert path.read_bytes() == content
    assert store.get(Kind.SESSION, ID, now=NOW) == record()
    store.close()


def _store_with_one(url: str) -> tuple[SqlStore, Path]:
    store = open_url(url)
    store.migrate()
    store.put(record(), now=NOW)
    assert store.get(Kind.SESSION, ID, now=NOW) is not None
    return store, sqlite_path(url)


def test_a_read_only_postgresql_is_an_outage_for_writes(postgres_url: str) -> None:
    """A server that has become a standby refuses writes as unavailable, and still answers reads."""
    store = open_url(postgres_url)
    store.migrate()
    store.put(record(), now=NOW)
    store.close()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
        try:
            assert _unavailable(store) == [
                "put",
                "take",
                "swap",
                "change",
                "replace",
                "delete",
                "delete_expired",
            ]
        finally:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute("ALTER ROLE CURRENT_USER RESET default_transaction_read_only")
    store.close()
    assert store.get(Kind.SESSION, ID, now=NOW) == record()
    store.close()


def test_a_thread_keeps_one_connection(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever verbs a thread calls, it holds one connection, which `close` lets go of."""
    monkeypatch.setattr(Sweeper, "begin", lambda _sweeper, _now: None)  # its thread would hold one too
    store = open_url(postgres_url)
    store.migrate()
    with psycopg.connect(postgres_url, autocommit=True) as admin:

        def held() -> int:
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'pylon-oidc' AND datname = current_database()"
            ).fetchone()
            assert row is not None
            return int(row[0])

        for ask in VERBS.values():
            ask(store)
        assert held() == 1
        with ThreadPoolExecutor(1) as other:
            other.submit(store.get, Kind.SESSION, ID, now=NOW).result()
            assert held() == 2
        store.close()
        wait_until(lambda: held() <= 1)


@pytest.mark.parametrize("verb", ["get", "put", "list", "schema_state"])
def test_a_postgresql_that_does_not_answer_is_an_outage(postgres_url: str, verb: str) -> None:
    """A caller that waits too long for an answer gets `StoreUnavailable`; then all heals by itself."""
    store = SqlStore(PostgresDatabase(postgres_url, answer_within_s=1.0))
    store.migrate()
    store.close()  # the migration's own connection waits without end
    store.put(record(), now=NOW)
    store.get(Kind.SESSION, ID, now=NOW)
    with psycopg.connect(postgres_url) as holder:
        holder.execute("LOCK TABLE session, alembic_version IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            VERBS[verb](store)
        holder.rollback()
    wait_until(lambda: not _unavailable(store))
    store.close()


def test_a_write_that_waits_too_long_ends_at_the_server(postgres_url: str) -> None:
    """A lock that is never given back makes one write unavailable, not the reads behind it; nothing keeps waiting."""
    store = SqlStore(PostgresDatabase(postgres_url, answer_within_s=1.0))
    store.migrate()
    store.put(record(), now=NOW)
    with psycopg.connect(postgres_url) as holder, psycopg.connect(postgres_url, autocommit=True) as admin:
        holder.execute("LOCK TABLE session IN EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="in time"):
                store.put(record("new"), now=NOW)
            assert store.get(Kind.SESSION, ID, now=NOW) == record()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert admin.execute(waiting).fetchone() == (0,)
        holder.rollback()
    assert store.put(record("new"), now=NOW) is True
    store.close()


def test_a_server_that_is_silent_is_asked_less_often(
    postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    """A frozen server costs one wait; until it has had time to come back, who asks is refused at once."""
    store = SqlStore(PostgresDatabase(postgres_url, answer_within_s=1.0))
    store.migrate()
    store.put(record(), now=NOW)
    store.get(Kind.SESSION, ID, now=NOW)
    pids = [pid for (pid,) in postgres_cluster.execute(CLIENTS)]
    frozen = [postgres_cluster.pid, *pids]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.get(Kind.SESSION, ID, now=NOW)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="a moment ago"):
            store.get(Kind.SESSION, ID, now=NOW)
        assert in_time(time.monotonic() - began, 1.0)  # for which the first one waited
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not _unavailable(store))
    store.close()


def test_a_migration_waits_as_long_as_it_takes(postgres_url: str) -> None:
    """Replicas that migrate at once wait for each other, however long that is."""
    store = SqlStore(PostgresDatabase(postgres_url, answer_within_s=0.1))
    with ThreadPoolExecutor(1) as threads, psycopg.connect(postgres_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (0x70796C6F6E,))
        migration = threads.submit(store.migrate)
        with pytest.raises(TimeoutError):
            migration.result(timeout=0.5)
        holder.rollback()
        migration.result(timeout=60)
    store.close()
    with closing(open_url(postgres_url)) as other:
        assert other.schema_state() == "current"
