"""Connections of requests: to an address that was looked up once and checked, with a deadline and a size limit.

Everything ends at the deadline, whatever the other side does: the look-up of the name, connecting, TLS, and each
read and write.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import httpcore

from service.outbound.addresses import Address, Allowed, Refused, check_address, parse_address

#: A name may have many addresses. All are checked; this many are tried.
_MOST_TRIED: Final = 4
#: The system has no time limit for looking up a name, so a look-up may continue after its request. No more threads than this
#: wait for it: for URLs of the operator's clients, and for those of strangers, whose name servers may be slow on purpose.
_LOOKING_UP: Final = {True: threading.BoundedSemaphore(16), False: threading.BoundedSemaphore(16)}

LookUp = Callable[[str, int], list[str]]


class Failed(Exception):
    """A request without an answer. The message is a constant."""


def system_addresses(name: str, port: int) -> list[str]:
    """The addresses of a name, in the system's order.

    Raises:
        OSError: if it has none.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass
class Budget:
    """What a request may still use.

    Attributes:
        end: monotonic s.
        bytes_left: how many bytes it may still read.
    """

    end: float
    bytes_left: int

    def left_s(self) -> float:
        """The remaining time in s.

        Raises:
            Failed: if it is over.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise Failed("timeout")
        return left


@dataclass
class Wire(httpcore.NetworkBackend):
    """Connects for one request.

    Attributes:
        budget: the limits of the request.
        look_up: returns the addresses of a name.
        allowed: what the operator allows; None: any address (for the operator's proxy).
        operators: whether the URL is not a stranger's.
    """

    budget: Budget
    look_up: LookUp
    allowed: Allowed | None
    operators: bool

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Look up the name, check every address, and connect to one of them.

        Raises:
            Failed: if none answers in time.
            Refused: if one of them is not allowed.
        """
        found = self._addresses(host, port)
        if self.allowed is not None:
            for each in found:
                check_address(each, host, self.allowed)
        tried = found[:_MOST_TRIED]
        for number, address in enumerate(tried):
            share_s = self.budget.left_s() / (len(tried) - number)
            if (connected := _connected(address, port, share_s)) is not None:
                return _Stream(connected, self.budget)
        self.budget.left_s()
        raise Failed("no_connection")

    def _addresses(self, host: str, port: int) -> list[Address]:
        """Look the name up with the system in a separate thread, because it may never answer."""
        try:
            return [parse_address(host)]
        except Refused:
            pass
        found: list[list[str] | None] = []
        free = _LOOKING_UP[self.operators]

        def look_up() -> None:
            try:
                found.append(self.look_up(host, port))
            except (OSError, ValueError):
                found.append(None)
            finally:
                free.release()

        if not free.acquire(timeout=self.budget.left_s()):
            raise Failed("name_server_slow")
        asking = threading.Thread(target=look_up, name="outbound-look-up", daemon=True)
        try:
            asking.start()
        except RuntimeError:
            free.release()
            raise Failed("name_server_slow") from None
        asking.join(self.budget.left_s())
        if not found:
            raise Failed("name_server_slow")
        if not found[0]:
            raise Failed("name_unknown")
        return list(map(parse_address, found[0]))


def _connected(address: Address, port: int, seconds: float) -> socket.socket | None:
    wire = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    try:
        wire.settimeout(seconds)
        wire.connect((str(address), port))
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        wire.close()
        return None
    return wire


@dataclass
class _Stream(httpcore.NetworkStream):
    """One connection, within the limits of its request; the caller's timeouts have no effect."""

    _wire: socket.socket
    _budget: Budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has arrived.

        Raises:
            Failed: if the time is over, or more arrived than the request may read.
        """
        if self._budget.bytes_left <= 0:
            raise Failed("too_large")
        try:
            self._wire.settimeout(self._budget.left_s())
            data = self._wire.recv(min(max_bytes, self._budget.bytes_left))
        except TimeoutError:
            raise Failed("timeout") from None
        except OSError:
            raise Failed("connection_broken") from None
        self._budget.bytes_left -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write everything."""
        rest = memoryview(buffer)
        try:
            while rest:
                self._wire.settimeout(self._budget.left_s())
                rest = rest[self._wire.send(rest) :]
        except TimeoutError:
            raise Failed("timeout") from None
        except OSError:
            raise Failed("connection_broken") from None

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Start TLS. The socket's timeout limits the whole handshake."""
        try:
            self._wire.settimeout(self._budget.left_s())
            return _Stream(ssl_context.wrap_socket(self._wire, server_hostname=server_hostname), self._budget)
        except ssl.SSLCertVerificationError:
            self.close()
            raise Failed("certificate_refused") from None
        except TimeoutError:
            self.close()
            raise Failed("timeout") from None
        except (OSError, ValueError):
            self.close()
            raise Failed("tls_failed") from None

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    def get_extra_info(self, info: str) -> typing.Any:
        """Information that httpcore requests about the connection."""
        return self._wire if info == "ssl_object" and isinstance(self._wire, ssl.SSLSocket) else None
