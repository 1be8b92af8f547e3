"""What a grant costs: bytes of its row and of the database's log, and what is looked at where something ends.

Figures are printed (`pytest -rP`).
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Final

import psycopg
import pytest

from service.clients import Clients
from service.records.sessions import SignIn
from service.sessions import LocalSessions
from service.storage.interface import FALLS_WITH_CLIENT, FALLS_WITH_USER, NEVER, Kind
from service.storage.sql import SqlStore
from service.storage.sweeping import Sweeper
from tests.flows.polling import wait_until
from tests.provider.driver import CALLBACK
from tests.storage.racers import grant_of
from tests.storage.stores import NOW, fill_many, open_url, record, sqlite_path
from tests.storage.worlds import World, world_on

SCOPE: Final = "openid profile email offline_access"
#: A page in SQLite's log, and its header.
LOGGED: Final = 4096 + 24
FOREIGN: Final = 50_000
#: How often an end is timed.
ROUNDS: Final = 15


@pytest.fixture(autouse=True)
def no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is the requests' own."""
    monkeypatch.setattr(Sweeper, "begin", lambda _sweeper, _now: None)


# --- bytes ---


class Flow:
    """A provider, a client as one usually is, and users who sign in to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        metadata = {"redirect_uris": [CALLBACK], "first_party": True, "client_name": "Reports"}
        made = world.app.call("POST", "/api/oidc/clients", metadata).json()
        self.rp = world.provider.rp(made["client_id"], secret=made["client_secret"], redirect_uri=CALLBACK)
        self._users = 0

    def code(self) -> tuple[Any, str]:
        """A request of a new user, and its code."""
        self._users += 1
        user = f"0b5b7a9e-6a8e-4c53-9c1d-{self._users:012d}"
        browser, request = self.world.provider.browser(), self.rp.request(scope=SCOPE)
        self.world.app.sign_in(browser, user, amr=["pwd", "otp"])
        return request, self.world.provider.authorize(browser, request, user=user)["code"]

    def redeem(self, request: Any, code: str) -> str:
        """The refresh token that a code gives."""
        return self._refresh_token(self.rp.redeem(request, code))

    def refresh(self, token: str) -> str:
        """The next refresh token, some minutes later."""
        self.world.provider.clock.advance(1)
        return self._refresh_token(self.rp.refresh(token))

    def _refresh_token(self, answer: Any) -> str:
        assert answer.status == 200, answer
        return str(answer.json()["refresh_token"])


def test_a_grant_with_eight_access_tokens_is_a_small_row(store: SqlStore, database_url: str) -> None:
    """A code that was redeemed and seven refreshes within the hour: under 1,000 bytes, as the database keeps it."""
    flow = Flow(world_on(store, database_url))
    token = flow.redeem(*flow.code())
    for _ in range(7):
        token = flow.refresh(token)
    (grant,) = store.list(Kind.GRANT, now=int(flow.world.provider.clock()))
    assert len(grant.tokens) == 8 * 32
    size = _row_bytes(database_url)
    print(f"a grant with eight access tokens: {size} bytes")
    assert 32 * 8 < size < 1000


def _row_bytes(url: str) -> int:
    """The size of the only row of grants."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url))) as connection:
            columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(oauth_grant)")]
            sizes = " + ".join(f"length(CAST({name} AS BLOB))" for name in columns)
            ((size,),) = connection.execute(f"SELECT {sizes} FROM oauth_grant")
            return int(size)
    with psycopg.connect(url) as admin:
        ((size,),) = admin.execute("SELECT pg_column_size(g.*) FROM oauth_grant AS g").fetchall()
        return int(size)


@pytest.fixture
def logged(sqlite_url: str) -> Iterator[tuple[Flow, Callable[[Callable[[], str]], tuple[int, str]]]]:
    """A provider on SQLite whose log nobody writes back, and what a call adds to it, in bytes, with its result."""
    log = sqlite_path(sqlite_url).with_name(f"{sqlite_path(sqlite_url).name}-wal")

    def written(call: Callable[[], str]) -> tuple[int, str]:
        before = log.stat().st_size
        result = call()
        return log.stat().st_size - before, result

    with closing(open_url(sqlite_url)) as store:
        store.migrate()
        database: Any = store.database
        plain = database.connect

        def connect() -> Any:
            connection = plain()
            connection.execute("PRAGMA wal_autocheckpoint=0")
            return connection

        database.connect = connect
        yield Flow(world_on(store, sqlite_url)), written


