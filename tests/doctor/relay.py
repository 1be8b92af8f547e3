"""Something slow between a proxy and an application: bytes go through as they are, a while after they came."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Self


class Relay:
    """Hands connections on to a loopback port.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, to_port: int, delay_s: float) -> None:
        """Start to listen.

        Args:
            to_port: Where to.
            delay_s: How long what is asked waits.
        """
        self._ended = threading.Event()
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    relay._hand_on(self.request, to_port, delay_s)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _hand_on(self, near: socket.socket, to_port: int, delay_s: float) -> None:
        with socket.create_connection(("127.0.0.1", to_port), 10) as far:
            begins = threading.Event()
            begins.set()
            back = threading.Thread(target=_pump, args=(far, near, begins.set), daemon=True)
            back.start()
            while data := near.recv(65536):
                # Once a request, however many parts it has: the next one begins after an answer.
                if begins.is_set():
                    begins.clear()
                    self._ended.wait(delay_s)
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
            back.join(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


def _pump(source: socket.socket, to: socket.socket, seen: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            seen()
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
