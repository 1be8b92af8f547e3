"""What is used once and what comes of it: `spend`, `take` with `put`; each is one transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import create_engine

from service.protocol.handles import hash_handle
from service.storage.interface import Contended, Fitting, Kind, Record, Spent, StoreUnavailable
from service.storage.schema import TABLES
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, record

CODE = hash_handle("code")
GRANT = record(
    "grant", kind=Kind.GRANT, subject="alice", grant_id="g", expires_at=NOW + 600, body={"used": 0}
)
USED = record("grant", kind=Kind.GRANT, subject="alice", grant_id="g", expires_at=NOW + 900, body={"used": 1})
TOKENS = [
    record("access", kind=Kind.ACCESS_TOKEN, subject="alice", grant_id="g", session_id="s"),
    record("refresh", kind=Kind.REFRESH_TOKEN, subject="alice", grant_id="g", body={"n": 1}),
]


def _code(spent_at: int | None = None, **body: object) -> Record:
    """The code; once it is spent it lives as long as its grant."""
    ends = {} if spent_at is None else {"expires_at": USED.expires_at}
    code = {"kind": Kind.CODE, "subject": "alice", "grant_id": "g", "session_id": "s", **ends}
    return record("code", **code, spent_at=spent_at, body=body)


@pytest.fixture
def store(store: SqlStore) -> SqlStore:
    """A store with a grant, and a code that hangs on it."""
    store.put(GRANT, _code(n=1), now=NOW)
    return store


def _spend(store: SqlStore, *, now: int = NOW, grant: Record = USED, kind: Kind = Kind.CODE) -> Spent:
    return store.spend(kind, CODE, grant=grant, body={"n": 2}, put=TOKENS, now=now)


def _tokens(store: SqlStore) -> list[Record | None]:
    return [store.get(each.kind, each.id_hash, now=NOW) for each in TOKENS]


def test_who_spends_wins_and_what_comes_of_it_is_there(store: SqlStore, second_store: SqlStore) -> None:
    """`spend` marks the record, gives it its new body, stores what comes of it, and makes the grant what it shall be."""
    spent = _spend(store, now=NOW + 5)
    assert spent == Spent(True, _code(NOW + 5, n=2))
    assert second_store.get(Kind.CODE, CODE, now=NOW) == _code(NOW + 5, n=2)
    assert _tokens(second_store) == TOKENS
    assert second_store.get(Kind.GRANT, GRANT.id_hash, now=NOW) == USED


def test_who_comes_second_does_not_win_and_is_told_of_the_first(store: SqlStore) -> None:
    """The record stays, with its new body, to be recognised when it comes back; nothing is stored a second time."""
    _spend(store)
    other = record("other", kind=Kind.ACCESS_TOKEN, grant_id="g")
    again = store.spend(Kind.CODE, CODE, grant=USED, body={"n": 3}, put=[other], now=NOW + 9)
    assert again == Spent(False, _code(NOW, n=2))
    assert store.get(Kind.CODE, CODE, now=NOW) == _code(NOW, n=2)
    assert store.get(Kind.ACCESS_TOKEN, other.id_hash, now=NOW) is None


def test_what_hangs_on_a_revoked_grant_is_not_spent(store: SqlStore) -> None:
    """Where the grant is gone, nothing happens: nothing is spent, nothing stored, and the grant stays gone."""
    store.delete(Kind.GRANT, grant_id="g", now=NOW)
    assert _spend(store) == Spent(False, None)
    assert store.get(Kind.CODE, CODE, now=NOW) == _code(n=1)
    assert _tokens(store) == [None, None]
    assert store.list(Kind.GRANT, now=NOW) == []


def test_what_hangs_on_a_grant_that_has_ended_is_not_spent(store: SqlStore) -> None:
    """A grant that has ended is gone, also when it shall live longer from now on."""
    assert _spend(store, now=NOW + 600) == Spent(False, None)
    assert _tokens(store) == [None, None]
    assert store.get(Kind.GRANT, GRANT.id_hash, now=NOW) == GRANT


@pytest.mark.parametrize("case", ["unknown", "ended", "taken", "of another kind"])
def test_what_is_not_there_is_not_spent(store: SqlStore, case: str) -> None:
    """`spend` of what is gone wins nothing, returns no record and stores nothing."""
    if case == "unknown":
        spent = store.spend(Kind.CODE, hash_handle("no"), grant=USED, body={}, put=TOKENS, now=NOW)
    elif case == "of another kind":
        spent = _spend(store, kind=Kind.REFRESH_TOKEN)
    else:
        if case == "taken":
            store.take(Kind.CODE, CODE, now=NOW)
        spent = _spend(store, now=NOW + 60 if case == "ended" else NOW)
    assert spent == Spent(False, None)
    assert _tokens(store) == [None, None]


def test_a_spent_record_is_seen_by_the_other_verbs(store: SqlStore) -> None:
    """A spent record is a live one: it is got, listed, and removed with its grant."""
    _spend(store)
    assert store.list(Kind.CODE, subject="alice", now=NOW) == [_code(NOW, n=2)]
    assert (
        store.delete(Kind.GRANT, Kind.CODE, Kind.ACCESS_TOKEN, Kind.REFRESH_TOKEN, grant_id="g", now=NOW) == 1
    )
    assert store.get(Kind.CODE, CODE, now=NOW) is None
    assert _tokens(store) == [None, None]


def test_who_takes_stores_what_comes_of_it(store: SqlStore) -> None:
    """`take` with `put`: the one who gets the record stores what comes of it; who gets none stores nothing."""
    assert store.take(Kind.CODE, CODE, put=TOKENS[:1], now=NOW) == _code(n=1)
    assert _tokens(store) == [TOKENS[0], None]
    assert store.take(Kind.CODE, CODE, put=TOKENS[1:], now=NOW) is None
    assert _tokens(store) == [TOKENS[0], None]


def test_who_takes_what_has_ended_stores_nothing(store: SqlStore) -> None:
    """`take` of an ended record gets none."""
    assert store.take(Kind.CODE, CODE, put=TOKENS, now=NOW + 60) is None
    assert _tokens(store) == [None, None]


def test_what_falls_with_what_is_taken_is_gone(store: SqlStore) -> None:
    """`take` with `falling`: of each the live records that fit, in the same transaction; who gets none removes none."""
    store.put(*TOKENS, record("other", kind=Kind.ACCESS_TOKEN, grant_id="other"), now=NOW)
    falling = [Fitting(Kind.CODE, grant_id="g"), Fitting(Kind.ACCESS_TOKEN, grant_id="g", session_id="s")]
    assert store.take(Kind.GRANT, hash_handle("no"), falling=falling, now=NOW) is None
    assert _tokens(store) == TOKENS
    assert store.take(Kind.GRANT, GRANT.id_hash, falling=falling, now=NOW) == GRANT
    assert store.get(Kind.CODE, CODE, now=NOW) is None
    assert _tokens(store) == [None, TOKENS[1]]
    assert len(store.list(Kind.ACCESS_TOKEN, now=NOW)) == 1


def test_what_falls_must_be_said(store: SqlStore) -> None:
    """`take` raises `ValueError` when nothing is said of what falls: that would be all. Nothing is removed."""
    with pytest.raises(ValueError, match="nothing is said"):
        store.take(Kind.GRANT, GRANT.id_hash, falling=[Fitting(Kind.CODE)], now=NOW)
    assert store.get(Kind.GRANT, GRANT.id_hash, now=NOW) == GRANT


def test_a_grant_that_was_used_since_it_was_read_is_not_written_over(store: SqlStore) -> None:
    """`spend` compares the grant's version: who lost is told of the winner, or that nothing was done."""
    _spend(store)
    again = _spend(store, now=NOW + 1, grant=replace(USED, body={"used": 2}))
    assert again == Spent(False, _code(NOW, n=2))
    assert store.get(Kind.GRANT, GRANT.id_hash, now=NOW) == USED
    other = record("other", kind=Kind.CODE, grant_id="g")
    store.put(other, now=NOW)
    with pytest.raises(Contended):
        store.spend(Kind.CODE, other.id_hash, grant=GRANT, body={}, put=[], now=NOW)
    assert store.get(Kind.CODE, other.id_hash, now=NOW) == other


