"""One HTTP/1.1 request over one connection of its own: bounded in time and size, and never followed anywhere.

The server may be hostile. An answer is at most 256 KiB and one exchange at most as long as its time; a redirect is an
answer like any other. Nothing is decompressed.

Spec: RFC 9110, RFC 9112
"""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import h11

MAX_BODY: Final = 256 * 1024
_MAX_HEAD: Final = 32 * 1024
_MAX_INTERIM: Final = 5
#: One exchange, in s; the whole run has a bound of its own.
_EXCHANGE_S: Final = 4.0
#: A name may have many addresses; these are asked.
MAX_ADDRESSES: Final = 4
_UNROUTABLE: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL}
)
_OLD_TLS_CIPHERS: Final = "ALL:@SECLEVEL=0"


class WireError(Exception):
    """No answer came.

    Args:
        kind: `dns`, `refused`, `unroutable` (from here), `timeout`, `certificate`, `old-tls`, `tls` or `protocol`.
        detail: what happened, in words; may hold what the server sent.
        code: OpenSSL's code of a certificate that did not verify, else 0.
    """

    def __init__(self, kind: str, detail: str, code: int = 0) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.code = kind, detail, code


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        status: of the answer.
        headers: name in lower case, and value, in their order.
        body: its first 256 KiB.
        truncated: whether there was more.
        received_at: Unix s, at the head of the answer.
        asked_from: our own address of the connection.
        tls: version of TLS, or None for plain http.
        alpn: the protocol that was agreed on, or None.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool
    received_at: float
    asked_from: str = ""
    tls: str | None = None
    alpn: str | None = None

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for given, value in self.headers if given == name]

    def header(self, name: str) -> str:
        """The values of a header, joined; empty without it."""
        return ", ".join(self.all(name))

    @property
    def media_type(self) -> str:
        """The type of its content, without parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()

    @property
    def location(self) -> str:
        """Where it redirects to; empty for any other answer."""
        return self.header("location") if 300 <= self.status < 400 else ""

    def json(self) -> Any:
        """The body as JSON; None when it is none, or too deep, too long or not UTF-8."""
        try:
            return None if self.truncated else json.loads(self.body.decode())
        except (ValueError, RecursionError):
            return None

    def json_object(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty when it is none."""
        value = self.json()
        return value if isinstance(value, dict) else {}

    @property
    def code(self) -> str:
        """The `code` of an error in the service's own shape; empty for any other answer."""
        error = self.json_object().get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return code if isinstance(code, str) else ""


