"""The queue of logout tokens: what the end of a session costs the database, and which of many processes delivers."""

from __future__ import annotations

import itertools
import re
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest
from joserfc.jwk import RSAKey

from service.clients import Clients
from service.deliveries import Deliveries
from service.delivering import THREADS, Deliverer
from service.handles import hash_handle
from service.keys.signing import Keyring, Keys, build_keyring
from service.outbound.fetcher import Answer, Outbound, Unreachable
from service.records.clients import Client, new_record
from service.records.deliveries import KEPT_S, LEASE_S, RETRY_AFTER_S
from service.records.sessions import SignIn
from service.records.visits import visit
from service.sessions import LocalSessions, NewSession
from service.storage.interface import Kind
from service.storage.sql import SqlStore
from service.storage.sweeping import Sweeper
from tests.provider.driver import CALLBACK
from tests.storage.scheduling import Schedule
from tests.storage.stores import NOW, open_url, record
from tests.support.gunicorn import rsa_pem
from tests.support.statements import watch_store
from tests.support.told import wait_for

ISSUER: Final = "https://id.example.com"
URI: Final = "https://rp.example.org/told"


@pytest.fixture(autouse=True)
def no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is the requests' own."""
    monkeypatch.setattr(Sweeper, "begin", lambda _sweeper, _now: None)


def _fixed(client_id: str, uri: str | None) -> Client:
    return Client(client_id, (CALLBACK,), "environment", backchannel_logout_uri=uri)


def _register(store: SqlStore, client_id: str, uri: str | None) -> None:
    metadata: dict[str, Any] = {"client_id": client_id, "redirect_uris": [CALLBACK]}
    named = {} if uri is None else {"backchannel_logout_uri": uri}
    Clients((), store, minted_audience=None).add(metadata | named, now=NOW)


def _signed_in(store: SqlStore, *clients: str, user: str = "alice") -> NewSession:
    """A session that has signed its user in to these clients."""
    new = LocalSessions(store, lifetime_s=60).create(SignIn(user), now=NOW)
    for client_id in clients:
        store.put(visit(user, new.session.sid, client_id, ISSUER, at=NOW), now=NOW)
    return new


def _end(store: SqlStore, new: NewSession, queue: Deliveries | None = None) -> None:
    LocalSessions(store, lifetime_s=60, deliveries=queue).end(new.token, now=NOW)


def test_an_end_costs_one_statement_more_where_there_is_something_to_tell(store: SqlStore) -> None:
    """One insert, in the same transaction, for any number of clients; no statement if no client wants one."""
    _register(store, "silent", None)
    for number in range(3):
        _register(store, f"told-{number}", URI)
    told: list[str] = []
    silent = _signed_in(store, "silent", "gone")
    loud = _signed_in(store, "silent", "told-0", "told-1", "told-2")
    watch_store(store, told.append)
    counts = []
    for new in (silent, loud):
        _end(store, new)
        told.clear()
    for new in (_signed_in(store, "silent"), _signed_in(store, "silent", "told-0", "told-1", "told-2")):
        told.clear()
        _end(store, new)
        counts.append([sql.split()[0] for sql in told])
    without, with_some = counts
    assert with_some == [*without[:-1], "INSERT", "COMMIT"]
    assert without.count("BEGIN") == 1 and "INSERT" not in without


def test_who_is_told_is_read_in_the_transaction(store: SqlStore) -> None:
    """A client of the store counts by its record, one of the environment by the settings, which take precedence; unknown ones are left out."""
    _register(store, "with", URI)
    _register(store, "without", None)
    _register(store, "shadowed", URI)
    fixed = [_fixed("fixed", URI), _fixed("plain", None), _fixed("shadowed", None)]
    queue = Deliveries(store, fixed=fixed)
    new = _signed_in(store, "with", "without", "shadowed", "fixed", "plain", "unknown")
    _end(store, new, queue)
    assert {each.client_id for each in queue.all(now=NOW)} == {"with", "fixed"}
    _end(store, _signed_in(store, "with", "unknown"), Deliveries(store, fixed=None))
    assert sorted(each.client_id for each in queue.all(now=NOW)) == ["fixed", "unknown", "with", "with"]


