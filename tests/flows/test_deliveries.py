"""Logout tokens of real servers: at once, by a process of its own, and whatever is killed in between.

`PYLON_TESTS_KILL_S=600` kills workers under logouts for ten minutes instead of 5 s.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Final

import psutil
import pytest

from service.records.sessions import SignIn
from service.records.visits import visit
from service.sessions import LocalSessions, NewSession
from service.storage.interface import Kind
from service.storage.sql import SqlStore
from tests.flows.provider_setup import fresh_database
from tests.storage.stores import open_url
from tests.support.gunicorn import ADMIN, PROJECT, Gunicorn, on, rsa_pem
from tests.support.pace import in_time
from tests.support.told import Listener, wait_for

ISSUER: Final = "https://id.example.com"
CASES: Final = ("sqlite on gunicorn", "postgres on granian")
#: How long workers are killed, in s.
KILL_S: Final = float(os.environ.get("PYLON_TESTS_KILL_S", "5"))
#: What a worker has taken is free again after 15 s; others look every 5 s or so.
LATEST_S: Final = 15 + 6 + 60


def _environment(url: str, *listeners: Listener, **more: str) -> dict[str, str]:
    clients = [
        {
            "client_id": f"told-{number}",
            "client_secret": secrets.token_hex(32),
            "redirect_uris": ["https://rp.example.org/callback"],
            "backchannel_logout_uri": listener.uri,
        }
        for number, listener in enumerate(listeners)
    ]
    return {
        "PYLON_OIDC_ISSUER": ISSUER,
        "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
        "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
        "PYLON_OIDC_CLIENTS": json.dumps(clients),
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_OUTBOUND_ALLOW": "127.0.0.1",
        "DATABASE_URL": url,
    } | more


def _signed_in(store: SqlStore, user: str, clients: int) -> NewSession:
    """A session that has signed its user in to so many clients."""
    now = int(time.time())
    new = LocalSessions(store, lifetime_s=86_400).create(SignIn(user), now=now)
    for number in range(clients):
        store.put(visit(user, new.session.sid, f"told-{number}", ISSUER, at=now), now=now)
    return new


def _sign_out(server: Gunicorn, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return server.call("DELETE", "/api/auth/session", host="id.example.com", headers=headers).status


def _lock_out(server: Gunicorn, user: str) -> int:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    path = f"/api/auth/users/{user}/sessions"
    return server.call("DELETE", path, host="id.example.com", headers=headers).status


@pytest.mark.parametrize("case", CASES)
def test_everybody_is_told_at_once(request: pytest.FixtureRequest, case: str) -> None:
    """Within 2 s of the app's DELETE and of a lock-out; also when another service is down and one answers nobody.

    The master of the server has no thread for it, and a request does not wait.
    """
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(request, case))
        quick, other, slow, down = (stack.enter_context(Listener()) for _ in range(4))
        slow.slow_s = 4.0
        down.stop()
        environment = _environment(url, quick, other, slow, down)
        server = stack.enter_context(Gunicorn(WEB_CONCURRENCY="2", **on(case), **environment))
        store = stack.enter_context(closing(open_url(url)))
        if server.kind == "gunicorn":
            assert psutil.Process(server.pid).num_threads() == 1
        for number, end in enumerate((_sign_out, _lock_out)):
            new = _signed_in(store, f"user-{number}", 4)
            began = time.time()
            assert end(server, new.token if end is _sign_out else f"user-{number}") == 200
            assert in_time(time.time() - began, 1.0)
            for listener in (quick, other, slow):
                told = listener.wait(number + 1)[-1]
                assert in_time(told.at - began, 2.0)
                assert told.claims["sid"] == new.session.sid
        down.start()
        told = down.wait(2, within_s=20)
        assert len({each.claims["sid"] for each in told}) == 2
        assert wait_for(lambda: store.list(Kind.DELIVERY, now=int(time.time())) == [], 10)
        assert all(len(each.told) == 2 for each in (quick, other, down))


@contextlib.contextmanager
def _watching(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`pylon-oidc deliveries watch`."""
    command = [sys.executable, "-m", "service", "deliveries", "watch"]
    process = subprocess.Popen(command, env=environment, cwd=PROJECT)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("case", CASES)
