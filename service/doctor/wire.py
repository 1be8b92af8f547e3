"""One HTTP/1.1 request over a new connection: limited in time and size, without following redirects.

The server may be hostile. An answer has at most 256 KiB, and one exchange has a time limit; a redirect is an
answer like any other. Nothing is decompressed.

Spec: RFC 9110, RFC 9112
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import h11

from service.doctor.reply import Certificate, Origin, Place, Reply, WireError

MAX_BODY: Final = 256 * 1024
_MAX_HEAD: Final = 32 * 1024
_MAX_INTERIM: Final = 5
#: The limit of one exchange, in s; the whole run has its own limit.
_EXCHANGE_S: Final = 4.0
#: A name may have many addresses; this many are used.
MAX_ADDRESSES: Final = 4
_UNROUTABLE: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL}
)
_OLD_TLS_CIPHERS: Final = "ALL:@SECLEVEL=0"


def system_addresses(name: str, port: int) -> list[str]:
    """The addresses of a name, in the order in which the system would try them.

    Raises:
        OSError: if it has none.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Wire:
    """How connections are made.

    Attributes:
        deadline: monotonic s, after which nothing is sent or read any more.
        clock: returns the time, Unix s.
        connect_to: `name:port` -> hosts and ports to connect to instead; all else stays the same.
        source: the local address to send from, or None.
        ca: a file with more certificate authorities, or None.
        look_up: returns the addresses of a name and port.
    """

    deadline: float
    clock: Callable[[], float]
    connect_to: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    source: str | None = None
    ca: str | None = None
    look_up: Callable[[str, int], list[str]] = system_addresses
    _known: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    _pinned: dict[Origin, Place] = field(default_factory=dict)

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
        place: Place | None = None,
    ) -> Reply:
        """Send one request, over a new connection.

        Args:
            origin: the server.
            method: the method.
            target: path and query.
            headers: in addition to `Host` and the length of the body.
            body: the body.
            host: a `Host` that differs from the origin's.
            context: the settings of TLS; by default those of a relying party.
            place: where to connect to; by default any address of the name that answers.

        Raises:
            WireError: if there was no answer in time.
        """
        began = time.monotonic()
        end = min(self.deadline, began + _EXCHANGE_S)
        length = [("Content-Length", str(len(body)))] if body or method == "POST" else []
        sent = [("Host", host or origin.host), ("Connection", "close")]
        if not any(name == "User-Agent" for name, _ in headers):
            sent.append(("User-Agent", "pylon-oidc-doctor"))
        with self._connected(origin, end, context, place) as wire:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
            try:
                request = h11.Request(method=method, target=target, headers=[*sent, *headers, *length])
                wire.sendall(
                    connection.send(request)
                    + (connection.send(h11.Data(body)) if body else b"")
                    + connection.send(h11.EndOfMessage())
                )
                return _read(connection, wire, end, self.clock, began)
            except (h11.ProtocolError, OSError, ValueError) as error:
                raise _broken(error) from None

    def handshake(self, origin: Origin) -> Reply:
        """Only a TLS handshake, as a browser makes it, with any certificate.

        Returns:
            An answer of status 0, with what was negotiated, and the certificate.

        Raises:
            WireError: if there is none.
        """
        end = min(self.deadline, time.monotonic() + _EXCHANGE_S)
        with self._connected(origin, end, _looking_context()) as wire:
            version, alpn = _agreed(wire)
            der = wire.getpeercert(binary_form=True) if isinstance(wire, ssl.SSLSocket) else None
            read = Certificate.read(der)
            return Reply(0, (), b"", False, self.clock(), _own(wire), version, alpn, certificate=read)

    def places(self, origin: Origin) -> list[Place]:
        """Where the name leads, in the order of the system; the operator's own addresses if they gave some.

        Raises:
            WireError: if it leads nowhere, or there is no answer in time.
        """
        if (pinned := self._pinned.get(origin)) is not None:
            return [pinned]
        found: list[Place] = []
        for key in self.connect_to.get(f"{origin.name}:{origin.port}") or [(origin.name, origin.port)]:
            if key not in self._known:
                self._known[key] = self._looked_up(*key)
            found += [Place(address, key[1]) for address in self._known[key]]
        return found[:MAX_ADDRESSES]

    def pin(self, origin: Origin, place: Place) -> None:
        """From now on connect only there, of all the addresses of the name."""
        self._pinned[origin] = place

    def _looked_up(self, name: str, port: int) -> list[str]:
        """Look the name up with the system, which itself has no time limit."""
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
        return found[0]

    def _connected(
        self, origin: Origin, end: float, context: ssl.SSLContext | None, place: Place | None = None
    ) -> socket.socket:
        refusal = WireError("dns", "no address")
        for each in self.places(origin) if place is None else [place]:
            try:
                return self._connected_to(each, origin, end, context)
            except WireError as error:
                refusal = error
                if error.kind not in {"refused", "unroutable"}:
                    break
        raise refusal

    def _connected_to(
        self, place: Place, origin: Origin, end: float, context: ssl.SSLContext | None
    ) -> socket.socket:
        plain = None
        try:
            plain = self._plain(place, _left(end))
            if origin.scheme == "http":
                return plain
            return (context or self.tls_context()).wrap_socket(plain, server_hostname=origin.name)
        except BaseException as error:
            if plain is not None:
                plain.close()
            if isinstance(error, OSError):
                raise _wire_error(error) from None
            raise

    def _plain(self, place: Place, left_s: float) -> socket.socket:
        if not place.address.startswith("/"):
            source = None if self.source is None else (self.source, 0)
            return socket.create_connection((place.address, place.port), left_s, source)
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(left_s)
        try:
            plain.connect(place.address)
        except BaseException:
            plain.close()
            raise
        return plain

    def tls_context(self) -> ssl.SSLContext:
        """TLS as relying parties use it: at least TLS 1.2, with the chain and the name verified."""
        return _tls_context(self.ca, ("http/1.1",))

    @staticmethod
    def old_tls_context() -> ssl.SSLContext:
        """TLS before 1.2, with any ciphers and certificates: only to see what the server accepts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers(_OLD_TLS_CIPHERS)
        with warnings.catch_warnings():  # they are deprecated, which is the point of this check
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context


def is_loopback(address: str) -> bool:
    """Whether it is a loopback address."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=4)
