"""Stores and records as the tests of storage need them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine

import service.storage
from service.handles import hash_handle, new_grant_id
from service.settings import read_settings
from service.startup import open_store
from service.storage.interface import Kind, Record
from service.storage.schema import TABLES
from service.storage.sql import SqlStore

NOW = 1_800_000_000


def sqlite_path(url: str) -> Path:
    """The file of an SQLite URL."""
    return Path(url.removeprefix("sqlite:///"))


def open_url(url: str) -> SqlStore:
    """The store of a `DATABASE_URL`, opened as the program opens it."""
    reading = read_settings({"DATABASE_URL": url})
    assert not reading.faults, reading.faults
    return open_store(reading.settings)


def migrate(url: str) -> None:
    """Bring the schema of a `DATABASE_URL` up to date."""
    store = open_url(url)
    store.migrate()
    store.close()


def id_of(handle: str = "one", kind: Kind = Kind.SESSION) -> str:
    """The id of the record that is called `handle`: its hash; of a grant one that was made at `NOW`."""
    if kind is Kind.GRANT:
        return new_grant_id(NOW)[:8] + hashlib.sha256(handle.encode()).hexdigest()[:18]
    return hash_handle(handle)


def engine_of(url: str) -> Engine:
    """An engine of SQLAlchemy for a `DATABASE_URL`; to be disposed of."""
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def migrated_to(url: str, revision: str) -> None:
    """Bring an empty database to a revision."""
    from alembic import command
    from alembic.config import Config

    engine = engine_of(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(service.storage.__file__).with_name("migrations")))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def record(
    handle: str = "one", *, kind: Kind = Kind.SESSION, expires_at: int = NOW + 60, **fields: Any
) -> Record:
    """A record that is called `handle`."""
    return Record(kind, id_of(handle, kind), expires_at, **fields)


def fill_many(url: str, kind: Kind, count: int, *, ended: str = "false", begun_at: int = NOW) -> None:
    """Put many records of a kind that fall with something into a database, each of another user, session and client.

    Args:
        url: of the database.
        kind: which; grants have ids in their order.
        count: how many.
        ended: SQL of their number `i`: which of them end at `NOW`; the others a day later.
        begun_at: of grants: when they were made, Unix s.
    """
    own = kind is Kind.GRANT
    prefix, places = (new_grant_id(begun_at)[:8], 18) if own else ("", 64)
    values = {
        "id_hash": f"'{prefix}' || lpad(to_hex(i), {places}, '0')",
        "subject": "'user-' || i",
        "session_id": "'sid-' || i",
        "client_id": "'client-' || i % 1000",
        "version": "1",
        "expires_at": f"CASE WHEN {ended} THEN {NOW} ELSE {NOW + 86_400} END",
        "body": f"'{json.dumps({'padding': 'x' * 500})}'",
    }
    if own:
        values |= {"outlives_session": "i % 2 = 0", "tokens": "'\\x" + "00" * 64 + "'"}
    values |= {"due_at": str(NOW), "grant_id": "''"}
    values = {name: value for name, value in values.items() if name in TABLES[kind].columns}
    sql = f"INSERT INTO {kind} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM n"
    if url.startswith("sqlite:"):
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1}) "
        sql = re.sub(r"lpad\(to_hex\(i\), (\d+), '0'\)", r"printf('%0\1x', i)", sql)
        with contextlib.closing(sqlite3.connect(sqlite_path(url), isolation_level=None)) as connection:
            connection.execute(numbers + sql.replace("'\\x00", "x'00"))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    with psycopg.connect(url, autocommit=True) as postgres:
        numbers = f"WITH n AS (SELECT i FROM generate_series(0, {count - 1}) AS i) "
        postgres.execute(numbers + sql)
        postgres.execute(f"ANALYZE {kind}")


def rows(url: str, *kinds: Kind) -> int:
    """How many records of these kinds there are, ended ones too; of all kinds but the ring where none is said."""
    counted = kinds or [kind for kind in Kind if kind is not Kind.KEY_RING]
    return _sum(url, " UNION ALL ".join(f"SELECT count(*) FROM {kind.value}" for kind in counted))


def ended_rows(url: str) -> int:
    """How many grants there are that have ended by `NOW`."""
    return _sum(url, f"SELECT count(*) FROM {Kind.GRANT.value} WHERE expires_at <= {NOW}")


def _sum(url: str, sql: str) -> int:
    if url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(sqlite_path(url))) as connection:
            return sum(count for (count,) in connection.execute(sql))
    with psycopg.connect(url) as postgres:
        return sum(count for (count,) in postgres.execute(sql).fetchall())
