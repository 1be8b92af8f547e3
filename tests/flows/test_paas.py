"""On a platform that gives a port, nobody buffers for us: slow clients must not stop the service."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

from tests.flows.polling import wait_until
from tests.support.gunicorn import Gunicorn

_SLOW_CLIENTS = 12


def test_slow_clients_do_not_stop_the_service() -> None:
    """With `$PORT`, clients that never finish their request leave the others served: threads wait, not workers."""
    with Gunicorn(PORT="4321") as server, contextlib.ExitStack() as stack:
        for _ in range(_SLOW_CLIENTS):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        wait_until(lambda: server.call("GET", "/healthz").status == 200, timeout_s=20)


def _kept(server: Gunicorn) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5))


def test_requests_are_answered_over_one_kept_connection() -> None:
    """With `$PORT`, a router's connection is kept for its next request (RFC 9112 §9.3)."""
    with Gunicorn(PORT="4321") as server, _kept(server) as router:
        router.connect()
        socket_of_router = router.sock
        for _ in range(3):
            router.request("GET", "/healthz")
            assert router.getresponse().read() == b"ok"
            assert router.sock is socket_of_router


def test_a_stop_waits_for_no_idle_connection() -> None:
    """SIGTERM with `$PORT`: an idle kept connection does not hold the end up, and the exit code is 0."""
    with Gunicorn(PORT="4321") as server, _kept(server) as router:
        router.request("GET", "/healthz")
        assert router.getresponse().read() == b"ok"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
