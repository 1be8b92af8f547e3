"""Clients that dawdle: what they do to a server, as a client in a hurry sees it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import servers

CLIENTS = 20
WINDOW_S = 8.0
_PATIENCE_S = 2.0
_STEP_S = 1.0

#: What a dawdler sends at once, and what it then sends byte by byte, one a second.
KINDS: dict[str, tuple[str, str]] = {
    "says nothing": ("", ""),
    "a header byte a second": ("", f"GET {servers.DISCOVERY} HTTP/1.1\r\nHost: HOST\r\nX-Slow: {'x' * 99}"),
    "a body byte a second": (
        f"POST {servers.MINT} HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer TOKEN\r\n"
        "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n",
        "{" + " " * 98,
    ),
    "is answered, does not close": (
        f"GET {servers.DISCOVERY} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n",
        "",
    ),
}

Connect = Callable[[], socket.socket]


@dataclass(frozen=True)
class Seen:
    """What the client in a hurry saw: how many of its requests were answered within 2 s, and how fast."""

    asked: int
    answered: int
    median_ms: float | None
    slowest_ms: float | None


def watch(connect: Connect, kind: str, *, host: str, tokens: Path) -> Seen:
    """Let 20 clients dawdle at a server, and ask it for discovery meanwhile, one request after the other.

    Args:
        connect: Opens a connection to the server.
        kind: A key of `KINDS`.
        host: The `Host` header.
        tokens: A file of session tokens.
    """
    token = tokens.read_text().split("\n", 1)[0]
    at_once, drip = (text.replace("HOST", host).replace("TOKEN", token).encode() for text in KINDS[kind])
    times: list[float] = []
    asked = 0
    with _dawdlers(connect, at_once, drip):
        time.sleep(0.5)
        end = time.monotonic() + WINDOW_S
        while time.monotonic() < end:
            asked += 1
            start = time.monotonic()
            if _answers(connect, host):
                times.append((time.monotonic() - start) * 1000)
            time.sleep(0.1)
    return Seen(asked, len(times), statistics.median(times) if times else None, max(times) if times else None)


@contextlib.contextmanager
def _dawdlers(connect: Connect, at_once: bytes, drip: bytes) -> Iterator[None]:
    wires = [connect() for _ in range(CLIENTS)]
    over = threading.Event()

    def send() -> None:
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.sendall(at_once)
        for byte in drip:
            if over.is_set():
                return
            for wire in wires:
                with contextlib.suppress(OSError):
                    wire.send(bytes([byte]))
            over.wait(_STEP_S)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
        for wire in wires:
            wire.close()


def _answers(connect: Connect, host: str) -> bool:
    request = f"GET {servers.DISCOVERY} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    try:
        with connect() as wire:
            wire.settimeout(_PATIENCE_S)
            wire.sendall(request)
            return wire.recv(15).startswith(b"HTTP/1.1 200")
    except (OSError, ssl.SSLError):
        return False


def to_port(port: int) -> Connect:
    """How to reach a loopback port."""
    return lambda: socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
