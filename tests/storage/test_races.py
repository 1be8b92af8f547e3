"""What is good once is good once, however many ask at the same moment: threads of one process, and processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from service.records.grants import AccessToken, Grants, RefreshToken
from service.records.guesses import MOST_OF_ONE_USER
from service.records.sessions import SignIn
from service.sessions import LocalSessions
from service.storage.interface import Kind
from service.storage.sql import SqlStore
from tests.storage.racers import (
    RACES,
    Racers,
    Result,
    device_of,
    grant_of,
    invitation_of,
    race_threads,
    redeem,
)
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
    if race in {"swap", "use"}:
        store.put(*(grant_of(handle) for handle in handles), now=NOW)
    if race == "invitation":
        store.put(*(invitation_of(handle).to_record() for handle in handles), now=NOW)
    if race == "decision":
        store.put(*(device_of(handle).to_record() for handle in handles), now=NOW)
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
        case "swap":
            return [store.list(Kind.GRANT, subject=handle, now=NOW)[0].version - 1 for handle in handles]
        case "use":
            return [len(Grants(store).of_user(handle, now=NOW)[0].access) for handle in handles]
        case "invitation":
            names = [each.body["client_name"] for each in store.list(Kind.CLIENT, now=NOW)]
            return [names.count(handle) for handle in handles]
        case _:
            return [len(store.list(Kind.SESSION, subject=handle, now=NOW)) for handle in handles]


LEFT = {"put": [1] * ROUNDS, "take": [0] * ROUNDS, "refresh": [ROUNDS]}


@pytest.mark.parametrize("race", [race for race in RACES if race not in ("change", "guess")])
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


def test_of_32_who_guess_at_once_as_many_may_as_one_after_the_other(
    store: SqlStore, run: Callable[[str, list[str]], Result]
) -> None:
    """RFC 8628 §5.1: wrong codes of devices are counted before they are looked up, by all processes together."""
    handles = prizes("guess", store)
    result = run("guess", handles)
    assert result.errors == []
    assert result.wins == [MOST_OF_ONE_USER] * ROUNDS


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


def _used_again(store: SqlStore, handle: str) -> object:
    """The grant ends because its code comes twice."""
    return Grants(store).end(grant_of(handle).id_hash, now=NOW)


ENDINGS: dict[str, Callable[[SqlStore, str], object]] = {
    "revoked": _used_again,
    "locked out": lambda store, handle: LocalSessions(store, lifetime_s=60).lock_out(handle, now=NOW),
    "signed out": lambda store, handle: LocalSessions(store, lifetime_s=60).end_all(handle, now=NOW),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_used_while_it_ends_is_at_its_end(
    store: SqlStore, second_store: SqlStore, ending: str
) -> None:
    """A grant that ends while its code is redeemed is gone afterwards, and neither waits for the other without end."""
    for number in range(40):
        handle = f"h{number}"
        store.put(grant_of(handle), now=NOW)
        use = partial(redeem, store, handle, "client")
        assert _at_once(use, partial(ENDINGS[ending], second_store, handle)) == []
        assert store.list(Kind.GRANT, subject=handle, now=NOW) == []


def test_an_access_token_that_comes_while_the_session_ends_is_none(
    store: SqlStore, second_store: SqlStore
) -> None:
    """An offline grant stays when its session ends, and has no earlier access token; whichever was faster.

    What a refresh gives after the end is not the session's: it is decided from the grant as the end has left it.
    """
    sessions = LocalSessions(second_store, lifetime_s=60)
    refresh = RefreshToken("fixed", "changing", NOW, NOW + 60)
    before = AccessToken(b"b" * 16, NOW, NOW + 60, ("openid",))
    for number in range(40):
        handle = f"h{number}"
        store.put(grant_of(handle, refresh=refresh, access=(before,)), now=NOW)
        redeeming = partial(redeem, store, handle, "client")
        assert _at_once(redeeming, partial(sessions.end_one, handle, handle, now=NOW)) == []
        (kept,) = Grants(store).of_user(handle, now=NOW)
        assert before not in kept.access
        assert len(kept.access) <= 1