def test_an_exchange_and_a_refresh_log_few_pages(
    logged: tuple[Flow, Callable[[Callable[[], str]], tuple[int, str]]],
) -> None:
    """An exchange logs two pages at most, and a refresh three, the fifth of a grant too; whether or not codes of others
    came in between: no row grows out of its page.
    """
    flow, written = logged
    for count, others in ((20, 0), (20, 1), (1, 40)):
        exchanges, refreshes = [], []
        for _ in range(count):
            tokens = []
            for request, code in [flow.code() for _ in range(1 + others)]:
                took, token = written(partial(flow.redeem, request, code))
                exchanges.append(took)
                tokens.append(token)
            for _ in range(5):
                took_and_token = [written(partial(flow.refresh, token)) for token in tokens]
                refreshes += [took for took, _ in took_and_token]
                tokens = [token for _, token in took_and_token]
        _tell(f"exchange with {others} others", exchanges)
        _tell(f"refresh with {others} others", refreshes)
        assert max(exchanges) <= 2 * LOGGED
        assert max(refreshes) <= 3 * LOGGED


def _tell(what: str, sizes: list[int]) -> None:
    mean = statistics.mean(sizes)
    print(f"{what}: {statistics.median(sizes):.0f} bytes of log; mean {mean:.0f}, most {max(sizes)}")


def test_uses_of_grants_are_heap_only_updates(postgres_url: str) -> None:
    """PostgreSQL: at least 95 in 100 exchanges and refreshes change no index, so that no index grows by them."""
    with closing(open_url(postgres_url)) as store:
        store.migrate()
        flow = Flow(world_on(store, postgres_url))
        codes = [flow.code() for _ in range(100)]
        tokens = [flow.redeem(*code) for code in codes]
        for _ in range(2):
            tokens = [flow.refresh(token) for token in tokens]
    updates, heap_only = wait_until(partial(_updates, postgres_url, at_least=300))
    print(f"{heap_only} of {updates} updates are heap-only")
    assert updates == 300
    assert heap_only / updates >= 0.95


def _updates(url: str, *, at_least: int) -> tuple[int, int] | None:
    """How many updates of grants there were, and how many of them were heap-only; a session tells that at its end."""
    counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'oauth_grant'"
    with psycopg.connect(url) as admin:
        ((updates, heap_only),) = admin.execute(counts).fetchall()
    return (updates, heap_only) if updates >= at_least else None


# --- what is looked at where something ends ---


def _settle(store: SqlStore) -> None:
    """Alice is signed in, and lets a client of its own have two grants, one of them offline; as if for the first time."""
    LocalSessions(store, lifetime_s=60).lock_out("alice", now=NOW)
    Clients((), store, minted_audience=None).remove("reports", now=NOW)
    sessions, about = LocalSessions(store, lifetime_s=60), {"subject": "alice", "client_id": "reports"}
    Clients((), store, minted_audience=None).add(
        {"client_id": "reports", "redirect_uris": [CALLBACK]}, now=NOW
    )
    sid = sessions.create(SignIn("alice"), now=NOW).session.sid
    for name, outlives in (("one", False), ("two", True)):
        body = grant_of(name).body
        hanging = {"session_id": sid, "outlives_session": outlives, "tokens": b"t" * 32}
        store.put(record(name, kind=Kind.GRANT, body=body, **about, **hanging), now=NOW)
    store.put(
        record("visit", kind=Kind.VISIT, session_id=sid, **about),
        record("consent", kind=Kind.CONSENT, expires_at=NEVER, **about),
        record("cookie", kind=Kind.PROVIDER_SESSION, subject="alice", session_id=sid),
        now=NOW,
    )


def _end_session(store: SqlStore) -> bool:
    sessions = LocalSessions(store, lifetime_s=60)
    (session,) = sessions.list("alice", now=NOW)
    return sessions.end_one("alice", session.sid, now=NOW)


ENDINGS: Final[Mapping[str, Callable[[SqlStore], object]]] = {
    "the end of a session": _end_session,
    "a lock-out": lambda store: LocalSessions(store, lifetime_s=60).lock_out("alice", now=NOW),
    "the removal of a client": lambda store: Clients((), store, minted_audience=None).remove(
        "reports", now=NOW
    ),
}


