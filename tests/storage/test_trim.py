"""`trim` keeps a kind small: the owner of the most loses the oldest."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.storage.interface import NEVER, Kind, Record
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, record

KIND = Kind.INTERACTION


def _put(store: SqlStore, counts: dict[str, int]) -> list[Record]:
    """So many of each subject; the first ends first."""
    records = [
        record(f"{subject} {n}", kind=KIND, subject=subject, expires_at=NOW + 100 + n)
        for subject, count in counts.items()
        for n in range(count)
    ]
    for first in range(0, len(records), 100):
        store.put(*records[first : first + 100], now=NOW)
    return records


def _left(store: SqlStore) -> Counter[str]:
    return Counter(found.subject for found in store.list(KIND, now=NOW))


def test_nothing_goes_while_there_is_room(store: SqlStore) -> None:
    """At the bounds themselves nothing is too much."""
    _put(store, {"a": 16, "b": 4, "": 12})
    assert store.trim(KIND, most_of_one=16, most=32) == 0
    assert _left(store) == {"a": 16, "b": 4, "": 12}


def test_one_subject_loses_its_oldest(store: SqlStore) -> None:
    """Beyond its bound a subject keeps the newest, a sixteenth less than it may have; the others keep all."""
    _put(store, {"a": 40, "b": 10, "": 60})
    assert store.trim(KIND, most_of_one=16, most=1000) == 25
    assert _left(store) == {"a": 15, "b": 10, "": 60}
    newest = {found.expires_at for found in store.list(KIND, subject="a", now=NOW)}
    assert newest == set(range(NOW + 125, NOW + 140))


def test_in_all_whoever_has_the_most_loses(store: SqlStore) -> None:
    """Beyond the bound in all they go from the largest, until the large ones are alike; a small one keeps all."""
    _put(store, {"a": 50, "b": 30, "c": 3, "": 20})
    assert store.trim(KIND, most_of_one=1000, most=64) == 103 - 60
    left = _left(store)
    assert left["c"] == 3 and sum(left.values()) == 60
    assert all(left[subject] == 19 for subject in ("a", "b", ""))


def test_what_never_ends_is_not_counted_and_stays(store: SqlStore) -> None:
    """docs/decisions/0021-strangers.md: clients that are in use, and the operator's, are no part of the limits."""
    lasting = [
        record(f"kept {subject} {n}", kind=KIND, subject=subject, expires_at=NEVER)
        for subject in ("", "a")
        for n in range(30)
    ]
    assert store.put(*lasting, now=NOW)
    _put(store, {"a": 10, "": 10})
    assert store.trim(KIND, most_of_one=10, most=20) == 0
    assert store.trim(KIND, most_of_one=5, most=16) > 0
    left = store.list(KIND, now=NOW)
    assert sum(found.expires_at == NEVER for found in left) == 60


def test_what_has_ended_counts_and_goes_first(store: SqlStore) -> None:
    """What is there takes room, ended or not."""
    _put(store, {"a": 30})
    assert store.trim(KIND, most_of_one=16, most=1000) == 15
    assert store.delete_expired(now=NOW + 114, limit=100) == 0


def test_other_kinds_are_let_alone(store: SqlStore) -> None:
    """Only the kind that is named."""
    _put(store, {"a": 30})
    store.put(*(record(f"v {n}", kind=Kind.VERIFIER, subject="a") for n in range(30)), now=NOW)
    store.trim(KIND, most_of_one=16, most=16)
    assert len(store.list(Kind.VERIFIER, now=NOW)) == 30


def test_of_any_number_who_trim_at_once_none_fails(store: SqlStore, second_store: SqlStore) -> None:
    """All return, and together they remove no more than a sixteenth too much."""
    _put(store, {f"s{n}": 8 for n in range(60)})
    failed: list[BaseException] = []

    def trim(each: SqlStore) -> None:
        try:
            each.trim(KIND, most_of_one=4, most=160)
        except BaseException as error:
            failed.append(error)

    callers = [threading.Thread(target=trim, args=(each,)) for each in (store, second_store) * 2]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert not failed and not any(caller.is_alive() for caller in callers)
    assert 150 <= sum(_left(store).values()) + 10 <= 170 and max(_left(store).values()) <= 4


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.dictionaries(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 40), max_size=5),
    most_of_one=st.integers(1, 40),
    most=st.integers(1, 100),
)
def test_afterwards_it_is_within_its_bounds(
    store: SqlStore, counts: dict[str, int], most_of_one: int, most: int
) -> None:
    """Whatever was there: nobody has too many, there are not too many in all, and nobody lost more than who has most."""
    store.delete_expired(now=NOW + 10_000, limit=10_000)
    _put(store, counts)
    before = _left(store)
    removed = store.trim(KIND, most_of_one=most_of_one, most=most)
    left = _left(store)
    assert sum(before.values()) - sum(left.values()) == removed
    assert sum(left.values()) <= most and all(left[subject] <= most_of_one for subject in "abcd")
    fair = min(max(left.values(), default=0), most_of_one - most_of_one // 16) - 1
    assert all(left[subject] == before[subject] or left[subject] >= fair for subject in "abcd")
