"""On a platform that gives a port, nobody buffers for us: slow clients must not stop the service."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

import pytest

from tests.flows.dawdling import KINDS, Dawdlers
from tests.flows.polling import wait_until
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn
from tests.support.pace import in_time

SETTINGS = {"PORT": "4321", "PYLON_JWT_SECRET": SECRET, "PYLON_ADMIN_TOKEN": ADMIN}
SLOW = 1000
PATIENCE_S = 2.0
#: Longer than every deadline of a request, so that connections end and new ones begin meanwhile.
WATCHED_S = 13.0


def _connect(server: Gunicorn) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 5)


def _is_answered(server: Gunicorn, token: str) -> bool:
    """Whether a client gets its token within two seconds."""
    began = time.monotonic()
    try:
        answer = server.call("POST", "/api/auth/jwt", headers={"Authorization": f"Bearer {token}"})
    except (OSError, http.client.HTTPException):
        return False
    return answer.status == 200 and in_time(time.monotonic() - began, PATIENCE_S)


@pytest.mark.usefixtures("each_server")
def test_slow_clients_do_not_stop_the_service() -> None:
    """With `$PORT`: with 1,000 slow connections of every kind open, renewed as they end, honest requests are answered."""
    with Gunicorn(**SETTINGS) as server:
        token = server.sign_in()
        with Dawdlers(lambda: _connect(server), list(KINDS), SLOW).at_work() as slow:
            wait_until(lambda: slow.open > 0.9 * SLOW)
            end = time.monotonic() + WATCHED_S
            asked = answered = 0
            while time.monotonic() < end:
                asked += 1
                answered += _is_answered(server, token)
                time.sleep(0.1)
            wait_until(lambda: slow.open > 0.9 * SLOW and any(slow.ended.values()))
        assert asked > 2
        assert answered >= 0.95 * asked


def _kept(server: Gunicorn) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5))


@pytest.mark.usefixtures("each_server")
def test_requests_are_answered_over_one_kept_connection() -> None:
    """With `$PORT`, a router's connection is kept for its next request (RFC 9112 §9.3)."""
    with Gunicorn(PORT="4321") as server, _kept(server) as router:
        router.connect()
        socket_of_router = router.sock
        for _ in range(3):
            router.request("GET", "/healthz")
            assert router.getresponse().read() == b"ok"
            assert router.sock is socket_of_router


@pytest.mark.usefixtures("each_server")
def test_a_stop_waits_for_no_idle_connection() -> None:
    """SIGTERM with `$PORT`: an idle kept connection does not hold the end up, and the exit code is 0."""
    with Gunicorn(PORT="4321") as server, _kept(server) as router:
        router.request("GET", "/healthz")
        assert router.getresponse().read() == b"ok"
        began = time.monotonic()
        assert server.stop() == 0
        assert in_time(time.monotonic() - began, 20)
