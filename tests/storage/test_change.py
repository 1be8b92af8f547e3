"""`change`: a record is read, decided and stored so that no change of anybody else is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.handles import hash_handle
from service.storage.interface import Change, Contended, Decide, Fitting, Kind, NotStanding, Record
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, open_url, record
from tests.support.statements import at_once, stopped, watch_store

USER = hash_handle("user")


def _user(**body: object) -> Record:
    return record("user", kind=Kind.USER, subject="alice", body=body)


def _with(**members: object) -> Decide:
    return lambda known: replace(known, body={**known.body, **members})


def _change(store: SqlStore, decide: Decide, **options: Any) -> Record | None:
    return store.change(Kind.USER, USER, decide, now=NOW, **options)


def test_what_is_decided_is_kept(store: SqlStore, second_store: SqlStore) -> None:
    """`change` gives `decide` the record as it is, and keeps and returns what that makes of it."""
    store.put(_user(a=1, b=1), now=NOW)
    assert _change(store, _with(b=2, c=2)) == _user(a=1, b=2, c=2)
    assert second_store.get(Kind.USER, USER, now=NOW) == _user(a=1, b=2, c=2)


def test_every_field_but_kind_and_id_may_change(store: SqlStore) -> None:
    """What is found by which columns may change with the body; kind and id stay, whatever `decide` says."""
    store.put(_user(), now=NOW)
    other = record(
        "other",
        expires_at=NOW + 600,
        subject="bob",
        grant_id="g",
        session_id="s",
        client_id="c",
    )
    changed = replace(other, kind=Kind.USER, id_hash=USER)
    assert _change(store, lambda _: other) == changed
    assert store.get(Kind.USER, USER, now=NOW) == changed
    assert store.list(Kind.USER, subject="bob", now=NOW) == [changed]
    assert store.list(Kind.USER, subject="alice", now=NOW) == []


def test_each_change_counts_the_version_up(store: SqlStore) -> None:
    """The version grows by one at a `change`, a `replace` and a `swap`, whatever the caller says of it."""
    store.put(replace(_user(), version=7), now=NOW)
    changed = _change(store, lambda known: replace(known, version=1))
    kept = store.get(Kind.USER, USER, now=NOW)
    assert changed is not None
    assert kept is not None
    assert (changed.version, kept.version) == (8, 8)
    store.replace(Kind.USER, USER, replace(_user(), version=1), now=NOW)
    kept = store.get(Kind.USER, USER, now=NOW)
    assert kept is not None
    assert kept.version == 9
    assert store.swap(replace(_user(n=2), version=9), now=NOW) is True
    kept = store.get(Kind.USER, USER, now=NOW)
    assert kept is not None
    assert kept.version == 10


def test_what_is_not_there_is_not_changed(store: SqlStore) -> None:
    """Without `new` there is nothing to decide where no live record is: None, and nothing is stored."""
    store.put(replace(_user(), expires_at=NOW), record("user"), now=NOW - 1)
    asked: list[Record] = []
    assert _change(store, lambda known: asked.append(known) or known) is None  # type: ignore[func-returns-value]
    assert store.change(Kind.USER, hash_handle("no"), lambda known: known, now=NOW) is None
    assert asked == []
    assert store.get(Kind.SESSION, USER, now=NOW) == record("user")


@pytest.mark.parametrize("case", ["unknown", "ended"])
def test_the_first_change_stores_the_record(store: SqlStore, case: str) -> None:
    """Where no live record is, `decide` is given `new`, and what it makes of it is stored; an ended one is forgotten."""
    if case == "ended":
        store.put(replace(_user(old=1), expires_at=NOW), now=NOW - 1)
    assert _change(store, _with(b=2), new=_user(a=1)) == _user(a=1, b=2)
    assert _change(store, _with(c=3), new=_user(a=0)) == _user(a=1, b=2, c=3)
    assert store.get(Kind.USER, USER, now=NOW) == _user(a=1, b=2, c=3)


def test_what_is_left_is_left(store: SqlStore) -> None:
    """Where `decide` says None nothing changes; where it raises, that is raised, and nothing changes either."""
    store.put(_user(a=1), now=NOW)

    def refused(_: Record) -> Record:
        raise LookupError("no")

    assert _change(store, lambda _: None) is None
    with pytest.raises(LookupError):
        _change(store, refused)
    assert store.get(Kind.USER, USER, now=NOW) == _user(a=1)
    assert store.change(Kind.USER, hash_handle("no"), lambda _: None, new=_user(), now=NOW) is None
    assert store.get(Kind.USER, hash_handle("no"), now=NOW) is None


def test_what_is_content_with_a_record_stores_nothing(store: SqlStore) -> None:
    """Where `decide` returns the very record, that is returned, and nothing is written: its version stays."""
    store.put(_user(a=1), now=NOW)
    run: list[str] = []
    watch_store(store, run.append)
    assert _change(store, lambda known: known, new=_user(a=2)) == _user(a=1)
    session = record("session", subject="alice")
    assert store.put(session, changes=[Change(Kind.USER, USER, lambda known: known)], now=NOW) is True
    assert [sql for sql in run if sql.startswith("UPDATE")] == []
    kept = store.get(Kind.USER, USER, now=NOW)
    assert kept is not None
    assert (kept, kept.version) == (_user(a=1), 1)


def test_of_two_who_read_the_same_neither_is_lost(store: SqlStore, second_store: SqlStore) -> None:
    """A writer that read before another one stored decides again, from what is there by then."""
    store.put(_user(n=0), now=NOW)
    decided: list[int] = []

    def one_more(known: Record) -> Record:
        decided.append(known.body["n"])
        if len(decided) == 1:
            assert _change(second_store, _with(n=5, other=1)) is not None
        return replace(known, body={**known.body, "n": known.body["n"] + 1})

    assert _change(store, one_more) == _user(n=6, other=1)
    assert decided == [0, 5]


def test_of_two_who_store_the_first_neither_is_lost(store: SqlStore, second_store: SqlStore) -> None:
    """So it is where both found nothing."""
    asked: list[Record] = []

    def mine(known: Record) -> Record:
        asked.append(known)
        if len(asked) == 1:
            _change(second_store, _with(theirs=1), new=_user())
        return replace(known, body={**known.body, "mine": 1})

    assert _change(store, mine, new=_user()) == _user(mine=1, theirs=1)


def test_who_lost_decides_where_nobody_else_can_be_faster(store: SqlStore, second_store: SqlStore) -> None:
    """A second attempt waits for nobody and keeps others waiting: nobody loses every time."""
    store.put(_user(n=0), now=NOW)
    attempts: list[int] = []

    def decide(known: Record) -> Record:
        attempts.append(known.body["n"])
        if len(attempts) == 1:
            _change(second_store, _with(n=1))
        else:
            late.start()
        return replace(known, body={**known.body, "mine": 1})

    late = at_once(lambda: _change(second_store, _with(n=2)))
    assert _change(store, decide) == _user(n=1, mine=1)
    late.result()
    assert attempts == [0, 1]
    assert store.get(Kind.USER, USER, now=NOW) == _user(n=2, mine=1)


def test_a_record_that_came_back_under_its_id_is_another(store: SqlStore, second_store: SqlStore) -> None:
    """What was read of a record that was removed is not stored over the one that came after it."""
    store.put(replace(_user(secret="old"), version=1 << 40), now=NOW)
    asked: list[object] = []

    def decide(known: Record) -> Record:
        asked.append(known.body["secret"])
        if len(asked) == 1:
            second_store.take(Kind.USER, USER, now=NOW)
            second_store.put(replace(_user(secret="new"), version=1 << 41), now=NOW)
        return replace(known, body={**known.body, "seen": 1})

    assert _change(store, decide) == _user(secret="new", seen=1)
    assert asked == ["old", "new"]


def test_who_loses_each_time_is_told(postgres_url: str) -> None:
    """After a bounded number of attempts `Contended` is raised, and nothing was changed.

    Only with others who store the first record and remove it again before each attempt can that happen, and not on
    SQLite, where one writes at a time.
    """
    store, second_store = open_url(postgres_url), open_url(postgres_url)
    store.migrate()
    asked: list[int] = []

    def decide(known: Record) -> Record:
        asked.append(1)
        second_store.put(_user(), now=NOW)
        return known

    with (
        stopped(store, before="ROLLBACK", then=lambda: second_store.take(Kind.USER, USER, now=NOW), times=99),
        pytest.raises(Contended),
    ):
        _change(store, decide, new=_user(a=1))
    assert len(asked) < 10
    assert store.get(Kind.USER, USER, now=NOW) is None
    store.close()
    second_store.close()


# --- changes within `put` and `take` ---


def test_a_put_changes_what_it_names(store: SqlStore) -> None:
    """`put` with `changes` stores and changes in one transaction."""
    session = record("session", subject="alice")
    change = Change(Kind.USER, USER, _with(b=2), new=_user(a=1))
    assert store.put(session, changes=[change], now=NOW) is True
    assert store.get(Kind.SESSION, session.id_hash, now=NOW) == session
    assert store.get(Kind.USER, USER, now=NOW) == _user(a=1, b=2)


def test_a_put_that_is_refused_has_changed_nothing(store: SqlStore) -> None:
    """Where an id is there already, no change is made either; where there is nothing to change, nothing is stored."""
    marker, session = record("marker", kind=Kind.REPLAY_MARKER), record("session")
    store.put(marker, _user(a=1), now=NOW)
    change = Change(Kind.USER, USER, _with(a=2))
    assert store.put(marker, session, changes=[change], now=NOW) is False
    assert store.get(Kind.USER, USER, now=NOW) == _user(a=1)
    for nothing in (Change(Kind.USER, hash_handle("no"), _with()), Change(Kind.USER, USER, lambda _: None)):
        with pytest.raises(NotStanding):
            store.put(session, changes=[change, nothing], now=NOW)
    assert store.get(Kind.SESSION, session.id_hash, now=NOW) is None
    assert store.get(Kind.USER, USER, now=NOW) == _user(a=1)


def test_a_take_changes_what_it_names(store: SqlStore) -> None:
    """`take` with `changes`: by the one who gets it, in the same transaction; who gets none changes nothing."""
    store.put(record("one", kind=Kind.VERIFIER), _user(n=0), now=NOW)

    def take() -> Record | None:
        change = Change(Kind.USER, USER, lambda known: replace(known, body={"n": known.body["n"] + 1}))
        return store.take(Kind.VERIFIER, record("one").id_hash, changes=[change], now=NOW)

    assert take() is not None
    assert take() is None
    assert store.get(Kind.USER, USER, now=NOW) == _user(n=1)


def test_a_put_whose_change_lost_is_made_again_as_a_whole(store: SqlStore, second_store: SqlStore) -> None:
    """Each record of such a `put` is stored once, and no change is lost."""
    store.put(_user(n=0), now=NOW)
    asked: list[int] = []

    def decide(known: Record) -> Record:
        asked.append(known.body["n"])
        if len(asked) == 1:
            _change(second_store, _with(n=5))
        return replace(known, body={"n": known.body["n"] + 1})

    session = record("session", subject="alice")
    assert store.put(session, changes=[Change(Kind.USER, USER, decide)], now=NOW) is True
    assert store.list(Kind.SESSION, now=NOW) == [session]
    assert store.get(Kind.USER, USER, now=NOW) == _user(n=6)


@pytest.mark.parametrize("verb", ["put", "take", "change"])
def test_nothing_is_stored_where_it_does_not_stand(store: SqlStore, verb: str) -> None:
    """`NotStanding` where a record of `standing_on` is not there, has ended, or is not as it is said; nothing is kept."""
    store.put(
        replace(record("session", subject="alice", session_id="s"), version=3),
        record("ended", subject="alice", session_id="e", expires_at=NOW),
        record("taken", kind=Kind.INTERACTION),
        now=NOW - 1,
    )
    new = record("grant", kind=Kind.GRANT)
    verbs: dict[str, Callable[[list[Fitting]], object]] = {
        "put": lambda standing: store.put(new, standing_on=standing, now=NOW),
        "take": lambda standing: store.take(
            Kind.INTERACTION, hash_handle("taken"), put=[new], standing_on=standing, now=NOW
        ),
        "change": lambda standing: store.change(
            Kind.GRANT, new.id_hash, lambda known: known, new=new, standing_on=standing, now=NOW
        ),
    }
    there = Fitting(Kind.SESSION, subject="alice", session_id="s")
    by_id = Fitting(Kind.SESSION, id_hash=hash_handle("session"), version=3)
    missing = [
        replace(there, subject="bob"),
        replace(there, session_id="e"),
        replace(there, session_id="s\0"),
        replace(there, kind=Kind.CLIENT),
        replace(by_id, version=4),
        Fitting(Kind.CLIENT, client_id="c"),
    ]
    for each in missing:
        with pytest.raises(NotStanding):
            verbs[verb]([there, each])
    assert store.get(Kind.GRANT, new.id_hash, now=NOW) is None
    assert store.get(Kind.INTERACTION, hash_handle("taken"), now=NOW) is not None
    assert verbs[verb]([there, by_id])
    assert store.get(Kind.GRANT, new.id_hash, now=NOW) == new
