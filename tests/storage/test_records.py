"""Every promise of the store's interface, on every kind of database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.handles import hash_handle
from service.storage.interface import Fitting, Kind, Record
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, record

ONE = hash_handle("one")


def test_what_was_put_is_got_as_it_was(store: SqlStore) -> None:
    """`get` returns the record that `put` stored, field by field."""
    stored = record(
        subject="alice",
        grant_id="grant-1",
        session_id="sid-1",
        body={"roles": ["a"], "n": 1, "none": None, "f": 0.5},
    )
    assert store.put(stored, now=NOW) is True
    assert store.get(Kind.SESSION, ONE, now=NOW) == stored


def test_a_grant_is_got_as_it_was(store: SqlStore) -> None:
    """A grant has two fields of its own, and bytes of any value."""
    stored = record(
        kind=Kind.GRANT,
        subject="alice",
        session_id="sid-1",
        client_id="reports",
        outlives_session=True,
        tokens=bytes(range(256)),
        body={"issuer": "https://id.example"},
    )
    assert store.put(stored, now=NOW) is True
    assert store.get(Kind.GRANT, stored.id_hash, now=NOW) == stored
    assert store.list(Kind.GRANT, subject="alice", now=NOW) == [stored]
    assert store.take(Kind.GRANT, stored.id_hash, now=NOW) == stored


def test_a_record_is_got_with_the_body_of_its_user(store: SqlStore, second_store: SqlStore) -> None:
    """`get` with `with_user` returns the same record, and of its own user what is stored now; without, nothing of it."""
    grant = record(kind=Kind.GRANT, subject="alice", tokens=b"t" * 32, body={"issuer": "https://id.example"})
    others = [record(name, kind=Kind.USER, subject=name, body={"roles": [name]}) for name in ("bob", "")]
    store.put(grant, *others, now=NOW)

    def user_of_grant(now: int = NOW) -> Any:
        found = second_store.get(Kind.GRANT, grant.id_hash, with_user=True, now=now)
        assert found == grant
        return found and found.user

    assert user_of_grant() == {}
    for body in ({"roles": ["a"]}, {"claims": {"name": "Zoë", "n": [1, None]}}):
        new = record("alice", kind=Kind.USER, subject="alice", expires_at=NOW + 30)
        store.change(
            Kind.USER, new.id_hash, lambda known, body=body: replace(known, body=body), new=new, now=NOW
        )
        assert user_of_grant() == body
    assert user_of_grant(NOW + 29) != {}
    assert user_of_grant(NOW + 30) == {}  # it has ended
    plain = store.get(Kind.GRANT, grant.id_hash, now=NOW)
    assert plain is not None
    assert plain.user is None
    assert store.get(Kind.GRANT, record("no", kind=Kind.GRANT).id_hash, with_user=True, now=NOW) is None
    assert store.get(Kind.GRANT, grant.id_hash, with_user=True, now=NOW + 60) is None


def test_a_user_read_with_a_record_is_not_stored_with_it(store: SqlStore) -> None:
    """Who stores a record that was read with its user changes nothing of the user."""
    grant = record(kind=Kind.GRANT, subject="alice")
    user = record("alice", kind=Kind.USER, subject="alice", body={"roles": ["a"]})
    store.put(grant, user, now=NOW)
    found = store.get(Kind.GRANT, grant.id_hash, with_user=True, now=NOW)
    assert found is not None
    assert store.swap(replace(found, user={"roles": ["b"]}, tokens=b"t" * 32), now=NOW)
    assert store.get(Kind.USER, user.id_hash, now=NOW) == user


def test_what_was_put_is_seen_by_another_process(store: SqlStore, second_store: SqlStore) -> None:
    """A `put` that has returned is there for everybody, at once."""
    assert second_store.get(Kind.SESSION, ONE, now=NOW) is None
    store.put(record(), now=NOW)
    assert second_store.get(Kind.SESSION, ONE, now=NOW) == record()


def test_a_record_survives_close(store: SqlStore) -> None:
    """`close` only lets go of the connections; the next verb opens new ones."""
    store.put(record(), now=NOW)
    store.close()
    assert store.get(Kind.SESSION, ONE, now=NOW) == record()
    store.close()
    assert store.take(Kind.SESSION, ONE, now=NOW) == record()


def test_an_id_is_put_once(store: SqlStore) -> None:
    """`put` of an id that is there is False, and leaves what is there."""
    store.put(record(subject="first"), now=NOW)
    assert store.put(record(subject="second"), now=NOW) is False
    found = store.get(Kind.SESSION, ONE, now=NOW)
    assert found is not None
    assert found.subject == "first"


def test_an_id_that_has_ended_is_not_put_again(store: SqlStore) -> None:
    """`put` is False for an id that has ended and is not swept yet."""
    store.put(record(expires_at=NOW - 1), now=NOW - 10)
    assert store.put(record(), now=NOW) is False


def test_the_same_id_is_free_in_another_kind(store: SqlStore) -> None:
    """An id is unique in its kind; kinds do not see each other."""
    session, marker = record(), record(kind=Kind.REPLAY_MARKER)
    assert store.put(session, now=NOW) is True
    assert store.get(Kind.REPLAY_MARKER, ONE, now=NOW) is None
    assert store.put(marker, now=NOW) is True
    assert store.get(Kind.SESSION, ONE, now=NOW) == session
    assert store.get(Kind.REPLAY_MARKER, ONE, now=NOW) == marker


@pytest.mark.parametrize("taken_first", [True, False], ids=["taken id first", "taken id last"])
def test_put_stores_all_or_none(store: SqlStore, taken_first: bool) -> None:
    """If one id of a `put` already exists, none of its records is stored."""
    store.put(record("taken", kind=Kind.REPLAY_MARKER), now=NOW)
    pair = [record("taken", kind=Kind.REPLAY_MARKER), record("new")]
    assert store.put(*(pair if taken_first else reversed(pair)), now=NOW) is False
    assert store.get(Kind.SESSION, hash_handle("new"), now=NOW) is None


def test_put_stores_several_records(store: SqlStore) -> None:
    """All records of a `put` are there afterwards."""
    assert store.put(record("a"), record("b"), record("c", kind=Kind.REPLAY_MARKER), now=NOW) is True
    assert store.get(Kind.SESSION, hash_handle("a"), now=NOW) is not None
    assert store.get(Kind.SESSION, hash_handle("b"), now=NOW) is not None
    assert store.get(Kind.REPLAY_MARKER, hash_handle("c"), now=NOW) is not None


def test_get_knows_no_unknown_id(store: SqlStore) -> None:
    """`get` of an id that was never put is None."""
    assert store.get(Kind.SESSION, hash_handle("unknown"), now=NOW) is None


@pytest.mark.parametrize(("now", "is_live"), [(NOW + 59, True), (NOW + 60, False), (NOW + 61, False)])
def test_a_record_ends_at_its_second(store: SqlStore, now: int, is_live: bool) -> None:
    """From `expires_at` on, that second included, no verb but `delete_expired` sees a record."""
    store.put(record(subject="alice", grant_id="g"), now=NOW)
    assert (store.get(Kind.SESSION, ONE, now=now) is not None) is is_live
    assert (len(store.list(Kind.SESSION, subject="alice", now=now)) == 1) is is_live
    assert store.replace(Kind.SESSION, ONE, record(subject="alice"), now=now) is is_live
    assert (store.take(Kind.SESSION, ONE, now=now) is not None) is is_live


def test_a_record_that_has_ended_is_not_counted_as_deleted(store: SqlStore) -> None:
    """`delete` counts, and removes, only live records."""
    store.put(record(subject="alice", expires_at=NOW), now=NOW - 1)
    assert store.delete(Fitting(Kind.SESSION, subject="alice"), now=NOW) == 0
    assert store.delete_expired(now=NOW, limit=10) == 1


def test_take_returns_and_removes(store: SqlStore) -> None:
    """`take` gives the record once, and then it is gone for every verb."""
    store.put(record(subject="alice", body={"a": 1}), now=NOW)
    assert store.take(Kind.SESSION, ONE, now=NOW) == record(subject="alice", body={"a": 1})
    assert store.take(Kind.SESSION, ONE, now=NOW) is None
    assert store.get(Kind.SESSION, ONE, now=NOW) is None
    assert store.list(Kind.SESSION, subject="alice", now=NOW) == []


def test_take_leaves_other_records(store: SqlStore) -> None:
    """`take` removes the one id, in the one kind."""
    store.put(record("one"), record("two"), record("one", kind=Kind.REPLAY_MARKER), now=NOW)
    store.take(Kind.SESSION, ONE, now=NOW)
    assert store.get(Kind.SESSION, hash_handle("two"), now=NOW) is not None
    assert store.get(Kind.REPLAY_MARKER, ONE, now=NOW) is not None


def test_a_replaced_record_is_found_by_its_new_id_alone(store: SqlStore) -> None:
    """After `replace` the old id finds nothing, and the new one the successor with all its fields."""
    store.put(record(subject="alice", grant_id="g", body={"n": 1}), now=NOW)
    successor = record("two", subject="alice", grant_id="g", expires_at=NOW + 600, body={"n": 2})
    assert store.replace(Kind.SESSION, ONE, successor, now=NOW) is True
    assert store.get(Kind.SESSION, ONE, now=NOW) is None
    assert store.get(Kind.SESSION, hash_handle("two"), now=NOW) == successor
    assert store.list(Kind.SESSION, subject="alice", now=NOW) == [successor]


def test_a_record_is_replaced_once(store: SqlStore) -> None:
    """A second `replace` of the same id is False and changes nothing."""
    store.put(record(), now=NOW)
    store.replace(Kind.SESSION, ONE, record("two"), now=NOW)
    assert store.replace(Kind.SESSION, ONE, record("three"), now=NOW) is False
    assert store.get(Kind.SESSION, hash_handle("two"), now=NOW) is not None
    assert store.get(Kind.SESSION, hash_handle("three"), now=NOW) is None


def test_replace_makes_nothing_out_of_nothing(store: SqlStore) -> None:
    """`replace` of an unknown id is False, and its successor is not stored."""
    assert store.replace(Kind.SESSION, hash_handle("unknown"), record("two"), now=NOW) is False
    assert store.get(Kind.SESSION, hash_handle("two"), now=NOW) is None


def test_list_gives_the_one_that_ends_last_first(store: SqlStore) -> None:
    """`list` is ordered by the end, the latest first, and has only one subject's live records."""
    ends = {"a": 30, "b": 90, "c": 60, "gone": 0}
    for handle, seconds in ends.items():
        store.put(record(handle, subject="alice", expires_at=NOW + seconds), now=NOW - 1)
    store.put(record("other", subject="alicea"), record("case", subject="Alice"), now=NOW)
    store.put(record("marker", kind=Kind.REPLAY_MARKER, subject="alice"), now=NOW)
    found = store.list(Kind.SESSION, subject="alice", now=NOW)
    assert [each.id_hash for each in found] == [hash_handle(handle) for handle in ("b", "c", "a")]


