"""`swap`: stores a record if it has not changed since it was read, with one statement."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from service.storage import statements
from service.storage.interface import Kind, Record
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, open_url, record, sqlite_path
from tests.support.statements import watch_store

GRANT = record(
    kind=Kind.GRANT,
    subject="alice",
    session_id="sid",
    client_id="reports",
    body={"used": 0, "odd": "\0é"},
    tokens=b"\0" * 32,
)
#: Everything that a use changes.
USED = replace(GRANT, expires_at=NOW + 900, body={"used": 1}, tokens=bytes(range(64)), outlives_session=True)


@pytest.fixture
def store(store: SqlStore) -> SqlStore:
    """A store with a grant."""
    store.put(GRANT, now=NOW)
    return store


def _kept(store: SqlStore) -> tuple[Record, int]:
    kept = store.get(Kind.GRANT, GRANT.id_hash, now=NOW)
    assert kept is not None
    return kept, kept.version


def test_what_is_as_it_was_read_is_changed(store: SqlStore, second_store: SqlStore) -> None:
    """The record has its new end, body, tokens and whether it outlives its session; its version grows by one."""
    assert store.swap(USED, now=NOW) is True
    assert _kept(second_store) == (USED, 2)
    assert second_store.swap(replace(USED, version=2, body={"used": 2}), now=NOW) is True
    assert _kept(store) == (replace(USED, body={"used": 2}), 3)


def test_what_it_is_found_by_stays(store: SqlStore) -> None:
    """Subject, session and client do not change, even if the caller passes other values."""
    assert store.swap(replace(USED, subject="bob", session_id="other", client_id="other"), now=NOW) is True
    assert _kept(store) == (USED, 2)
    assert store.list(Kind.GRANT, subject="alice", session_id="sid", now=NOW) == [USED]
    assert store.list(Kind.GRANT, subject="bob", now=NOW) == []


def test_what_is_stored_beside_it(store: SqlStore, second_store: SqlStore) -> None:
    """Only with the change, in its transaction; if its id is there already, it stays as it was."""
    visit = record("visit", kind=Kind.VISIT, subject="alice", session_id="sid", client_id="reports")
    assert store.swap(replace(USED, version=2), beside=visit, now=NOW) is False
    assert store.get(Kind.VISIT, visit.id_hash, now=NOW) is None
    told: list[str] = []
    watch_store(store, told.append)
    assert store.swap(USED, beside=visit, now=NOW) is True
    assert [sql.split()[0] for sql in told] == ["BEGIN", "UPDATE", "INSERT", "COMMIT"]
    assert second_store.get(Kind.VISIT, visit.id_hash, now=NOW) == visit
    again = replace(USED, version=2, body={"used": 2})
    assert store.swap(again, beside=replace(visit, body={"issuer": "other"}), now=NOW) is True
    assert second_store.get(Kind.VISIT, visit.id_hash, now=NOW) == visit
    assert _kept(store)[1] == 3


REFUSED: dict[str, Callable[[SqlStore], bool]] = {
    "changed since": lambda store: store.swap(USED, now=NOW) and store.swap(replace(USED, body={}), now=NOW),
    "newer than it is": lambda store: store.swap(replace(USED, version=2), now=NOW),
    "ended": lambda store: store.swap(USED, now=NOW + 60),
    "unknown": lambda store: store.swap(
        replace(USED, id_hash=record("no", kind=Kind.GRANT).id_hash), now=NOW
    ),
    "of another kind": lambda store: store.swap(replace(USED, kind=Kind.VISIT), now=NOW),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_as_it_was_read_is_left(store: SqlStore, case: str) -> None:
    """False, and nothing is stored: if the record was changed, has ended, or does not exist."""
    other = record("other", kind=Kind.GRANT, subject="alice")
    store.put(other, now=NOW)
    assert REFUSED[case](store) is False
    assert _kept(store) == ((USED, 2) if case == "changed since" else (GRANT, 1))
    assert len(store.list(Kind.GRANT, now=NOW)) == 2
    assert store.get(Kind.GRANT, other.id_hash, now=NOW) == other


def test_what_was_removed_does_not_come_back(store: SqlStore, second_store: SqlStore) -> None:
    """A record that is gone stays gone."""
    second_store.take(Kind.GRANT, GRANT.id_hash, now=NOW)
    assert store.swap(USED, now=NOW) is False
    assert store.list(Kind.GRANT, now=NOW) == []


def test_it_is_one_statement(store: SqlStore) -> None:
    """It is its own transaction: none is begun for it."""
    run: list[str] = []
    watch_store(store, run.append)
    assert store.swap(USED, now=NOW) is True
    assert [sql.partition(" SET ")[0] for sql in run] == ["UPDATE oauth_grant"]


def test_no_index_is_written(sqlite_url: str) -> None:
    """SQLite: the program of the statement touches the table and the index that finds the row, and writes none."""
    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        sql = store._text(statements.swap_one, Kind.GRANT)
    values = dict.fromkeys(re.findall(r":(\w+)", sql))
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as connection:
        opcodes = [row[1] for row in connection.execute(f"EXPLAIN {sql}", values)]
    assert "Insert" in opcodes
    assert {"IdxInsert", "IdxDelete"} & set(opcodes) == set()