@pytest.mark.parametrize("wants", ["the operator's", "the stranger's", "neither"])
def test_a_client_may_have_two_rows(store: SqlStore, wants: str) -> None:
    """The operator registered a client whose document is here too: what the operator said counts."""
    client_id = "https://client.example.net/about"
    _register(store, client_id, URI if wants == "the operator's" else None)
    uri = URI if wants == "the stranger's" else None
    theirs = Client(
        client_id, (CALLBACK,), "document", row_ends_at=NOW + 60, backchannel_logout_uri=uri, fresh_until=NOW
    )
    store.put(new_record(theirs), now=NOW)
    new = _signed_in(store, client_id)
    queue = Deliveries(store)
    _end(store, new, queue)
    assert LocalSessions(store, lifetime_s=60).find(new.token, now=NOW) is None
    assert [each.client_id for each in queue.all(now=NOW)] == [client_id] * (wants == "the operator's")


def test_what_is_queued_says_whose_session_and_under_which_issuer(store: SqlStore) -> None:
    """A visit that an older version noted does not say its issuer: then it is the configured one, or nothing is sent."""
    _register(store, "with", URI)
    new = _signed_in(store, "with")
    old = replace(visit("alice", new.session.sid, "with", ISSUER, at=NOW), body={})
    store.put(replace(old, id_hash=hash_handle("older")), now=NOW)
    queue = Deliveries(store)
    _end(store, new, queue)
    (only,) = queue.all(now=NOW)
    assert (only.client_id, only.subject, only.sid, only.issuer) == ("with", "alice", new.session.sid, ISSUER)
    assert (only.queued_at, only.due_at, only.tries) == (NOW, NOW, 0)
    again = _signed_in(store)
    store.put(replace(old, id_hash=hash_handle("o"), session_id=again.session.sid), now=NOW)
    _end(store, again, Deliveries(store, issuer="https://configured.example.com"))
    assert {each.issuer for each in queue.all(now=NOW)} == {ISSUER, "https://configured.example.com"}


@pytest.mark.parametrize("offline", [False, True])
def test_a_client_that_gets_tokens_while_the_session_ends(store: SqlStore, offline: bool) -> None:
    """Statement by statement: tokens and a logout token, or no tokens and none; nothing of the session is left."""
    _register(store, "with", URI)
    schedule = Schedule(store)
    for first in range(1, 8):
        for order in (itertools.repeat(0, first), itertools.repeat(1, first)):
            new = LocalSessions(store, lifetime_s=60).create(SignIn("alice"), now=NOW)
            sid, queue = new.session.sid, Deliveries(store)
            grant = record(
                sid, kind=Kind.GRANT, subject="alice", session_id=sid, client_id="with", tokens=b""
            )
            store.put(grant, now=NOW)
            given = replace(grant, tokens=b"t" * 32, outlives_session=offline)
            noted = visit("alice", sid, "with", ISSUER, at=NOW)
            got, _ = schedule.run(
                [
                    partial(store.swap, given, beside=noted, now=NOW),
                    partial(_end, store, new, queue),
                ],
                itertools.chain(order, itertools.cycle([1, 0])),
            )
            assert [each.sid for each in queue.all(now=NOW) if each.sid == sid] == [sid] * got
            assert store.list(Kind.VISIT, subject="alice", now=NOW) == []
            kept = store.get(Kind.GRANT, grant.id_hash, now=NOW)
            assert kept is None if not (got and offline) else kept is not None and kept.tokens == b""


def test_many_are_queued_at_once(store: SqlStore) -> None:
    """A lock-out of a user with 60 sessions at three clients: each client gets one token for each session, with a separate id."""
    for number in range(3):
        _register(store, f"told-{number}", URI)
    for _ in range(60):
        _signed_in(store, "told-0", "told-1", "told-2")
    queue = Deliveries(store)
    assert LocalSessions(store, lifetime_s=60, deliveries=queue).lock_out("alice", now=NOW) == 60
    found = list(queue.all(now=NOW))
    assert len(found) == len({(each.sid, each.client_id) for each in found}) == 180
    assert len({each.id for each in found}) == 180