def test_list_orders_equal_ends_the_same_way_each_time(store: SqlStore) -> None:
    """Records that end together are listed in one order, whatever order they came in."""
    handles = [f"h{number}" for number in range(9)]
    for handle in handles:
        store.put(record(handle, subject="alice"), now=NOW)
    found = [each.id_hash for each in store.list(Kind.SESSION, subject="alice", now=NOW)]
    assert found == sorted(hash_handle(handle) for handle in handles)


def _three_of_alice(store: SqlStore) -> None:
    for handle in ("a", "b", "c"):
        store.put(record(handle, subject="alice", grant_id=f"g-{handle}", session_id=f"s-{handle}"), now=NOW)
    store.put(record("bob", subject="bob", grant_id="g-a", session_id="s-a"), now=NOW)


def _grants(store: SqlStore, subject: str) -> set[str]:
    return {each.grant_id for each in store.list(Kind.SESSION, subject=subject, now=NOW)}


def test_delete_removes_all_of_a_subject(store: SqlStore) -> None:
    """`delete` by subject removes every live record about it, counts them, and touches nobody else's."""
    _three_of_alice(store)
    assert store.delete(Fitting(Kind.SESSION, subject="alice"), now=NOW) == 3
    assert _grants(store, "alice") == set()
    assert _grants(store, "bob") == {"g-a"}


