"""HTTP/1.1 on one socket, for the benchmark's clients; and a browser that follows a sign-in."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from bench.clients import Place

_TIMEOUT_S = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class NothingAnswered(RuntimeError):
    """Not one request was answered; the message holds the last failure."""


class Wire:
    """One connection, kept alive where the server lets it be, with one request under way.

    Attributes:
        chain: What its caller remembers of the request.
        sent_at: When it was sent, on the monotonic clock.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._kept = False
        self._got = b""
        self._request = b""
        self.chain: tuple[str, int] = ("", 0)
        self.sent_at = 0.0

    def fileno(self) -> int:
        """The socket's."""
        assert self._socket is not None
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._request, self._got = request, b""
        self.sent_at = time.monotonic()
        self._send()

    def _send(self) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), _TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._kept = False
        try:
            self._socket.sendall(self._request)
        except ConnectionError:
            if not self._kept:
                raise
            self.close()
            self._send()

    def read(self) -> tuple[int, bytes, bytes] | None:
        """Read what has come.

        Returns:
            Status, head and body; `None` while some is missing.

        Raises:
            OSError: When the connection broke.
            ValueError: When what came is no answer.
        """
        assert self._socket is not None
        try:
            part = self._socket.recv(65_536)
        except ConnectionError:
            part = b""
        if not part:
            if self._kept and not self._got:  # it was closed meanwhile: as a browser does, once more
                self.close()
                self._send()
                return None
            raise ConnectionResetError("closed within an answer")
        self._got += part
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return None
        length = _LENGTH.search(head)
        if length is not None:
            if len(body) < int(length[1]):
                return None
        elif _CHUNKED.search(head):
            if not body.endswith(b"0\r\n\r\n"):
                return None
            body = _dechunked(body)
        elif head[9:12] not in {b"204", b"304"}:
            raise ValueError(f"an answer without a length: {head[:200]!r}")
        self._kept = True
        if _CLOSE.search(head):
            self.close()
        return int(head[9:12]), head, body

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size.split(b";")[0], 16)
        whole, body = whole + body[:count], body[count + 2 :]
    return whole


def browse(place: Place, uri: str, redirect_uri: str, sign_in: Callable[[str], str]) -> tuple[str, str]:
    """Follow a sign-in as a browser does, to the client's redirect URI.

    Args:
        place: The provider.
        uri: Where to begin.
        redirect_uri: Where it ends.
        sign_in: Is given an address that is not the provider's, the app's sign-in page, and says where it sends the
            browser.

    Returns:
        The `Cookie` header that the browser ends with, and the address that it ended at.

    Raises:
        NothingAnswered: When it does not end there.
    """
    cookies = dict(pair.split("=", 1) for pair in place.cookie.split("; ") if pair)
    for _ in range(10):
        wire = http.client.HTTPConnection("127.0.0.1", place.port, timeout=_TIMEOUT_S)
        with contextlib.closing(wire):
            header = "; ".join(f"{name}={value}" for name, value in cookies.items())
            wire.request("GET", uri, headers={"Host": place.host, "Cookie": header})
            answer = wire.getresponse()
            text = answer.read()
        for line in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = line.split(";")[0].partition("=")
            cookies[name] = value
            if not value:
                del cookies[name]
        location = answer.headers["Location"]
        if location is None:
            raise NothingAnswered(f"sign-in ended with {answer.status}: {text[:300]!r}")
        if location.startswith(redirect_uri):
            return "; ".join(f"{name}={value}" for name, value in cookies.items()), location
        if urlsplit(location).netloc not in {"", place.host}:
            location = sign_in(location)
        split = urlsplit(location)
        uri = f"{split.path}?{split.query}" if split.query else split.path
    raise NothingAnswered(f"sign-in goes round in circles: {uri}")
