"""What is good once is good once, whoever asks at the same moment: threads of one process, and processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from service.protocol.models import SignIn
from service.sessions import LocalSessions
from service.storage.interface import Kind
from service.storage.sql import SqlStore
from tests.storage.racers import RACES, Racers, Result, race_threads
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


def _prizes(race: str, store: SqlStore) -> list[str]:
    """What the race is for: ids that are free, records that are there, or tokens of live sessions."""
    handles = [f"{race} {number}".replace(" ", "-") for number in range(ROUNDS)]
    if race in {"take", "replace"}:
        store.put(*(record(handle, subject=USER) for handle in handles), now=NOW)
    if race == "refresh":
        sessions = LocalSessions(store, lifetime_s=60)
        return [sessions.create(SignIn(user_id=USER), now=NOW).token for _ in handles]
    return handles


def _left(race: str, store: SqlStore, handles: list[str]) -> list[int]:
    """How many records each prize has left behind."""
    match race:
        case "put":
            return [
                store.get(Kind.SESSION, record(handle).id_hash, now=NOW) is not None for handle in handles
            ]
        case "refresh":
            return [len(store.list(Kind.SESSION, subject=USER, now=NOW))]
        case _:
            return [len(store.list(Kind.SESSION, subject=handle, now=NOW)) for handle in handles]


LEFT = {"put": [1] * ROUNDS, "take": [0] * ROUNDS, "refresh": [ROUNDS]}


@pytest.mark.parametrize("race", RACES)
def test_of_32_callers_at_once_exactly_one_wins(
    race: str, store: SqlStore, run: Callable[[str, list[str]], Result]
) -> None:
    """Of any number of callers that ask for the same one-time thing one gets it, and one record is the result."""
    handles = _prizes(race, store)
    result = run(race, handles)
    assert result.errors == []
    assert result.wins == [1] * ROUNDS
    assert _left(race, store, handles) == LEFT.get(race, [1] * ROUNDS)