def _tls_context(ca: str | None, protocols: tuple[str, ...]) -> ssl.SSLContext:
    # Reading all authorities of a system takes longer than a request.
    context = ssl.create_default_context()
    # Python's own default depends on how it was built: Debian's also speaks older versions.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # RFC 9525 §6.3: the name is in subjectAltName; most clients check nothing else.
    context.hostname_checks_common_name = False
    if ca is not None:
        context.load_verify_locations(ca)
    context.set_alpn_protocols(list(protocols))
    return context


@lru_cache(maxsize=1)
def _looking_context() -> ssl.SSLContext:
    """TLS that accepts any certificate: to look at it, and to send nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _own(wire: socket.socket) -> str:
    """Our own address on a connection; empty for a Unix socket."""
    name = wire.getsockname()
    return str(name[0]) if isinstance(name, tuple) else ""


def _read(
    connection: h11.Connection, wire: socket.socket, end: float, clock: Callable[[], float], began: float
) -> Reply:
    head: h11.Response | None = None
    received_at = took_s = 0.0
    is_answered = False
    body = bytearray()
    interim = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            wire.settimeout(_left(end))
            data = wire.recv(65536)
            if not data and not is_answered:
                raise WireError("closed", "the connection was closed without an answer")
            is_answered = True
            connection.receive_data(data)
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > _MAX_INTERIM:
                raise WireError("protocol", "interim answers without an end")
        elif isinstance(event, h11.Response):
            head, received_at, took_s = event, clock(), time.monotonic() - began
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
        _own(wire),
        *_agreed(wire),
        took_s,
    )


def _agreed(wire: socket.socket) -> tuple[str | None, str | None]:
    """The version of TLS and its protocol; nothing for plain http."""
    if isinstance(wire, ssl.SSLSocket):
        return wire.version(), wire.selected_alpn_protocol()
    return None, None


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _broken(error: Exception) -> WireError:
    """How an established connection ended."""
    if isinstance(error, h11.LocalProtocolError):
        # Its words repeat what was to be sent, which may be a secret.
        return WireError("protocol", "that cannot be asked")
    if isinstance(error, h11.ProtocolError):
        return WireError("protocol", str(error))
    if isinstance(error, TimeoutError):
        return WireError("timeout", "the answer did not come in time")
    if isinstance(error, OSError) and _wants_certificate(error):
        return WireError("client-certificate", "a certificate of the client is asked for")
    return WireError("protocol", f"the connection broke: {_words(error)}")


def _wants_certificate(error: OSError) -> bool:
    return isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (error.reason or "")


def _wire_error(error: OSError) -> WireError:
    if isinstance(error, socket.gaierror):
        return WireError("dns", _words(error))
    if isinstance(error, TimeoutError):
        return WireError("timeout", "no connection in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return WireError("certificate", error.verify_message, error.verify_code)
    if _wants_certificate(error):
        return WireError("client-certificate", "a certificate of the client is asked for")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        old = "UNSUPPORTED_PROTOCOL" in reason or "PROTOCOL_VERSION" in reason
        return WireError("old-tls" if old else "tls", reason.replace("_", " ").lower() or "no TLS")
    return WireError("unroutable" if error.errno in _UNROUTABLE else "refused", _words(error))


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
