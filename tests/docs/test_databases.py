"""Backup and restore by the lines of docs/databases.md: what comes back is what the page says."""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from service.storage.interface import NEVER, Kind, Record
from service.storage.sql import SqlStore
from tests.docs.markdown import page
from tests.storage.stores import NOW, migrate, open_url, record, sqlite_path
from tests.support.gunicorn import clean_environment
from tests.support.postgres import PostgresCluster, find_binaries

BEFORE = [
    record("session"),
    record("client", kind=Kind.CLIENT, expires_at=NEVER),
    record("grant", kind=Kind.GRANT),
    record("visit", kind=Kind.VISIT),
]


def _lines(heading: str, kind: str) -> str:
    text = page("docs/databases.md")
    start = text.index(f"## {heading}\n")
    found = re.findall(rf"```{kind}\n(.*?)```", text[start:].partition("\n## ")[0], re.DOTALL)
    return "".join(found)


def _shell(lines: str, url: str, folder: str) -> None:
    environ = clean_environment(DATABASE_URL=url, PATH=f"{find_binaries()}:{os.environ['PATH']}")
    for line in lines.splitlines():
        if not line.startswith("pylon-oidc"):
            subprocess.run(["sh", "-ec", line], env=environ, cwd=folder, check=True)


def _change(store: SqlStore) -> None:
    """What happens after the backup: everything goes, and something new comes."""
    for each in BEFORE:
        assert store.take(each.kind, each.id_hash, now=NOW) is not None
    store.put(record("newer"), now=NOW)


def _found(store: SqlStore, *records: Record) -> list[bool]:
    return [store.get(each.kind, each.id_hash, now=NOW) is not None for each in records]


def test_a_backup_of_postgresql_brings_back_its_moment(postgres_url: str, tmp_path: Path) -> None:
    """What was ended since is there again, what is newer is gone; the statements of the page end what they say."""
    dump, restore = _lines("Backup of PostgreSQL", "sh").split("\n", 1)
    with closing(open_url(postgres_url)) as store:
        store.migrate()
        assert store.put(*BEFORE, now=NOW)
        _shell(dump, postgres_url, str(tmp_path))
        _change(store)
        store.close()
        _shell(restore, postgres_url, str(tmp_path))
        assert store.schema_state() == "current"
        assert _found(store, *BEFORE, record("newer")) == [True] * len(BEFORE) + [False]
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(_lines("What comes back with a backup", "sql"))
        assert _found(store, *BEFORE) == [each.kind is Kind.CLIENT for each in BEFORE]


def test_a_backup_of_sqlite_brings_back_its_moment(sqlite_url: str, tmp_path: Path) -> None:
    """The same from a running service, put there instead of the file."""
    path, kept = sqlite_path(sqlite_url), tmp_path / "kept.db"
    line = (
        page("docs/deploy.md").partition("## Backup of SQLite")[2].partition("```sh\n")[2].partition("\n")[0]
    )
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        assert store.put(*BEFORE, now=NOW)
        line = line.replace("/var/lib/pylon-oidc/pylon.db", str(path)).replace(
            "/var/backups/pylon.db", str(kept)
        )
        subprocess.run(["sh", "-ec", line], check=True)
        _change(store)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    kept.rename(path)
    with closing(open_url(sqlite_url)) as store:
        assert _found(store, *BEFORE, record("newer")) == [True] * len(BEFORE) + [False]
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_lines("What comes back with a backup", "sql"))
    with closing(open_url(sqlite_url)) as store:
        assert _found(store, *BEFORE) == [each.kind is Kind.CLIENT for each in BEFORE]


def test_two_roles_have_what_they_need(postgres_cluster: PostgresCluster) -> None:
    """The statements of the page: the owner migrates, the other role serves and changes no table."""
    postgres_cluster.start()
    lines = _lines("PostgreSQL", "sql").replace("'…'", "'pw'")
    name = f"t_{secrets.token_hex(6)}"
    for word, other in (("pylon_owner", f"{name}_owner"), ("pylon", name)):
        lines = re.sub(rf"\b{word}\b", other, lines)
    owner, serving = (
        f"postgresql://{role}:pw@127.0.0.1:{postgres_cluster.port}/{name}" for role in (f"{name}_owner", name)
    )
    subprocess.run(
        ["psql", "-v", "ON_ERROR_STOP=1", postgres_cluster.url()], input=lines, text=True, check=True
    )
    migrate(owner)
    with closing(open_url(serving)) as store:
        assert (store.schema_state(), store.write_refusal()) == ("current", None)
        assert store.put(record(), now=NOW)
    with psycopg.connect(serving) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("ALTER TABLE session ADD COLUMN x int")
    postgres_cluster.drop_database(owner)
