"""What is good once is good once, whoever asks at the same moment: threads of one process, and processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from service.protocol.models import SignIn
from service.sessions import LocalSessions
from service.storage.interface import Kind
from service.storage.sql import SqlStore
from tests.storage.racers import RACES, Racers, Result, grant_of, race_threads
from tests.storage.stores import NOW, record

ROUNDS = 6
USER = "alice"


@pytest.fixture(scope="module")
def processes() -> Iterator[Racers]:
    """The racing processes."""
    with Racers() as racers:
        yield racers


@pytest.fixture(params=["32 threads", "4 processes of 8 threads"])
def run(
    request: pytest.FixtureRequest, store: SqlStore, database_url: str
) -> Callable[[str, list[str]], Result]:
    """Runs a race on the database of `store`."""
    if request.param == "32 threads":
        start = threading.Barrier(32)
        return lambda race, handles: race_threads(store, race, handles, start=start, threads=32)
    processes = request.getfixturevalue("processes")
    assert isinstance(processes, Racers)
    return lambda race, handles: processes.race(database_url, race, handles)


def prizes(race: str, store: SqlStore) -> list[str]:
    """What the race is for: ids that are free, records that are there, or tokens of live sessions."""
    handles = [f"{race} {number}".replace(" ", "-") for number in range(ROUNDS)]
    if race in {"take", "replace"}:
        store.put(*(record(handle, subject=USER) for handle in handles), now=NOW)
    if race == "take and put":
        store.put(*(record(handle, kind=Kind.INTERACTION) for handle in handles), now=NOW)
    if race == "spend":
        store.put(*(grant_of(handle) for handle in handles), now=NOW)
        store.put(*(record(handle, kind=Kind.CODE, grant_id=handle) for handle in handles), now=NOW)
    if race == "refresh":
        sessions = LocalSessions(store, lifetime_s=60)
        return [sessions.create(SignIn(user_id=USER), now=NOW).token for _ in handles]
    return handles


def left(race: str, store: SqlStore, handles: list[str]) -> list[int]:
    """How many records each prize has left behind."""
    match race:
        case "put":
            return [
                store.get(Kind.SESSION, record(handle).id_hash, now=NOW) is not None for handle in handles
            ]
        case "refresh":
            return [len(store.list(Kind.SESSION, subject=USER, now=NOW))]
        case "spend":
            return [len(store.list(Kind.ACCESS_TOKEN, subject=handle, now=NOW)) for handle in handles]
        case _:
            return [len(store.list(Kind.SESSION, subject=handle, now=NOW)) for handle in handles]


LEFT = {"put": [1] * ROUNDS, "take": [0] * ROUNDS, "refresh": [ROUNDS]}


@pytest.mark.parametrize("race", [race for race in RACES if race != "change"])
def test_of_32_callers_at_once_exactly_one_wins(
    race: str, store: SqlStore, run: Callable[[str, list[str]], Result]
) -> None:
    """Of any number of callers that ask for the same one-time thing one gets it, and one record is the result."""
    handles = prizes(race, store)
    result = run(race, handles)
    assert result.errors == []
    assert result.wins == [1] * ROUNDS
    assert left(race, store, handles) == LEFT.get(race, [1] * ROUNDS)


def test_of_32_who_change_at_once_nobody_is_lost(
    store: SqlStore, run: Callable[[str, list[str]], Result]
) -> None:
    """`change`, by as many first writers at once: one record, with the member of each."""
    handles = prizes("change", store)
    result = run("change", handles)
    assert result.errors == []
    assert result.wins == [32] * ROUNDS
    for handle in handles:
        (kept,) = store.list(Kind.USER, subject=handle, now=NOW)
        assert len(kept.body) == 32


def _at_once(*calls: Callable[[], object]) -> list[BaseException]:
    """Make the calls at the same moment; what they raised."""
    start, raised = threading.Barrier(len(calls)), []

    def run(call: Callable[[], object]) -> None:
        start.wait(60)
        try:
            call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


HANGING = (Kind.GRANT, Kind.CODE, Kind.ACCESS_TOKEN, Kind.REFRESH_TOKEN)
ENDINGS: dict[str, Callable[[SqlStore, str], object]] = {
    "revoked": lambda store, handle: store.delete(*HANGING, grant_id=handle, now=NOW),
    "locked out": lambda store, handle: LocalSessions(store, lifetime_s=60).lock_out(handle, now=NOW),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", [Kind.CODE, Kind.REFRESH_TOKEN])
def test_what_is_spent_while_its_grant_ends_leaves_nothing(
    store: SqlStore, second_store: SqlStore, kind: Kind, ending: str
) -> None:
    """A grant that ends while it is used is at its end afterwards, with all that hung on it; neither waits for the
    other for ever.
    """
    for number in range(40):
        handle = f"h{number}"
        token = record(f"token {handle}", kind=Kind.ACCESS_TOKEN, subject=handle, grant_id=handle)
        store.put(grant_of(handle), record(handle, kind=kind, subject=handle, grant_id=handle), now=NOW)
        spend = partial(
            store.spend,
            kind,
            record(handle).id_hash,
            grant=grant_of(handle),
            body={},
            put=[token],
            now=NOW,
        )
        assert _at_once(spend, partial(ENDINGS[ending], second_store, handle)) == []
        assert [store.list(each, subject=handle, now=NOW) for each in HANGING] == [[]] * 4
