"""granian's sockets share an address between workers, and never between two instances."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from service.launch.granian import listen
from service.serving.plan import Address
from tests.support.gunicorn import hold_port


def _listened(address: Address, barrier: threading.Barrier, found: list[list[socket.socket]]) -> None:
    barrier.wait(10)
    with contextlib.suppress(OSError):
        found.append(listen(address, 2))


@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("127.0.0.1", "localhost")])
def test_of_two_that_start_at_the_same_moment_one_gets_the_port(hosts: tuple[str, str]) -> None:
    """The other one fails, and the port is free again afterwards."""
    with hold_port() as holder:
        port = holder.getsockname()[1]
    for _ in range(100):
        barrier, found = threading.Barrier(2), list[list[socket.socket]]()
        threads = [
            threading.Thread(target=_listened, args=(Address(host, port), barrier, found)) for host in hosts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        for sock in (each for one in found for each in one):
            sock.close()
        assert len(found) == 1