def test_of_many_who_take_one_gets_it(store: SqlStore, database_url: str) -> None:
    """Each of fifty deliveries is taken by one of eight, who look at the same moment; then nobody else finds it for a while."""
    _register(store, "told", URI)
    for _ in range(50):
        _end(store, _signed_in(store, "told"))
    taken: list[str] = []
    ready = threading.Barrier(8)

    def take() -> None:
        with closing(open_url(database_url)) as own:
            queue = Deliveries(own)
            found = queue.waiting(most=50, now=NOW)
            ready.wait(20)
            taken.extend(each.id for each in found if queue.take(each, now=NOW) is not None)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(taken) == len(set(taken)) == 50
    queue = Deliveries(store)
    assert all(each.due_at == NOW + LEASE_S for each in queue.waiting(most=100, now=NOW))


def test_who_was_slower_changes_nothing(store: SqlStore) -> None:
    """A try whose lease another process has taken over neither puts off nor ends what that does."""
    _register(store, "told", URI)
    _end(store, _signed_in(store, "told"))
    queue = Deliveries(store)
    (seen,) = queue.waiting(most=1, now=NOW)
    first = queue.take(seen, now=NOW)
    assert first is not None
    assert queue.take(seen, now=NOW) is None
    (later,) = queue.waiting(most=1, now=NOW + LEASE_S)
    second = queue.take(later, now=NOW + LEASE_S)
    assert second is not None
    assert not queue.keep(first.failed("late", now=NOW + LEASE_S), now=NOW + LEASE_S)
    assert queue.keep(second.failed("status 503", now=NOW + LEASE_S), now=NOW + LEASE_S)
    (only,) = queue.all(now=NOW)
    assert (only.tries, only.failure, only.due_at) == (1, "status 503", NOW + LEASE_S + RETRY_AFTER_S[0])


def test_those_of_clients_that_are_busy_are_passed_over(store: SqlStore) -> None:
    """A thousand deliveries that wait for one client do not delay those of others."""
    for client_id in ("slow", "a", "b", "c"):
        _register(store, client_id, URI)
    for _ in range(40):
        _end(store, _signed_in(store, "slow"))
    _end(store, _signed_in(store, "a", "b", "c"))
    queue = Deliveries(store)
    assert {each.client_id for each in queue.waiting(most=10, but=["slow"], now=NOW)} == {"a", "b", "c"}
    found = queue.waiting(most=10, but=["slow", "a", "b"], now=NOW)
    assert {each.client_id for each in found} == {"c"}