def test_a_process_of_its_own_sends_what_workers_leave_to_it(
    request: pytest.FixtureRequest, case: str
) -> None:
    """With PYLON_DELIVERIES=watch no worker sends, and the other process does, within 2 s; it stops by a SIGTERM."""
    with fresh_database(request, case) as url, Listener() as listener, closing(open_url(url)) as store:
        environment = _environment(url, listener, PYLON_DELIVERIES="watch")
        with Gunicorn(WEB_CONCURRENCY="1", **on(case), **environment) as server:
            assert _sign_out(server, _signed_in(store, "early", 1).token) == 200
            assert not wait_for(lambda: bool(listener.told), within_s=1.0)
            with _watching(server.environment) as watching:
                listener.wait(1)
                assert wait_for(lambda: store.list(Kind.DELIVERY, now=int(time.time())) == [])
                began = time.time()
                assert _sign_out(server, _signed_in(store, "late", 1).token) == 200
                assert in_time(listener.wait(2)[-1].at - began, 2.0)
                watching.send_signal(signal.SIGTERM)
                assert watching.wait(60) == 0


class _Leaving:
    """Users who sign out, one after the other, until they are stopped; each tries until it has an answer."""

    def __init__(self, server: Gunicorn, url: str, name: str, clients: int) -> None:
        self._server, self._url, self._name, self._clients = server, url, name, clients
        self._stop = threading.Event()
        self.ended: list[str] = []
        self.kept: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The one under way is the last."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with closing(open_url(self._url)) as store:
            number = 0
            while not self._stop.is_set():
                number += 1
                new = _signed_in(store, f"{self._name}-{number}", self._clients)
                if number % 5 == 0:
                    self.kept.append(new.session.sid)
                    continue
                while not self._is_out(new.token):
                    time.sleep(0.05)
                self.ended.append(new.session.sid)
                time.sleep(0.05)

    def _is_out(self, token: str) -> bool:
        try:
            return _sign_out(self._server, token) == 200
        except (OSError, http.client.HTTPException):
            return False


def _kill_workers(server: Gunicorn, for_s: float) -> int:
    """Kill a worker now and then, for so long; how many."""
    chance, end, killed = random.Random(20_261_129), time.monotonic() + for_s, 0
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.3, 2.5))
        workers = server.worker_pids()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
    return killed


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_lost_under_kills(request: pytest.FixtureRequest, case: str) -> None:
    """Workers are killed at random under logouts: every token arrives, doubled at most under its own `jti`; none for a
    session that lives.
    """
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(request, case))
        listeners = [stack.enter_context(Listener()) for _ in range(2)]
        listeners[1].slow_s = 0.3
        environment = _environment(url, *listeners)
        server = stack.enter_context(Gunicorn(WEB_CONCURRENCY="3", **on(case), **environment))
        leaving = [_Leaving(server, url, name, len(listeners)) for name in ("ada", "ben")]
        killed = _kill_workers(server, KILL_S)
        for each in leaving:
            each.stop()
        store = stack.enter_context(closing(open_url(url)))
        assert wait_for(lambda: store.list(Kind.DELIVERY, now=int(time.time())) == [], LATEST_S)
        ended = {sid for each in leaving for sid in each.ended}
        for listener in listeners:
            ids: Mapping[str, set[str]] = defaultdict(set)
            for told in listener.told:
                ids[told.claims["sid"]].add(told.claims["jti"])
            assert set(ids) == ended
            assert all(len(each) == 1 for each in ids.values())
        doubled = sum(len(listener.told) for listener in listeners) - len(listeners) * len(ended)
        print(f"{case}: {killed} kills, {len(ended)} sessions, {doubled} tokens came again")
        assert killed > KILL_S / 4
        assert len(ended) > KILL_S / 2
        assert all(each.kept for each in leaving)