def test_delete_of_a_grant_removes_that_grant(store: SqlStore) -> None:
    """`delete` with `grant_id` removes that grant's records of that subject, not another's of the same name."""
    _three_of_alice(store)
    assert store.delete(Fitting(Kind.SESSION, subject="alice", grant_id="g-a"), now=NOW) == 1
    assert _grants(store, "alice") == {"g-b", "g-c"}
    assert _grants(store, "bob") == {"g-a"}


def test_delete_of_a_grant_needs_no_subject(store: SqlStore) -> None:
    """`delete` with only `grant_id` removes that grant's records, whichever subject they are about."""
    _three_of_alice(store)
    assert store.delete(Fitting(Kind.SESSION, grant_id="g-a"), now=NOW) == 2
    assert _grants(store, "alice") == {"g-b", "g-c"}
    assert _grants(store, "bob") == set()


def test_delete_of_a_session_removes_what_hangs_on_it(store: SqlStore) -> None:
    """`delete` with `session_id` removes that session's records, of that subject where one is named."""
    _three_of_alice(store)
    assert store.delete(Fitting(Kind.SESSION, subject="alice", session_id="s-a"), now=NOW) == 1
    assert _grants(store, "alice") == {"g-b", "g-c"}
    assert store.delete(Fitting(Kind.SESSION, session_id="s-a"), now=NOW) == 1
    assert _grants(store, "bob") == set()