# --- one transaction ---


@pytest.fixture
def half_broken(store: SqlStore, database_url: str) -> SqlStore:
    """The store, with a session too, and without the table of refresh tokens: what touches it last fails half-way."""
    store.put(record("session", subject="alice"), now=NOW)
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    TABLES[Kind.REFRESH_TOKEN].drop(engine)
    engine.dispose()
    return store


def test_a_spend_that_fails_half_way_has_not_happened(half_broken: SqlStore) -> None:
    """`spend` is one transaction: nothing is spent, and the grant is as it was."""
    with pytest.raises(StoreUnavailable):
        _spend(half_broken)
    assert half_broken.get(Kind.CODE, CODE, now=NOW) == _code(n=1)
    assert half_broken.get(Kind.GRANT, GRANT.id_hash, now=NOW) == GRANT
    assert half_broken.get(Kind.ACCESS_TOKEN, TOKENS[0].id_hash, now=NOW) is None


def test_a_take_that_fails_half_way_has_not_happened(half_broken: SqlStore) -> None:
    """`take` with `put` is one transaction: the record is still there to be taken."""
    with pytest.raises(StoreUnavailable):
        half_broken.take(Kind.CODE, CODE, put=TOKENS, now=NOW)
    assert half_broken.get(Kind.ACCESS_TOKEN, TOKENS[0].id_hash, now=NOW) is None
    assert half_broken.take(Kind.CODE, CODE, now=NOW) == _code(n=1)


def test_a_delete_that_fails_half_way_has_not_happened(half_broken: SqlStore) -> None:
    """`delete` of several kinds is one transaction."""
    with pytest.raises(StoreUnavailable):
        half_broken.delete(Kind.SESSION, Kind.GRANT, Kind.REFRESH_TOKEN, subject="alice", now=NOW)
    assert half_broken.get(Kind.GRANT, GRANT.id_hash, now=NOW) == GRANT
    assert len(half_broken.list(Kind.SESSION, subject="alice", now=NOW)) == 1
