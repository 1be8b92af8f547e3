"""The schema: how it comes to be, and how a program knows that it fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

import service.storage
from service.clients import Clients
from service.handles import hash_handle, new_session_token
from service.sessions import LocalSessions
from service.storage.interface import Kind, StoreUnavailable
from service.storage.schema import HEAD, metadata
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, open_url, record, sqlite_path


def _engine(url: str) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def _set_revision(url: str, revision: str) -> None:
    engine = _engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def test_the_schema_head_is_the_newest_migration() -> None:
    """There is one newest revision, and it is the one that the program works on."""
    config = Config()
    config.set_main_option("script_location", str(Path(service.storage.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_migrations_make_the_tables_of_the_program(store: SqlStore, database_url: str) -> None:
    """After the migrations the database has the tables, columns, types and indexes of `schema`, and no others."""
    engine = _engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


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


def _migrated_to(url: str, revision: str) -> None:
    """Bring an empty database to a revision."""
    engine = _engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(service.storage.__file__).with_name("migrations")))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


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
    engine = _engine(url)
    with engine.begin() as connection:
        connection.execute(OLD_SESSION, row)
    engine.dispose()


def test_sessions_outlive_the_upgrade_from_0001(unmigrated_store: SqlStore, empty_database_url: str) -> None:
    """Who is signed in stays signed in, under the same `sid`, which is where what hangs on the session is found."""
    _migrated_to(empty_database_url, "0001")
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
        assert (kept.session_id, kept.grant_id, kept.spent_at) == (sid, "", None)
        session = sessions.find(token, now=NOW)
        assert session is not None
        assert (session.sid, session.user_id, session.claims) == (sid, "alice", {"name": "Ada"})
    assert {each.sid for each in sessions.list("alice", now=NOW)} == set(tokens.values())
    assert sessions.end_one("alice", "sid-1", now=NOW) is True
    assert {each.sid for each in sessions.list("alice", now=NOW)} == {"sid-0", "sid-2"}


def test_what_there_was_is_known_by_its_client_after_the_upgrade_from_0003(
    unmigrated_store: SqlStore, empty_database_url: str
) -> None:
    """Clients, consents, grants, codes and tokens of before go on, and fall with their client."""
    _migrated_to(empty_database_url, "0003")
    bodies = {
        Kind.CLIENT: {"client_id": "reports", "redirect_uris": ["https://rp.example/cb"], "secrets": [], "scope": []},
        Kind.CONSENT: {"client_id": "reports", "scope": ["openid"], "odd": "\ud800 \0"},
        Kind.GRANT: {"client_id": "reports", "issuer": "https://id.example"},
        Kind.CODE: {"nonce": None},
        Kind.ACCESS_TOKEN: {"client_id": "reports"},
        Kind.REFRESH_TOKEN: {"client_id": "reports"},
    }  # fmt: skip
    engine = _engine(empty_database_url)
    with engine.begin() as connection:
        for kind, body in bodies.items():
            for number, client_id in enumerate(("reports", "other")):
                row = {
                    "id_hash": hash_handle(client_id),
                    "subject": "alice",
                    "grant_id": f"g{number}",
                    "expires_at": NOW + 60,
                    "body": json.dumps(body | ({"client_id": client_id} if "client_id" in body else {})),
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


def test_the_version_before_still_signs_in_after_the_upgrade(store: SqlStore, database_url: str) -> None:
    """In the middle of a rolling deployment the version of revision 0001 goes on writing, and is read."""
    token = new_session_token()
    _put_as_0001(database_url, token, "sid-1")
    found = LocalSessions(store, lifetime_s=60).find(token, now=NOW)
    assert found is not None
    assert found.user_id == "alice"


def test_a_schema_ahead_still_serves(store: SqlStore, database_url: str) -> None:
    """In the middle of a rolling deployment the older version goes on reading and writing."""
    _set_revision(database_url, "9999")
    assert store.put(record(), now=NOW) is True
    assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()


def test_migrate_leaves_a_schema_ahead_alone(store: SqlStore, database_url: str) -> None:
    """An older version's `migrate`, run after a newer one's, is no error and changes nothing."""
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
    """The database and every file beside it is readable by its owner alone, the folder too when it was made."""
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