class _Told:
    """A connection that notes its statements, with their values."""

    def __init__(self, connection: Any, told: list[tuple[str, Mapping[str, Any]]]) -> None:
        self._connection, self._told = connection, told

    def execute(self, sql: str, values: Mapping[str, Any] | None = None) -> Any:
        self._told.append((sql, values or {}))
        return self._connection.execute(sql, values or {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_an_end_costs_the_same_beside_many_foreign_grants(
    store: SqlStore, database_url: str, subtests: pytest.Subtests
) -> None:
    """With 50,000 grants, sessions, visits and consents of others as with none: each statement finds what it is
    about by an index, and looks at no other row.
    """
    alone = {name: _measured(store, database_url, end) for name, end in ENDINGS.items()}
    for kind in {*FALLS_WITH_USER, *FALLS_WITH_CLIENT}:
        fill_many(database_url, kind, FOREIGN)
    told: list[tuple[str, Mapping[str, Any]]] = []
    for name, end in ENDINGS.items():
        count, took = _measured(store, database_url, end)
        print(
            f"{name}: {alone[name][0]} steps or rows with none, {count} with {FOREIGN};"
            f" {took / alone[name][1]:.2f} times as long"
        )
        with subtests.test(name):
            assert count <= 1.05 * alone[name][0]  # an index has a next entry, which ends the search
    database: Any = store.database
    database.connect = lambda plain=database.connect: _Told(plain(), told)
    store.close()
    for name, end in ENDINGS.items():
        _settle(store)
        told.clear()
        assert end(store)
        changing = [each for each in told if each[0].startswith(("DELETE", "UPDATE"))]
        assert len(changing) >= 4
        for sql, values in changing:
            plan = _plan(database_url, sql, values)
            with subtests.test(name, sql=sql):
                assert "Seq Scan" not in plan and "SCAN" not in plan, plan


def test_a_grant_with_its_user_costs_the_same_beside_many(store: SqlStore, database_url: str) -> None:
    """With 50,000 grants and users of others as with none: both are found by an index."""
    grant = record("grant", kind=Kind.GRANT, subject="alice")
    store.put(grant, record("alice", kind=Kind.USER, subject="alice", body={"roles": ["a"]}), now=NOW)

    def read(reading: SqlStore) -> bool:
        found = reading.get(Kind.GRANT, grant.id_hash, with_user=True, now=NOW)
        return found is not None and found.user == {"roles": ["a"]}

    assert read(store)
    alone = _counted(store, database_url, read)
    for kind in (Kind.GRANT, Kind.USER):
        fill_many(database_url, kind, FOREIGN)
    assert read(store)
    count = _counted(store, database_url, read)
    print(f"a grant with its user: {alone} steps or rows with none, {count} with {FOREIGN}")
    assert count <= alone
    told: list[tuple[str, Mapping[str, Any]]] = []
    database: Any = store.database
    database.connect = lambda plain=database.connect: _Told(plain(), told)
    store.close()
    assert read(store)
    ((sql, values),) = told
    plan = _plan(database_url, sql, values)
    assert "Seq Scan" not in plan and "SCAN" not in plan.replace("SCALAR", ""), plan


def _measured(store: SqlStore, url: str, end: Callable[[SqlStore], object]) -> tuple[int, float]:
    """What an end looks at, and how long it takes, in s; on SQLite of the processor, for a disk is not equally fast."""
    times, clock = [], time.thread_time if url.startswith("sqlite") else time.perf_counter
    for _ in range(ROUNDS):
        _settle(store)
        began = clock()
        assert end(store)
        times.append(clock() - began)
    _settle(store)
    return _counted(store, url, end), statistics.median(times)


def _counted(store: SqlStore, url: str, end: Callable[[SqlStore], object]) -> int:
    """What the end looks at: SQLite's steps, PostgreSQL's rows."""
    if url.startswith("sqlite"):
        steps = [0]

        def step() -> None:
            steps[0] += 1

        connection = store._connections.current()
        connection.set_progress_handler(step, 1)
        assert end(store)
        connection.set_progress_handler(None, 0)
        return steps[0]
    store.close()
    with psycopg.connect(url, autocommit=True) as admin:
        before = _rows_read(admin)
        assert end(store)
        store.close()  # its session then reports what it has read
        wait_until(lambda: _rows_read(admin) > before)
        return _rows_read(admin) - before


def _rows_read(admin: psycopg.Connection[Any]) -> int:
    read = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables"
    ((rows,),) = admin.execute(read).fetchall()
    return int(rows)


def _plan(url: str, sql: str, values: Mapping[str, Any]) -> str:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url))) as connection:
            return "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))
    with psycopg.connect(url) as admin:
        return "\n".join(line for (line,) in admin.execute(f"EXPLAIN {sql}", values).fetchall())
