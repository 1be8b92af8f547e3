"""The service on databases as people have them: a pooler, several hosts of which one is a standby, a read-only role."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

from service.records.sessions import SignIn
from service.sessions import LocalSessions
from tests.flows.polling import wait_until
from tests.storage.stores import migrate, open_url
from tests.support.gunicorn import ADMIN, SECRET, Answer, Gunicorn
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresCluster

SETTINGS = {
    "PYLON_JWT_SECRET": SECRET,
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_OIDC_ISSUER": "https://id.example.com",
    "WEB_CONCURRENCY": "2",
}
MANAGED = {
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": "3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=",
}


def _session(server: Gunicorn) -> Answer:
    admin = {"Authorization": f"Bearer {ADMIN}"}
    return server.call("POST", "/api/auth/session", headers=admin, body={"user_id": "u"})


def _refresh(server: Gunicorn, token: str) -> Answer:
    return server.call("POST", "/api/auth/refresh", headers={"Authorization": f"Bearer {token}"})


def test_all_works_through_a_transaction_pooler(postgres_url: str) -> None:
    """Sign-ins, mints and refreshes in parallel, keys in the database: nothing fails, on two sessions of the server."""
    with ExitStack() as stack:
        pooler = stack.enter_context(PgBouncer(postgres_url, pool_size=2))
        migrate(pooler.url(postgres_url))
        server = stack.enter_context(Gunicorn(DATABASE_URL=pooler.url(postgres_url), **SETTINGS, **MANAGED))

        def one_user(_number: int) -> list[int]:
            token = _session(server).json()["token"]
            answers = [server.mint(token) for _ in range(5)]
            answers.append(_refresh(server, token))
            answers += [server.mint(answers[-1].json()["token"]), server.call("GET", "/readyz")]
            return [answer.status for answer in answers]

        with ThreadPoolExecutor(8) as users:
            statuses = Counter(status for each in users.map(one_user, range(40)) for status in each)
        assert statuses == {200: 40 * 8}


def test_a_switch_over_is_followed() -> None:
    """Two hosts of which one is a standby: when it becomes the primary the same workers continue, with every session."""
    with ExitStack() as stack:
        first = stack.enter_context(PostgresCluster())
        database = first.create_database()
        migrate(database)
        second = stack.enter_context(PostgresCluster(standby_of=first))
        parts = urlsplit(database)
        with closing(open_url(second.url(parts.path[1:]))) as store:
            refusal = store.write_refusal()
            assert refusal is not None and "it is a standby" in refusal.reason
        hosts = f"127.0.0.1:{second.port},127.0.0.1:{first.port}"  # the standby first: it is passed over
        url = f"postgresql://{parts.username}:{parts.password}@{hosts}{parts.path}?target_session_attrs=read-write"
        server = stack.enter_context(Gunicorn(DATABASE_URL=url, **SETTINGS))
        workers = server.worker_pids()
        assert server.call("GET", "/readyz").status == 200
        tokens = [server.sign_in(f"user-{number}") for number in range(10)]
        _caught_up(first, second)

        is_over = threading.Event()
        threads = stack.enter_context(ThreadPoolExecutor(2))
        using = [threads.submit(_use, server, tokens, is_over) for _ in range(2)]
        stack.callback(is_over.set)
        first.stop("fast")
        assert {server.mint(token).status for token in tokens} == {503}
        second.execute("SELECT pg_promote()")
        wait_until(lambda: server.call("GET", "/readyz").status == 200)
        is_over.set()
        assert {status for each in using for status in each.result()} == {200, 201, 503}

        assert {server.mint(token).status for token in tokens} == {200}
        assert _refresh(server, tokens[0]).status == 200
        assert server.worker_pids() == workers


def _use(server: Gunicorn, tokens: list[str], is_over: threading.Event) -> set[int]:
    """Mint and sign in until it is over; every status that was answered."""
    statuses = set()
    while not is_over.is_set():
        for token in tokens:
            statuses |= {server.mint(token).status, _session(server).status}
    return statuses


def _caught_up(primary: PostgresCluster, standby: PostgresCluster) -> None:
    ((written,),) = primary.execute("SELECT pg_current_wal_lsn()::text")
    wait_until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)])


def test_a_role_that_may_not_write_is_told(postgres_cluster: PostgresCluster) -> None:
    """readyz says 503 and `read-only` without writing; nobody mints what could not be revoked; nothing has to be restarted."""
    postgres_cluster.start()
    with ExitStack() as stack:
        role = postgres_cluster.create_role()
        database = postgres_cluster.create_database(owner=role.name)
        stack.callback(postgres_cluster.drop_database, database)
        with closing(open_url(role.url(database))) as store:
            store.migrate()
            token = LocalSessions(store, lifetime_s=600).create(SignIn("u"), now=int(time.time())).token
        postgres_cluster.execute(f"ALTER ROLE {role.name} SET default_transaction_read_only = on")
        server = stack.enter_context(Gunicorn(DATABASE_URL=role.url(database), **SETTINGS))
        ready = server.call("GET", "/readyz")
        assert (ready.status, ready.json()["database"], ready.json()["schema"]) == (503, "read-only", "ok")
        assert server.mint(token).status == 503
        me = server.call("GET", "/api/auth/me", headers={"Authorization": f"Bearer {token}"})
        assert me.status == 200  # what only reads still works
        refused = _session(server)
        assert (refused.status, refused.json()["error"]["code"]) == (503, "STORE_UNAVAILABLE")
        told = [line for line in server.log_lines() if line["event"] == "configuration"]
        assert any("accepts no writes now" in line["detail"] for line in told)

        postgres_cluster.execute(f"ALTER ROLE {role.name} RESET default_transaction_read_only")
        postgres_cluster.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role.name}'"
        )
        wait_until(lambda: server.call("GET", "/readyz").status == 200)
        assert _session(server).status == 201