def test_the_queue_is_bounded_and_swept(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over goes a week later, what waits after thirty days; of too many the oldest go, those that are over first."""
    monkeypatch.setattr("service.deliveries.MOST_IN_ALL", 16)
    _register(store, "told", URI)
    for number in range(20):
        _end(store, _signed_in(store, "told", user=f"user-{number}"))
    queue = Deliveries(store)
    over = queue.waiting(most=5, now=NOW)
    for each in over:
        assert queue.keep(each.refused("status 400", now=NOW), now=NOW)
    assert queue.trim() == 5
    assert not {each.id for each in queue.all(now=NOW)} & {each.id for each in over}
    (one, *_) = queue.waiting(most=5, now=NOW)
    assert queue.keep(one.refused("status 400", now=NOW), now=NOW)
    assert store.delete_expired(now=NOW + 7 * 86_400, limit=100) >= 1
    assert one.id not in {each.id for each in queue.all(now=NOW)}
    store.delete_expired(now=NOW + KEPT_S, limit=100)
    assert list(queue.all(now=NOW)) == []


def test_strangers_have_half_of_the_threads(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/security.md: no number of registered strangers with separate hosts delays the tokens of other clients."""
    free = threading.Event()
    asked: list[str] = []

    def post(_outbound: Outbound, uri: str, _form: object, *, operators: bool) -> Answer:
        asked.append(uri)
        if not operators:
            free.wait(20)
            raise Unreachable("timeout")
        return Answer(200, {}, b"")

    monkeypatch.setattr(Outbound, "post", post)
    strangers = [
        Client(
            f"s{number}",
            (CALLBACK,),
            "registration",
            backchannel_logout_uri=f"https://s{number}.example.org/",
        )
        for number in range(20)
    ]
    fixed = [*strangers, _fixed("told", URI)]
    queue = Deliveries(store, fixed=fixed)
    _end(store, _signed_in(store, *(each.client_id for each in strangers)), queue)
    _end(store, _signed_in(store, "told"), queue)
    keys = Keys(build_keyring(mint_alg="RS256", private_key=RSAKey.import_key(rsa_pem())))
    clients = Clients(fixed, store, minted_audience=None)
    deliverer = Deliverer(queue, clients, keys, Outbound(), lambda: NOW, poll_s=0.01)
    deliverer.begin()
    try:
        assert wait_for(lambda: URI in asked)
        assert wait_for(lambda: len(asked) == 1 + THREADS // 2)
        free.set()
        assert wait_for(lambda: len(asked) == 1 + len(strangers))
        assert wait_for(lambda: not deliverer._slow)  # nor does it keep the names of their hosts
    finally:
        free.set()
        deliverer.end()


def test_who_sends_keeps_the_queue_small_whoever_filled_it(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PYLON_DELIVERIES=watch the process that sends trims it: the workers, which fill it, send nothing."""
    monkeypatch.setattr("service.deliveries.MOST_IN_ALL", 16)
    monkeypatch.setattr("service.deliveries.TRIM_EVERY", 10)
    monkeypatch.setattr(Outbound, "post", lambda *_, **__: Answer(503, {}, b""))
    _register(store, "told", URI)
    for number in range(40):
        _end(store, _signed_in(store, "told", user=f"user-{number}"))
    clients, queue = Clients((), store, minted_audience=None), Deliveries(store)
    keys = Keys(build_keyring(mint_alg="RS256", private_key=RSAKey.import_key(rsa_pem())))
    deliverer = Deliverer(queue, clients, keys, Outbound(), lambda: NOW, poll_s=0.01)
    deliverer.begin()
    try:
        assert wait_for(lambda: len(list(queue.all(now=NOW))) <= 16)
    finally:
        deliverer.end()


def test_a_retry_begins_anew_under_the_same_id(store: SqlStore) -> None:
    """One that was given up is tried now, and then as often as one that is new."""
    _register(store, "told", URI)
    _end(store, _signed_in(store, "told"))
    queue = Deliveries(store)
    (each,) = queue.waiting(most=1, now=NOW)
    assert queue.keep(each.refused("status 400", now=NOW), now=NOW)
    assert queue.waiting(most=1, now=NOW) == []
    assert queue.retry(each.id, now=NOW + 9)
    assert not queue.retry("another", now=NOW)
    (again,) = queue.waiting(most=1, now=NOW + 9)
    assert (again.id, again.tries, again.state, again.due_at) == (each.id, 0, "waiting", NOW + 9)


def test_an_idle_process_asks_next_to_nothing(store: SqlStore) -> None:
    """Without a client to notify it looks once a minute, by two reads; with one in the environment or here every 5 s.

    Where clients add themselves, there may be thousands, so they are not listed.
    """
    told: list[str] = []
    watch_store(store, told.append)
    for fixed, registered, strangers, reads in (
        ([], None, False, ["delivery", "client"]),
        ([_fixed("told", URI)], None, False, ["delivery"]),
        ([], None, True, ["delivery"]),
        ([], URI, False, ["delivery", "client"]),
    ):
        _register(store, "here" if registered else "silent", registered) if not (fixed or strangers) else None
        clients = Clients(fixed, store, minted_audience=None)
        keys = Keys(Keyring("HS256"))
        queue = Deliveries(store, fixed=fixed, strangers=strangers)
        deliverer = Deliverer(queue, clients, keys, Outbound(), lambda: NOW)
        store.schema_state()  # where the tables are is looked for once
        told.clear()
        deliverer.turn()
        assert [re.findall(r"^SELECT .* FROM (\w+)", sql) for sql in told] == [[table] for table in reads]
        is_wanted = bool(fixed) or strangers or registered is not None
        assert (4 <= deliverer.rest_s() <= 6) if is_wanted else (48 <= deliverer.rest_s() <= 72)
        assert (store._connections.current() is None) is not is_wanted
