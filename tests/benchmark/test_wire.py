"""The benchmark's client reads whatever a server may answer: it counts for every provider alike."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bench.wire import Wire

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
NO_LENGTH = b"HTTP/1.1 200 OK\r\n\r\nhello"

Serve = Callable[[list[list[bytes]]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that answers with given bytes, in the given parts, and then closes; one list a connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(10)

        def run(connections: list[list[bytes]]) -> None:
            for parts in connections:
                wire, _ = listener.accept()
                with closing(wire):
                    for part in parts:
                        if not part.startswith(b"+"):
                            wire.recv(65_536)
                        wire.sendall(part.removeprefix(b"+"))

        def start(connections: list[list[bytes]]) -> int:
            threading.Thread(target=run, args=(connections,), daemon=True).start()
            return int(listener.getsockname()[1])

        yield start


def asked(wire: Wire) -> tuple[int, bytes]:
    """Status and body of one request."""
    wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while (answer := wire.read()) is None:
        pass
    return answer[0], answer[2]


@pytest.mark.parametrize(
    ("connections", "expected"),
    [
        ([[LENGTH, CHUNKED, EMPTY]], [(200, b"hello"), (201, b"hello"), (204, b"")]),
        ([[LENGTH[:50], b"+" + LENGTH[50:]]], [(200, b"hello")]),
        ([[CHUNKED[:60], b"+" + CHUNKED[60:]]], [(201, b"hello")]),
        ([[CLOSING], [LENGTH]], [(200, b"ok"), (200, b"hello")]),
        # Closed between two requests without a word: asked again, as a browser does.
        ([[LENGTH], [LENGTH]], [(200, b"hello"), (200, b"hello")]),
    ],
    ids=["kept alive", "in two parts", "chunks in two parts", "connection: close", "closed meanwhile"],
)
def test_answers(serve: Serve, connections: list[list[bytes]], expected: list[tuple[int, bytes]]) -> None:
    """Each answer is read to its end, and no further."""
    with Wire(serve(connections)) as wire:
        assert [asked(wire) for _ in expected] == expected


def test_broken(serve: Serve) -> None:
    """An answer that ends early, and one whose end nobody knows, are failures and not figures."""
    with Wire(serve([[LENGTH[:-2]]])) as wire, pytest.raises(ConnectionResetError):
        asked(wire)
    with Wire(serve([[NO_LENGTH]])) as wire, pytest.raises((ValueError, OSError)):
        asked(wire)
