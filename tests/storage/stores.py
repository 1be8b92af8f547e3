"""Stores and records as the tests of storage need them."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import psycopg

from service.handles import hash_handle, new_grant_id
from service.settings import read_settings
from service.startup import open_store
from service.storage.interface import Kind, Record
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


def record(
    handle: str = "one", *, kind: Kind = Kind.SESSION, expires_at: int = NOW + 60, **fields: Any
) -> Record:
    """A record that is called `handle`."""
    return Record(kind, id_of(handle, kind), expires_at, **fields)


def rows(url: str, *kinds: Kind) -> int:
    """How many records of these kinds there are, ended ones too; of all kinds but the ring where none is said."""
    counted = kinds or [kind for kind in Kind if kind is not Kind.KEY_RING]
    sql = " UNION ALL ".join(f"SELECT count(*) FROM {kind.value}" for kind in counted)
    if url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(sqlite_path(url))) as connection:
            return sum(count for (count,) in connection.execute(sql))
    with psycopg.connect(url) as postgres:
        return sum(count for (count,) in postgres.execute(sql).fetchall())
