"""With the database gone the public half answers, the rest says so, and all heals by itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.flows.polling import wait_until
from tests.storage.outages import Outage, migrated_database
from tests.support.gunicorn import ADMIN, SECRET, TRUSTED, Gunicorn, on
from tests.support.pace import in_time

SETTINGS = {
    "PYLON_JWT_SECRET": SECRET,
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_TRUSTED_SECRET": TRUSTED,
    "PYLON_OIDC_ISSUER": "https://id.example.com",
}
PUBLIC = (
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/oidc/jwks",
    "/healthz",
)


@pytest.fixture(scope="module", params=["sqlite", "postgres", "postgres on granian"])
def database(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], Outage], str]]:
    """The URL of a migrated database, what takes it away while its context lasts, and the case."""
    with migrated_database(request) as made:
        yield *made, request.param


@pytest.fixture(scope="module")
def server(database: tuple[str, Callable[[], Outage], str]) -> Iterator[Gunicorn]:
    """A server that has its database."""
    with Gunicorn(**on(database[2]), DATABASE_URL=database[0], **SETTINGS) as started:
        yield started


@pytest.fixture
def outage(server: Gunicorn, database: tuple[str, Callable[[], Outage], str]) -> Callable[[], Outage]:
    """Takes the server's database away while the context lasts, after each worker has got over the outage before."""
    wait_until(lambda: all(server.call("GET", "/readyz").status == 200 for _ in range(10)))
    return database[1]


def _use_both_workers(server: Gunicorn, token: str) -> None:
    """Mint often enough that each worker has a connection open."""
    for _ in range(20):
        assert server.mint(token).status == 200


def test_the_public_half_answers_without_the_database(server: Gunicorn, outage: Callable[[], Outage]) -> None:
    """JWKS and discovery are 200 with the same bytes while the database is gone; so is `healthz`."""
    before = [server.call("GET", path).body for path in PUBLIC]
    _use_both_workers(server, server.sign_in())
    with outage():
        answers = [server.call("GET", path) for path in PUBLIC * 3]
    assert [answer.status for answer in answers] == [200] * len(answers)
    assert [answer.body for answer in answers] == before * 3


def test_what_needs_the_database_says_so(server: Gunicorn, outage: Callable[[], Outage]) -> None:
    """A mint, a sign-in and everything else about sessions is 503 `STORE_UNAVAILABLE` with `Retry-After`."""
    token = server.sign_in()
    _use_both_workers(server, token)
    session, admin = ({"Authorization": f"Bearer {value}"} for value in (token, ADMIN))
    body = {"user_id": "u"}
    with outage():
        answers = [
            server.mint(token),
            server.call("GET", "/api/auth/me", headers=session),
            server.call("POST", "/api/auth/refresh", headers=session),
            server.call("GET", "/api/auth/sessions", headers=session),
            server.call("DELETE", "/api/auth/session", headers=session),
            server.call("POST", "/api/auth/session", headers=admin, body=body),
            server.call("DELETE", "/api/auth/users/u/sessions", headers=admin),
            server.trusted_mint(body),
        ]
    for answer in answers:
        assert answer.status == 503
        assert answer.json()["error"]["code"] == "STORE_UNAVAILABLE"
        assert int(answer.headers["retry-after"]) > 0


def test_a_server_without_its_database_is_not_ready(server: Gunicorn, outage: Callable[[], Outage]) -> None:
    """`readyz` is 503 and names the database while it is gone, and 200 as soon as it is back."""
    assert server.call("GET", "/readyz").status == 200
    with outage():
        answer = server.call("GET", "/readyz")
        assert (answer.status, answer.json()["database"]) == (503, "unavailable")
    wait_until(lambda: server.call("GET", "/readyz").status == 200)


def test_all_heals_by_itself(server: Gunicorn, outage: Callable[[], Outage]) -> None:
    """When the database is back every worker works again, in the same processes, with the same sessions."""
    token, workers = server.sign_in(), server.worker_pids()
    _use_both_workers(server, token)
    with outage():
        for _ in range(10):
            assert server.mint(token).status == 503
    wait_until(lambda: server.mint(token).status == 200)
    _use_both_workers(server, token)
    assert server.mint(server.sign_in("after")).status == 200
    assert server.worker_pids() == workers


def test_a_refused_proof_is_not_spent_by_an_outage(server: Gunicorn, outage: Callable[[], Outage]) -> None:
    """A trusted mint that was answered 503 may be sent again, byte for byte, when the database is back."""
    stamp = int(time.time())
    wait_until(lambda: server.call("GET", "/readyz").status == 200)
    with outage():
        assert server.trusted_mint({"user_id": "u"}, timestamp=stamp).status == 503
    wait_until(lambda: server.call("GET", "/readyz").status == 200)
    assert server.trusted_mint({"user_id": "u"}, timestamp=stamp).status == 201
    assert server.trusted_mint({"user_id": "u"}, timestamp=stamp).json()["error"]["code"] == "REPLAYED"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


def test_a_database_that_never_answers_stops_nothing_for_long(
    gunicorn: Callable[..., Gunicorn], silent_port: int
) -> None:
    """While mints wait for a PostgreSQL that accepts and is silent, discovery takes a few seconds at the most."""
    server = gunicorn(DATABASE_URL=f"postgresql://u:p@127.0.0.1:{silent_port}/d", **SETTINGS)
    token, stop = "pylon_" + "0" * 64, threading.Event()
    statuses: list[int] = []

    def mint() -> None:
        while not stop.is_set():
            statuses.append(server.mint(token).status)

    minting = [threading.Thread(target=mint) for _ in range(4)]
    for thread in minting:
        thread.start()
    longest, end = 0.0, time.monotonic() + 7
    while time.monotonic() < end:
        begun = time.monotonic()
        assert server.call("GET", PUBLIC[0]).status == 200
        longest = max(longest, time.monotonic() - begun)
        stop.wait(0.05)
    stop.set()
    for thread in minting:
        thread.join()
    assert set(statuses) == {503}
    assert in_time(longest, 6)