def test_delete_keeps_the_session_to_keep(store: SqlStore) -> None:
    """`delete` with `keep_session_id` removes all of the subject but that session's."""
    _three_of_alice(store)
    assert store.delete(Fitting(Kind.SESSION, subject="alice", keep_session_id="s-b"), now=NOW) == 2
    assert _grants(store, "alice") == {"g-b"}


def _grant(name: str, *, outlives: bool, session_id: str = "s-a", tokens: bytes = b"t" * 32) -> Record:
    about = {"subject": "alice", "session_id": session_id, "client_id": "reports"}
    return record(name, kind=Kind.GRANT, **about, outlives_session=outlives, tokens=tokens)


def test_delete_by_whether_a_grant_outlives_its_session(store: SqlStore) -> None:
    """`delete` with `outlives_session` tells the grants that stay when their session ends from the others."""
    stays, goes = _grant("stays", outlives=True), _grant("goes", outlives=False)
    store.put(stays, goes, now=NOW)
    falling = Fitting(Kind.GRANT, subject="alice", session_id="s-a", outlives_session=False)
    assert store.delete(falling, now=NOW) == 1
    assert store.list(Kind.GRANT, subject="alice", now=NOW) == [stays]
    assert store.delete(replace(falling, outlives_session=True), now=NOW) == 1


def test_delete_takes_the_access_tokens_of_what_stays(store: SqlStore) -> None:
    """`without_tokens`: in the same transaction the grants that fit lose their tokens, and nothing else; each counts
    as changed, so that a use that was decided before does not bring them back. The others stay as they are.
    """
    fit, other = _grant("fit", outlives=True), _grant("other", outlives=True, session_id="s-b")
    empty = _grant("empty", outlives=True, tokens=b"")
    ended = replace(_grant("ended", outlives=True), expires_at=NOW)
    store.put(fit, other, empty, ended, record("session", subject="alice", session_id="s-a"), now=NOW - 1)
    emptied = Fitting(Kind.GRANT, subject="alice", session_id="s-a", outlives_session=True)
    session = Fitting(Kind.SESSION, subject="alice", session_id="s-a")
    assert store.delete(session, without_tokens=[emptied], now=NOW) == 1
    kept = {each.id_hash: each for each in store.list(Kind.GRANT, subject="alice", now=NOW)}
    assert kept == {each.id_hash: each for each in (replace(fit, tokens=b""), other, empty)}
    versions = [kept[each.id_hash].version for each in (fit, other, empty)]
    assert versions == [2, 1, 1]
    assert store.get(Kind.GRANT, ended.id_hash, now=NOW - 1) == ended
    assert store.swap(replace(fit, tokens=b"n" * 32), now=NOW) is False
    with pytest.raises(ValueError, match="nothing is said"):
        store.delete(session, without_tokens=[Fitting(Kind.GRANT)], now=NOW)


