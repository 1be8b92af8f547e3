"""What is used once and what comes of it: `take` with `put` and what falls with it; one transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from service.handles import hash_handle
from service.storage.interface import Fitting, Kind, Record, StoreUnavailable
from service.storage.schema import TABLES
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, engine_of, record

ONCE = record("once", kind=Kind.INTERACTION, subject="alice", body={"n": 1})
MADE = [
    record("grant", kind=Kind.GRANT, subject="alice", session_id="s", client_id="reports"),
    record("visit", kind=Kind.VISIT, subject="alice", session_id="s", client_id="reports"),
]


@pytest.fixture
def store(store: SqlStore) -> SqlStore:
    """A store with something that is used once."""
    store.put(ONCE, now=NOW)
    return store


def _take(store: SqlStore, *put: Record, now: int = NOW) -> Record | None:
    return store.take(Kind.INTERACTION, ONCE.id_hash, put=put, now=now)


def _made(store: SqlStore) -> list[Record | None]:
    return [store.get(each.kind, each.id_hash, now=NOW) for each in MADE]


def test_who_takes_stores_what_comes_of_it(store: SqlStore) -> None:
    """`take` with `put`: the one who gets the record stores what comes of it; who gets none stores nothing."""
    assert _take(store, *MADE[:1]) == ONCE
    assert _made(store) == [MADE[0], None]
    assert _take(store, *MADE[1:]) is None
    assert _made(store) == [MADE[0], None]


def test_who_takes_what_has_ended_stores_nothing(store: SqlStore) -> None:
    """`take` of an ended record gets none."""
    assert _take(store, *MADE, now=NOW + 60) is None
    assert _made(store) == [None, None]


def test_what_falls_with_what_is_taken_is_gone(store: SqlStore) -> None:
    """`take` with `falling`: of each the live records that fit, in the same transaction; who gets none removes none."""
    other = record("other", kind=Kind.GRANT, subject="alice", session_id="other", client_id="reports")
    store.put(*MADE, other, now=NOW)
    falling = [
        Fitting(Kind.VISIT, client_id="reports"),
        Fitting(Kind.GRANT, client_id="reports", session_id="s"),
    ]
    assert store.take(Kind.INTERACTION, hash_handle("no"), falling=falling, now=NOW) is None
    assert _made(store) == MADE
    assert store.take(Kind.INTERACTION, ONCE.id_hash, falling=falling, now=NOW) == ONCE
    assert _made(store) == [None, None]
    assert store.list(Kind.GRANT, now=NOW) == [other]


def test_what_falls_must_be_said(store: SqlStore) -> None:
    """`take` raises `ValueError` when nothing is said of what falls: that would be all. Nothing is removed."""
    with pytest.raises(ValueError, match="nothing is said"):
        store.take(Kind.INTERACTION, ONCE.id_hash, falling=[Fitting(Kind.GRANT)], now=NOW)
    assert _take(store) == ONCE


# --- one transaction ---


@pytest.fixture
def half_broken(store: SqlStore, database_url: str) -> SqlStore:
    """The store, with a session too, and without the table of visits: what touches it last fails half-way."""
    store.put(record("session", subject="alice"), now=NOW)
    engine = engine_of(database_url)
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {TABLES[Kind.VISIT]}"))
    engine.dispose()
    return store


def test_a_take_that_fails_half_way_has_not_happened(half_broken: SqlStore) -> None:
    """`take` with `put` is one transaction: the record is still there to be taken."""
    with pytest.raises(StoreUnavailable):
        _take(half_broken, *MADE)
    assert half_broken.list(Kind.GRANT, now=NOW) == []
    assert _take(half_broken) == ONCE


def test_a_delete_that_fails_half_way_has_not_happened(half_broken: SqlStore) -> None:
    """`delete` of several kinds is one transaction, with the tokens that it takes."""
    kept = record("kept", kind=Kind.GRANT, subject="alice", outlives_session=True, tokens=b"t" * 32)
    half_broken.put(MADE[0], kept, now=NOW)
    kinds = (Kind.SESSION, Kind.VISIT)
    with pytest.raises(StoreUnavailable):
        half_broken.delete(*(Fitting(kind, subject="alice") for kind in kinds), now=NOW)
    with pytest.raises(StoreUnavailable):
        half_broken.delete(
            Fitting(Kind.GRANT, subject="alice", outlives_session=False),
            Fitting(Kind.VISIT, subject="alice"),
            without_tokens=[Fitting(Kind.GRANT, subject="alice")],
            now=NOW,
        )
    assert half_broken.get(Kind.GRANT, kept.id_hash, now=NOW) == kept
    assert half_broken.get(Kind.GRANT, MADE[0].id_hash, now=NOW) == MADE[0]
    assert len(half_broken.list(Kind.SESSION, subject="alice", now=NOW)) == 1


def test_who_read_another_version_takes_nothing(store: SqlStore) -> None:
    """`take` with `version`: it is removed as it was read, or not at all; what falls and what comes of it, too."""
    changed = store.change(
        Kind.INTERACTION, ONCE.id_hash, lambda known: replace(known, body={"n": 2}), now=NOW
    )
    assert changed is not None

    def take(version: int) -> Record | None:
        return store.take(Kind.INTERACTION, ONCE.id_hash, put=MADE, version=version, now=NOW)

    assert take(ONCE.version) is None
    assert _made(store) == [None, None]
    assert store.get(Kind.INTERACTION, ONCE.id_hash, now=NOW) == changed
    assert take(changed.version) == changed
    assert _made(store) == MADE