@dataclass(frozen=True)
class Origin:
    """Whom to ask: scheme, name and port as they stand in the URL."""

    scheme: str
    name: str
    port: int

    @staticmethod
    def of(url: str) -> Origin | None:
        """The origin of a URL; None when it has none that we would ask."""
        try:
            parts = urlsplit(url)
            port = parts.port or {"https": 443, "http": 80}[parts.scheme]
        except (ValueError, KeyError):
            return None
        name = (parts.hostname or "").lower()
        return Origin(parts.scheme, name, port) if name and parts.username is None else None

    @property
    def host(self) -> str:
        """The value of `Host`: the default port left out."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port == {"https": 443, "http": 80}[self.scheme] else f"{name}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


def system_addresses(name: str, port: int) -> list[str]:
    """The addresses of a name, in the order in which the system would try them.

    Raises:
        OSError: when it has none.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Wire:
    """How connections are made.

    Attributes:
        deadline: monotonic s, after which nothing is asked or read any more.
        clock: tells the time, Unix s.
        connect_to: `name:port` -> the host and port to connect to instead; all else stays as it is.
        source: the address to ask from, or None.
        ca: a file of further certificate authorities, or None.
        look_up: gives the addresses of a name and port.
    """

    deadline: float
    clock: Callable[[], float]
    connect_to: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    source: str | None = None
    ca: str | None = None
    look_up: Callable[[str, int], list[str]] = system_addresses
    _known: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def ask(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        host: str | None = None,
        context: ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> Reply:
        """Ask once, over a connection of its own.

        Args:
            origin: whom.
            method: of the request.
            target: path and query.
            headers: beyond `Host` and the length of the body.
            body: what is sent.
            host: another `Host` than the origin's.
            context: how TLS is spoken; as a relying party does, without it.
            address: the one of the name's addresses to connect to; any that answers, without it.

        Raises:
            WireError: when no answer came in time.
        """
        end = min(self.deadline, time.monotonic() + _EXCHANGE_S)
        length = [("Content-Length", str(len(body)))] if body or method == "POST" else []
        sent = [("Host", host or origin.host), ("User-Agent", "pylon-oidc-doctor"), ("Connection", "close")]
        with self._connected(origin, end, context, address) as wire:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
            try:
                request = h11.Request(method=method, target=target, headers=[*sent, *headers, *length])
                wire.sendall(
                    connection.send(request)
                    + (connection.send(h11.Data(body)) if body else b"")
                    + connection.send(h11.EndOfMessage())
                )
                return _read(connection, wire, end, self.clock)
            except h11.LocalProtocolError:  # its words repeat what was to be sent, which may be a secret
                raise WireError("protocol", "that cannot be asked") from None
            except h11.ProtocolError as error:
                raise WireError("protocol", str(error)) from None
            except TimeoutError:
                raise WireError("timeout", "the answer did not come in time") from None
            except (OSError, ValueError) as error:
                raise WireError("protocol", f"the connection broke: {_words(error)}") from None

    def handshake(self, origin: Origin) -> Reply:
        """A TLS handshake alone, as a browser makes it; an answer of status 0 tells what was agreed on.

        Raises:
            WireError: when there is none.
        """
        end = min(self.deadline, time.monotonic() + _EXCHANGE_S)
        with self._connected(origin, end, _tls_context(self.ca, ("h2", "http/1.1"))) as wire:
            version, alpn = _agreed(wire)
            return Reply(0, (), b"", False, self.clock(), str(wire.getsockname()[0]), version, alpn)

    def addresses(self, origin: Origin) -> list[str]:
        """Where the name leads, in the order of the system; the operator's own address where he gave one.

        Raises:
            WireError: when it leads nowhere, or that is not told in time.
        """
        key = (origin.name, origin.port)
        if (elsewhere := self.connect_to.get(f"{origin.name}:{origin.port}")) is not None:
            key = elsewhere
        if key not in self._known:
            self._known[key] = self._looked_up(*key)
        return self._known[key]

    def _looked_up(self, name: str, port: int) -> list[str]:
        """Ask the system, which has no bound of its own on how long it takes."""
        found: list[list[str] | OSError] = []

        def look_up() -> None:
            try:
                found.append(self.look_up(name, port))
            except (OSError, ValueError) as error:
                found.append(error if isinstance(error, OSError) else OSError("no name"))

        asking = threading.Thread(target=look_up, daemon=True)
        asking.start()
        asking.join(min(_EXCHANGE_S, max(0.0, self.deadline - time.monotonic())))
        if not found:
            raise WireError("dns", "no answer about the name in time")
        if isinstance(found[0], OSError):
            raise WireError("dns", _words(found[0]))
        return found[0][:MAX_ADDRESSES]

    def _connected(
        self, origin: Origin, end: float, context: ssl.SSLContext | None, address: str | None = None
    ) -> socket.socket:
        addresses = self.addresses(origin) if address is None else [address]
        _, port = self.connect_to.get(f"{origin.name}:{origin.port}", (origin.name, origin.port))
        refusal = WireError("dns", "no address")
        for each in addresses:
            try:
                return self._connected_to(each, port, origin, end, context)
            except WireError as error:
                refusal = error
                if error.kind not in {"refused", "unroutable"}:
                    break
        raise refusal

    def _connected_to(
        self, address: str, port: int, origin: Origin, end: float, context: ssl.SSLContext | None
    ) -> socket.socket:
        source = None if self.source is None else (self.source, 0)
        plain = None
        try:
            plain = socket.create_connection((address, port), _left(end), source)
            if origin.scheme == "http":
                return plain
            return (context or self.tls_context()).wrap_socket(plain, server_hostname=origin.name)
        except BaseException as error:
            if plain is not None:
                plain.close()
            if isinstance(error, OSError):
                raise _wire_error(error) from None
            raise

    def tls_context(self) -> ssl.SSLContext:
        """TLS as relying parties speak it: TLS 1.2 at least, the chain and the name are checked."""
        return _tls_context(self.ca, ("http/1.1",))

    @staticmethod
    def old_tls_context() -> ssl.SSLContext:
        """TLS before 1.2, with whatever ciphers and certificates: only to tell what is spoken."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers(_OLD_TLS_CIPHERS)
        with warnings.catch_warnings():  # they are deprecated: that is what is asked about
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context


def is_loopback(address: str) -> bool:
    """Whether it is an address of this machine to itself."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=4)
def _tls_context(ca: str | None, protocols: tuple[str, ...]) -> ssl.SSLContext:
    # Reading all the authorities of a system takes longer than to ask a question.
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    context.set_alpn_protocols(list(protocols))
    return context


def _read(connection: h11.Connection, wire: socket.socket, end: float, clock: Callable[[], float]) -> Reply:
    head: h11.Response | None = None
    received_at = 0.0
    body = bytearray()
    interim = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            wire.settimeout(_left(end))
            connection.receive_data(wire.recv(65536))
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > _MAX_INTERIM:
                raise WireError("protocol", "interim answers without an end")
        elif isinstance(event, h11.Response):
            head, received_at = event, clock()
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                break
        else:
            break
        _left(end)
    if head is None:
        raise WireError("protocol", "the connection was closed without an answer")
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
    return Reply(
        head.status_code,
        headers,
        bytes(body[:MAX_BODY]),
        len(body) > MAX_BODY,
        received_at,
        str(wire.getsockname()[0]),
        *_agreed(wire),
    )


def _agreed(wire: socket.socket) -> tuple[str | None, str | None]:
    """The version of TLS and the protocol in it; nothing in the clear."""
    if isinstance(wire, ssl.SSLSocket):
        return wire.version(), wire.selected_alpn_protocol()
    return None, None


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _wire_error(error: OSError) -> WireError:
    if isinstance(error, socket.gaierror):
        return WireError("dns", _words(error))
    if isinstance(error, TimeoutError):
        return WireError("timeout", "no connection in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return WireError("certificate", error.verify_message, error.verify_code)
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        old = "UNSUPPORTED_PROTOCOL" in reason or "PROTOCOL_VERSION" in reason
        return WireError("old-tls" if old else "tls", reason.replace("_", " ").lower() or "no TLS")
    return WireError("unroutable" if error.errno in _UNROUTABLE else "refused", _words(error))


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
