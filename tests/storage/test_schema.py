"""The schema: how it comes to be, and how a program knows that it fits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import BigInteger, MetaData, insert, inspect, select, text
from sqlalchemy.exc import OperationalError

import service.storage
from service.clients import Clients
from service.handles import hash_handle, new_session_token
from service.sessions import LocalSessions
from service.storage.interface import Kind, StoreUnavailable
from service.storage.schema import HEAD, REVISIONS, TABLES
from service.storage.sql import SqlStore
from tests.storage.make_tables import TABLES_SQL, tables_sql
from tests.storage.stores import NOW, engine_of, migrated_to, open_url, record, sqlite_path
from tests.support.gunicorn import PROJECT


def _set_revision(url: str, revision: str) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def test_the_schema_head_is_the_newest_migration() -> None:
    """There is one newest revision, and it is the one that the program works on."""
    config = Config()
    config.set_main_option("script_location", str(Path(service.storage.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def _tables_of(url: str) -> dict[str, set[str]]:
    """The tables of a database, with the names of their columns."""
    engine, found = engine_of(url), MetaData()
    found.reflect(engine)
    engine.dispose()
    return {table.name: {column.name for column in table.columns} for table in found.tables.values()}


def test_the_migrations_make_the_tables_of_the_program(store: SqlStore, database_url: str) -> None:
    """After the migrations the database has the tables and columns of `schema`, and no others."""
    known = {table.name: {*table.columns, *table.unused} for table in (*TABLES.values(), REVISIONS)}
    assert _tables_of(database_url) == known


def test_both_databases_have_the_same_indexes(sqlite_url: str, postgres_url: str) -> None:
    """The migrations make the same indexes in both, on the same columns."""
    found = []
    for url in (sqlite_url, postgres_url):
        migrated_to(url, HEAD)
        engine = engine_of(url)
        inspector = inspect(engine)
        found.append(
            {
                table: {index["name"]: index["column_names"] for index in inspector.get_indexes(table)}
                for table in inspector.get_table_names()
            }
        )
        engine.dispose()
    assert found[0] == found[1]
    assert found[0]["session"]["ix_session_expires_at"] == ["expires_at"]


def test_a_new_sqlite_database_is_what_the_migrations_make() -> None:
    """It is created in one step, from a file that says the same as all migrations, one after the other."""
    assert TABLES_SQL.read_text() == tables_sql(), "run: python -m tests.storage.make_tables"


def test_a_new_sqlite_database_is_created_without_migrations(sqlite_url: str) -> None:
    """Neither SQLAlchemy nor Alembic is loaded for it, and one that has a table of somebody else is not new."""
    path = sqlite_path(sqlite_url)
    code = """if True:
        import sys
        from pathlib import Path
        from service.storage.sql import SqlStore
        from service.storage.sqlite import SqliteDatabase

        SqlStore(SqliteDatabase(Path(sys.argv[1]))).migrate()
        print(*sorted({"sqlalchemy", "alembic"} & set(sys.modules)))
    """
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, path], cwd=PROJECT, text=True, capture_output=True, check=True
        )
        told.append(done.stdout.strip())
        with closing(open_url(sqlite_url)) as store:
            assert store.schema_state() == "current"
        path.unlink()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE notes (id INTEGER)")
    assert told == ["", "alembic sqlalchemy"]


def test_an_empty_database_is_behind(unmigrated_store: SqlStore) -> None:
    """Before the first migration the schema is behind; asking does not make one."""
    assert unmigrated_store.schema_state() == "behind"
    assert unmigrated_store.schema_state() == "behind"


def test_a_migrated_database_is_current(unmigrated_store: SqlStore) -> None:
    """After `migrate` the schema is current."""
    unmigrated_store.migrate()
    assert unmigrated_store.schema_state() == "current"


@pytest.mark.parametrize(("revision", "state"), [("0000", "behind"), ("9999", "ahead")])
def test_another_version_s_schema_is_told(
    store: SqlStore, database_url: str, revision: str, state: str
) -> None:
    """An older revision is behind, one that a newer version made is ahead."""
    _set_revision(database_url, revision)
    assert store.schema_state() == state


OLD_SESSION = text(
    "INSERT INTO session (id_hash, subject, grant_id, expires_at, body)"
    " VALUES (:id_hash, :subject, :grant_id, :expires_at, :body)"
)


def _put_as_0001(url: str, token: str, sid: str) -> None:
    """Store a session as the version of revision 0001 does."""
    body = {
        "token_prefix": token[:12],
        "created_at": NOW,
        "lifetime_s": 60,
        "auth_time": NOW,
        "tenant_id": None,
        "roles": ["a"],
        "claims": {"name": "Ada"},
        "device": "Firefox",
        "acr": None,
        "amr": ["pwd"],
    }
    row = {
        "id_hash": hash_handle(token),
        "subject": "alice",
        "grant_id": sid,
        "expires_at": NOW + 60,
        "body": json.dumps(body),
    }
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(OLD_SESSION, row)
    engine.dispose()


def test_sessions_outlive_the_upgrade_from_0001(unmigrated_store: SqlStore, empty_database_url: str) -> None:
    """Who is signed in stays signed in, under the same `sid`, which is where what hangs on the session is found."""
    migrated_to(empty_database_url, "0001")
    assert unmigrated_store.schema_state() == "behind"
    tokens = {new_session_token(): f"sid-{number}" for number in range(3)}
    for token, sid in tokens.items():
        _put_as_0001(empty_database_url, token, sid)
    unmigrated_store.migrate()
    assert unmigrated_store.schema_state() == "current"
    sessions = LocalSessions(unmigrated_store, lifetime_s=60)
    for token, sid in tokens.items():
        kept = unmigrated_store.get(Kind.SESSION, hash_handle(token), now=NOW)
        assert kept is not None
        assert (kept.session_id, kept.grant_id) == (sid, "")
        session = sessions.find(token, now=NOW)
        assert session is not None
        assert (session.sid, session.user_id, session.claims) == (sid, "alice", {"name": "Ada"})
    assert {each.sid for each in sessions.list("alice", now=NOW)} == set(tokens.values())
    assert sessions.end_one("alice", "sid-1", now=NOW) is True
    assert {each.sid for each in sessions.list("alice", now=NOW)} == {"sid-0", "sid-2"}


def test_what_there_was_is_known_by_its_client_after_the_upgrade_from_0003(
    unmigrated_store: SqlStore, empty_database_url: str
) -> None:
    """Older clients and consents stay, and are removed with their client."""
    migrated_to(empty_database_url, "0003")
    bodies = {
        Kind.CLIENT: {"client_id": "reports", "redirect_uris": ["https://rp.example/cb"], "secrets": [], "scope": []},
        Kind.CONSENT: {"client_id": "reports", "scope": ["openid"], "odd": "\ud800 \0"},
    }  # fmt: skip
    engine = engine_of(empty_database_url)
    with engine.begin() as connection:
        for kind, body in bodies.items():
            for client_id in ("reports", "other"):
                row = {
                    "id_hash": hash_handle(client_id),
                    "subject": "alice",
                    "grant_id": "",
                    "expires_at": NOW + 60,
                    "body": json.dumps(body | {"client_id": client_id}),
                }
                connection.execute(text(str(OLD_SESSION).replace("INTO session", f"INTO {kind}")), row)
        connection.execute(OLD_SESSION, {**row, "id_hash": "session"})
    engine.dispose()
    unmigrated_store.migrate()
    for kind, body in bodies.items():
        (found,) = [
            each for each in unmigrated_store.list(kind, now=NOW) if each.id_hash == hash_handle("reports")
        ]
        assert (found.client_id, found.version, found.body) == ("reports", 1, body)
    assert [each.client_id for each in unmigrated_store.list(Kind.SESSION, now=NOW)] == [""]
    assert Clients((), unmigrated_store, minted_audience=None).remove("reports", now=NOW) is True
    for kind in bodies:
        assert [each.client_id for each in unmigrated_store.list(kind, now=NOW)] == ["other"]


#: Where the version of revision 0004 keeps grants and what hangs on them.
GRANTS_OF_0004 = {"grant_record", "authorization_code", "access_token", "refresh_token"}

#: Which tables have come since.
SINCE_0004 = {"oauth_grant", "visit", "delivery", "status", "invitation", "device"}


def _fill_all(url: str) -> dict[str, list[dict[str, Any]]]:
    """Put two rows into every table of a database, with a value in every column; what they are."""
    engine, tables = engine_of(url), MetaData()
    tables.reflect(engine)
    filled: dict[str, list[dict[str, Any]]] = {}
    with engine.begin() as connection:
        for name, table in tables.tables.items():
            if name == "alembic_version":
                continue
            for number in range(2):
                row: dict[str, Any] = {
                    column.name: number + 7
                    if isinstance(column.type, BigInteger)
                    else f"{column.name} {number}"
                    for column in table.columns
                }
                row |= {"expires_at": NOW + 60, "body": json.dumps({"n": number, "odd": "\0\ud800'"})}
                connection.execute(insert(table), row)
                filled.setdefault(name, []).append(row)
    engine.dispose()
    return filled


def _all_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    engine, tables = engine_of(url), MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            name: [dict(row) for row in connection.execute(select(table).order_by("id_hash")).mappings()]
            for name, table in tables.tables.items()
            if name != "alembic_version"
        }
    engine.dispose()
    return found


def test_the_upgrade_from_0004_keeps_all_but_grants(
    unmigrated_store: SqlStore, empty_database_url: str
) -> None:
    """Each row of sessions, users, clients, consents, keys and what waits is as it was; grants end, their tables go."""
    migrated_to(empty_database_url, "0004")
    before = _fill_all(empty_database_url)
    assert set(before) >= GRANTS_OF_0004
    unmigrated_store.migrate()
    assert unmigrated_store.schema_state() == "current"
    after = _all_rows(empty_database_url)
    assert set(after) == set(before) - GRANTS_OF_0004 | SINCE_0004
    assert all(after.pop(name) == [] for name in SINCE_0004)
    assert after == {name: rows for name, rows in before.items() if name not in GRANTS_OF_0004}
    for kind in (Kind.SESSION, Kind.USER, Kind.CLIENT, Kind.CONSENT, Kind.KEY_RING):
        assert {found.body["n"] for found in unmigrated_store.list(kind, now=NOW)} == {0, 1}


def test_the_version_before_is_told_that_its_grants_are_away(store: SqlStore, database_url: str) -> None:
    """In the middle of a rolling deployment the version of revision 0004 continues with sessions.

    What it asks of its tables of grants is an outage, which it answers as one: a 503, and nothing is changed.
    """
    row = dict.fromkeys(("subject", "grant_id", "session_id", "client_id"), "x")
    row |= {"id_hash": "old", "version": 1, "expires_at": NOW + 60, "body": "{}", "spent_at": None}
    columns = ", ".join(row)
    values = ", ".join(f":{name}" if database_url.startswith("sqlite") else f"%({name})s" for name in row)
    store._connections.write(f"INSERT INTO session ({columns}) VALUES ({values})", row)
    ((found,),) = store._connections.read("SELECT spent_at FROM session", {})
    assert found is None
    for table in GRANTS_OF_0004:
        with pytest.raises(StoreUnavailable):
            store._connections.read(f"SELECT {columns} FROM {table}", {})
        with pytest.raises(StoreUnavailable):
            store._connections.write(f"INSERT INTO {table} ({columns}) VALUES ({values})", row)
        with pytest.raises(StoreUnavailable), store._connections.transaction() as run:
            run("DELETE FROM session", {})
            run(f"UPDATE {table} SET spent_at = 1", {})
    assert [each.id_hash for each in store.list(Kind.SESSION, now=NOW)] == ["old"]


def test_the_version_before_still_signs_in_after_the_upgrade(store: SqlStore, database_url: str) -> None:
    """In the middle of a rolling deployment the version of revision 0001 keeps writing, and is read."""
    token = new_session_token()
    _put_as_0001(database_url, token, "sid-1")
    found = LocalSessions(store, lifetime_s=60).find(token, now=NOW)
    assert found is not None
    assert found.user_id == "alice"


def test_an_upgrade_beside_requests_of_the_version_before_gets_through(postgres_url: str) -> None:
    """A request that has locked some of the tables and wants others does not make the migration fail: it is done again."""
    migrated_to(postgres_url, "0004")
    locked = sorted(GRANTS_OF_0004)
    engine = engine_of(postgres_url)
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with closing(open_url(postgres_url)) as store, ThreadPoolExecutor(1) as pool, engine.connect() as request:
        request.execute(text(f"DELETE FROM {locked[0]}"))
        with engine.connect() as other:
            migration = pool.submit(store.migrate)
            while not other.scalar(waiting):
                assert not migration.done()
                time.sleep(0.01)
        # PostgreSQL ends the one that waited first; on a busy machine it may be the request.
        with suppress(OperationalError):
            for table in locked[1:]:
                request.execute(text(f"DELETE FROM {table}"))
            request.commit()
        request.rollback()
        migration.result(120)
        assert store.schema_state() == "current"
    engine.dispose()


def test_a_schema_ahead_still_serves(store: SqlStore, database_url: str) -> None:
    """In the middle of a rolling deployment the older version keeps reading and writing."""
    _set_revision(database_url, "9999")
    assert store.put(record(), now=NOW) is True
    assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()


def test_migrate_leaves_a_schema_ahead_alone(store: SqlStore, database_url: str) -> None:
    """An older version's `migrate`, run after a newer one's, succeeds and changes nothing."""
    store.put(record(), now=NOW)
    _set_revision(database_url, "9999")
    store.migrate()
    assert store.schema_state() == "ahead"
    assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()


def test_migrating_again_changes_nothing(store: SqlStore) -> None:
    """`migrate` on a current schema keeps every record."""
    store.put(record(), now=NOW)
    store.migrate()
    store.migrate()
    assert store.schema_state() == "current"
    assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()


def test_a_database_without_tables_is_an_outage(unmigrated_store: SqlStore) -> None:
    """A verb asked of a database that nobody migrated raises `StoreUnavailable`, and works once somebody has."""
    with pytest.raises(StoreUnavailable):
        unmigrated_store.get(Kind.SESSION, "id", now=NOW)
    with pytest.raises(StoreUnavailable):
        unmigrated_store.put(record(), now=NOW)
    unmigrated_store.migrate()
    assert unmigrated_store.put(record(), now=NOW) is True
    assert unmigrated_store.get(Kind.SESSION, record().id_hash, now=NOW) == record()


def test_serving_makes_no_sqlite_file(sqlite_url: str) -> None:
    """Only a migration makes the file: every verb on an absent one is an outage, and it stays absent."""
    store = open_url(sqlite_url)
    for ask in (
        lambda: store.schema_state(),
        lambda: store.get(Kind.SESSION, "id", now=NOW),
        lambda: store.put(record(), now=NOW),
    ):
        with pytest.raises(StoreUnavailable):
            ask()
    assert list(sqlite_path(sqlite_url).parent.iterdir()) == []


def test_an_sqlite_database_is_for_its_owner_alone(sqlite_url: str) -> None:
    """The database and every file next to it is readable only by its owner, the folder too when it was made."""
    path = sqlite_path(sqlite_url).parent / "new" / "pylon.db"
    store = open_url(f"sqlite:///{path}")
    store.migrate()
    store.put(record(), now=NOW)
    assert {entry.name: oct(entry.stat().st_mode & 0o077) for entry in path.parent.iterdir()} == {
        entry.name: "0o0" for entry in path.parent.iterdir()
    }
    assert path.parent.stat().st_mode & 0o077 == 0
    store.close()


def test_an_acknowledged_write_is_on_the_disk(sqlite_url: str) -> None:
    """SQLite commits with a write-ahead log and full synchronisation, so that a power cut takes nothing back."""
    store = open_url(sqlite_url)
    store.migrate()
    assert store._connections.read("PRAGMA journal_mode", {}) == [("wal",)]
    assert store._connections.read("PRAGMA synchronous", {}) == [(2,)]
    store.close()


def test_a_migration_leaves_the_locks_of_its_process(sqlite_url: str) -> None:
    """A process that is connected while it migrates stays visible to others: none takes itself for the last one, which
    would remove the write-ahead log under it.
    """
    path = sqlite_path(sqlite_url)
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        assert store.schema_state() == "current"  # this thread is connected from now on
        store.migrate()
        last = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('SELECT count(*) FROM alembic_version'); c.close()"
        subprocess.run([sys.executable, "-c", last], check=True, timeout=60)
        assert path.with_name(f"{path.name}-wal").exists()
        assert store.schema_state() == "current"