def test_delete_of_a_kept_session_removes_nothing(store: SqlStore) -> None:
    """`session_id` and `keep_session_id` hold both at once, as all that is said of records does."""
    _three_of_alice(store)
    both = {"session_id": "s-a", "keep_session_id": "s-a"}
    assert store.delete(Fitting(Kind.SESSION, subject="alice", **both), now=NOW) == 0
    assert (
        store.delete(Fitting(Kind.SESSION, subject="alice", grant_id="g-a", session_id="s-b"), now=NOW) == 0
    )
    assert _grants(store, "alice") == {"g-a", "g-b", "g-c"}


@pytest.mark.parametrize(
    "said",
    [{}, {"keep_session_id": "s-a"}, {"outlives_session": True}],
    ids=["nothing", "only what to keep", "only of which sort"],
)
def test_delete_of_everything_is_refused(store: SqlStore, said: dict[str, Any]) -> None:
    """`delete` raises `ValueError` when nothing is said of the records: that would be all. Nothing is removed."""
    _three_of_alice(store)
    with pytest.raises(ValueError, match="nothing is said"):
        store.delete(Fitting(Kind.SESSION, **said), now=NOW)
    assert len(store.list(Kind.SESSION, now=NOW)) == 4


def test_delete_of_an_unknown_subject_counts_nothing(store: SqlStore) -> None:
    """`delete` of records that do not exist is 0, and no error."""
    assert store.delete(Fitting(Kind.SESSION, subject="nobody"), now=NOW) == 0
    assert store.delete(Fitting(Kind.SESSION, subject="%"), now=NOW) == 0


def test_delete_keeps_to_its_kind(store: SqlStore) -> None:
    """`delete` of sessions leaves other kinds of the same subject."""
    store.put(record(subject="alice"), record(kind=Kind.REPLAY_MARKER, subject="alice"), now=NOW)
    assert store.delete(Fitting(Kind.SESSION, subject="alice"), now=NOW) == 1
    assert store.get(Kind.REPLAY_MARKER, ONE, now=NOW) is not None


def test_delete_of_several_kinds_counts_the_first(store: SqlStore) -> None:
    """`delete` of several kinds removes what fits of each, and says how many of the first there were."""
    for number, kind in enumerate((Kind.GRANT, Kind.VISIT, Kind.CONSENT, Kind.SESSION)):
        for handle in range(number + 1):
            store.put(record(f"{handle}", kind=kind, subject="alice", session_id="s"), now=NOW)
    store.put(record("0", kind=Kind.USER, subject="alice", session_id="s"), now=NOW)
    kinds = (Kind.VISIT, Kind.GRANT, Kind.SESSION)
    assert store.delete(*(Fitting(kind, subject="alice") for kind in kinds), now=NOW) == 2
    left = {kind: len(store.list(kind, now=NOW)) for kind in Kind}
    assert {kind: count for kind, count in left.items() if count} == {Kind.CONSENT: 3, Kind.USER: 1}


def test_list_by_session(store: SqlStore) -> None:
    """`list` with `session_id` has that session's live records, of that subject where one is named too."""
    _three_of_alice(store)
    store.put(record("ended", subject="alice", session_id="s-a", expires_at=NOW), now=NOW - 1)
    of_both = store.list(Kind.SESSION, session_id="s-a", now=NOW)
    assert {each.subject for each in of_both} == {"alice", "bob"}
    (of_one,) = store.list(Kind.SESSION, subject="alice", session_id="s-a", now=NOW)
    assert of_one.id_hash == hash_handle("a")
    assert store.list(Kind.SESSION, subject="alice", session_id="unknown", now=NOW) == []


def test_list_of_nothing_said_is_all(store: SqlStore) -> None:
    """`list` with neither has every live record of the kind."""
    _three_of_alice(store)
    store.put(record(kind=Kind.REPLAY_MARKER), record("ended", expires_at=NOW), now=NOW - 1)
    assert {each.id_hash for each in store.list(Kind.SESSION, now=NOW)} == {
        hash_handle(handle) for handle in ("a", "b", "c", "bob")
    }


