"""Stores and records as the tests of storage need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.protocol.handles import hash_handle
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


def record(
    handle: str = "one", *, kind: Kind = Kind.SESSION, expires_at: int = NOW + 60, **fields: Any
) -> Record:
    """A record that is found by the hash of `handle`."""
    return Record(kind, hash_handle(handle), expires_at, **fields)
