"""One client's connection to the worker, and a request with its answer in memory."""

from __future__ import annotations

import io
import socket
from enum import Enum
from typing import Any

from service.serving.framing import Framing
from service.serving.plan import MAX_LINE_BYTES


class State(Enum):
    """What a connection waits for."""

    IDLE = "the first byte of another request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "its client to take the answer"
    LEAVE = "its client to close"


class Exchange:
    """A request and its answer in memory, as the socket that gunicorn's parser and response use.

    Args:
        request: the bytes of exactly one request.
    """

    def __init__(self, request: bytes) -> None:
        self._request = io.BytesIO(request)
        self.answer = bytearray()

    def recv(self, size: int) -> bytes:
        """The next bytes; empty at the end."""
        return self._request.read(size)

    def sendall(self, data: bytes) -> None:
        """Add to the answer."""
        self.answer += data

    def send(self, data: bytes) -> int:
        """Drop gunicorn's own 100 (Continue): the body is already here, or not needed."""
        return len(data)

    def gettimeout(self) -> float:
        """Nothing here is waited for."""
        return 0.0

    def settimeout(self, timeout: float | None) -> None:
        """Nothing here is waited for."""

    def setblocking(self, blocking: bool) -> None:
        """Nothing here is waited for."""

    def shutdown(self, how: int) -> None:
        """The connection is ended by the worker."""

    def close(self) -> None:
        """The connection is ended by the worker."""

    def is_used_up(self) -> bool:
        """Whether the parser found the end of the request in the same place as `framing`."""
        return not self._request.read(1)


class Connection:
    """One client's connection. `sock` is what gunicorn uses while a request is answered."""

    __slots__ = (
        "client", "ended", "framing", "left", "only_reads", "received", "server", "since", "sock", "socket", "state",
        "unsent", "watched", "will_last",
    )  # fmt: skip

    def __init__(self, wire: socket.socket, client: Any, server: Any) -> None:
        self.socket = wire
        self.client = client
        self.server = server
        self.received = bytearray()
        self.framing = Framing()
        self.sock: Exchange | None = None
        self.unsent = memoryview(b"")
        #: Whether its request only reads, from when it is answered.
        self.only_reads = False
        #: Whether another request may follow on this connection.
        self.will_last = True
        #: Whether the client has finished sending.
        self.ended = False
        self.state: State | None = None
        self.since = 0.0
        self.watched = 0
        self.left = 0

    def asked(self) -> tuple[str, str, bytes | None]:
        """The method and target of the request, empty if the first line is malformed; and its body, None if in chunks."""
        line = self.received[: MAX_LINE_BYTES + 2].lstrip(b"\r\n").partition(b"\r\n")[0]
        method, _, rest = bytes(line).decode("latin-1").partition(" ")
        framing = self.framing
        body = None if framing.is_chunked else bytes(self.received[framing.body_at or 0 : framing.end])
        return method, rest.partition(" ")[0], body