def test_delete_expired_removes_what_has_ended(store: SqlStore) -> None:
    """`delete_expired` removes the ended records of every kind, counts them, and leaves the live ones."""
    store.put(record("live", expires_at=NOW + 1), now=0)
    store.put(record("ended", expires_at=NOW), now=0)
    store.put(record("ended", kind=Kind.REPLAY_MARKER, expires_at=NOW - 5), now=0)
    assert store.delete_expired(now=NOW, limit=10) == 2
    assert store.get(Kind.SESSION, hash_handle("live"), now=NOW) is not None
    assert store.put(record("ended"), record("ended", kind=Kind.REPLAY_MARKER), now=NOW) is True


def test_delete_expired_keeps_to_its_limit(store: SqlStore) -> None:
    """`delete_expired` removes at most `limit` records of each kind a call, and 0 says that none is left."""
    for number in range(7):
        pair = [record(f"{number}", kind=kind, expires_at=NOW) for kind in Kind]
        store.put(*pair, now=0)
    assert [store.delete_expired(now=NOW, limit=3) for _ in range(4)] == [
        len(Kind) * removed for removed in (3, 3, 1, 0)
    ]


def test_a_swept_id_is_free_again(store: SqlStore) -> None:
    """What `delete_expired` has removed may be put again."""
    store.put(record(expires_at=NOW), now=NOW - 1)
    store.delete_expired(now=NOW, limit=10)
    assert store.put(record(), now=NOW) is True


ODD = {
    "unicode": {"name": "Zoë 𝒳 👩‍👩‍👧 \u202e\ufeff", "ключ": "值"},
    "a NUL": {"text": "a\0b\0", "\0": 1},
    "quotes and percent signs": {"q": "'\"`;--%s %(id)s :id ?\\"},
    "line breaks and a lone surrogate": {"text": "\r\n\t\u2028\x7f", "half": "\ud800"},
    "numbers": {"big": 10**30, "minus": -(2**63) - 1, "small": 1e-300, "t": True},
    "nesting": {"a": [[[{"b": [None, {}, []]}]]]},
    "60 KB": {"text": "ü" * 30_000, "list": list(range(1000))},
    "nothing": {},
}


@pytest.mark.parametrize("name", ODD)
def test_a_body_comes_back_as_it_was(store: SqlStore, name: str) -> None:
    """Whatever JSON a body holds, `get`, `list`, `replace` and `take` give it back unchanged."""
    odd = record(subject="alice", body=ODD[name])
    store.put(odd, now=NOW)
    assert store.get(Kind.SESSION, ONE, now=NOW) == odd
    assert store.list(Kind.SESSION, subject="alice", now=NOW) == [odd]
    successor = record("two", subject="alice", body={"was": ODD[name]})
    assert store.replace(Kind.SESSION, ONE, successor, now=NOW) is True
    assert store.take(Kind.SESSION, hash_handle("two"), now=NOW) == successor


def test_the_largest_fields_fit(store: SqlStore) -> None:
    """A subject of 255 characters, ids of 64 and times far beyond 2038 come back as they were."""
    about = {"subject": "~" * 255, "session_id": "s" * 64, "client_id": "c" * 255, "expires_at": 2**53}
    for large in (
        record(grant_id="g" * 64, **about),
        record(kind=Kind.GRANT, tokens=b"\0" * 32 * 32, **about),
        record(kind=Kind.VISIT, **about),
    ):
        store.put(large, now=NOW)
        assert store.get(large.kind, large.id_hash, now=NOW) == large
        assert store.list(large.kind, subject="~" * 255, now=NOW) == [large]


def test_hostile_text_is_only_text(store: SqlStore) -> None:
    """What looks like SQL in an id or a subject finds nothing and harms nothing."""
    store.put(record(subject="alice"), now=NOW)
    hostile = "' OR 1=1; DROP TABLE session; --"
    assert store.get(Kind.SESSION, hostile, now=NOW) is None
    assert store.list(Kind.SESSION, subject=hostile, now=NOW) == []
    assert store.delete(Fitting(Kind.SESSION, subject=hostile), now=NOW) == 0
    assert store.list(Kind.SESSION, session_id=hostile, now=NOW) == []
    assert (
        store.delete(
            Fitting(Kind.SESSION, subject="alice", keep_session_id=hostile, grant_id=hostile), now=NOW
        )
        == 0
    )
    assert store.get(Kind.SESSION, ONE, now=NOW) == Record(Kind.SESSION, ONE, NOW + 60, "alice")
