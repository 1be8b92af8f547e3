"""Connections that cost a client nothing and are meant to cost the server all that it has."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

#: What a connection sends at once, and what it then sends byte by byte, one a second.
KINDS = {
    "says nothing": (b"", b""),
    "a byte of the head a second": (
        b"",
        b"GET /oidc/jwks HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 999,
    ),
    "stops within the body": (
        b"POST /oidc/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 999\r\n\r\ng",
        b"",
    ),
    "a byte of the body a second": (
        b"POST /oidc/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 999\r\n\r\ng",
        b"x" * 998,
    ),
    "a byte of a chunk a second": (
        b"POST /oidc/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
        b"x" * 1000,
    ),
    "idle after an answer": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
}


@dataclass
class _Wire:
    """One connection, and when it sends its next byte."""

    socket: socket.socket
    drip: bytes
    next_at: float
    began: float = field(default_factory=time.monotonic)
    answered: bytes = b""


class Dawdlers:
    """Many slow connections, each of which is opened again as soon as the server ends it.

    Args:
        connect: Begins a connection; may fail.
        kinds: Keys of `KINDS`; the connections are spread over them.
        number: How many at a time.
        host: What they send as `Host`.
    """

    def __init__(
        self, connect: Callable[[], socket.socket], kinds: list[str], number: int, *, host: str = "localhost"
    ) -> None:
        self._connect = connect
        self._host = host.encode()
        self._kinds = [kinds[index % len(kinds)] for index in range(number)]
        self._wires: dict[int, _Wire] = {}
        self._selector = selectors.DefaultSelector()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        #: How long each connection that the server ended had lasted, in s, and what it had been answered, by kind.
        self.ended: dict[str, list[tuple[float, bytes]]] = {kind: [] for kind in kinds}
        self.open = 0

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Dawdlers]:
        """Let them dawdle until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join(10)
            for wire in self._wires.values():
                wire.socket.close()
            self._selector.close()

    def _run(self) -> None:
        while not self._over.is_set():
            now = time.monotonic()
            for index, kind in enumerate(self._kinds):
                wire = self._wires.get(index)
                if wire is None:
                    self._begin(index, kind, now)
                elif wire.drip and now >= wire.next_at:
                    wire.next_at = now + 1
                    with contextlib.suppress(OSError):  # that it was ended is seen by reading
                        wire.socket.send(wire.drip[:1])
                        wire.drip = wire.drip[1:]
            for key, _ in self._selector.select(0.05):
                self._read(key.data)
            self.open = len(self._wires)

    def _begin(self, index: int, kind: str, now: float) -> None:
        at_once, drip = KINDS[kind]
        try:
            wire = _Wire(self._connect(), drip.replace(b"localhost", self._host), now + index % 100 / 100)
            if at_once:
                wire.socket.sendall(at_once.replace(b"localhost", self._host))
        except OSError:
            return
        wire.socket.setblocking(False)
        self._selector.register(wire.socket, selectors.EVENT_READ, index)
        self._wires[index] = wire

    def _read(self, index: int) -> None:
        wire = self._wires[index]
        try:
            data = wire.socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        wire.answered += data
        if not data:
            self.ended[self._kinds[index]].append((time.monotonic() - wire.began, wire.answered))
            self._selector.unregister(wire.socket)
            wire.socket.close()
            del self._wires[index]
