"""Servers on loopback that requests of ours meet: well-behaved ones, and an attacker's."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "client.example.com"
Serve = Callable[[socket.socket], None]


class Attacker:
    """Listens on a loopback port, and hands each connection to a function, in a thread of its own.

    Attributes:
        port: where.
        met: connections so far.
    """

    def __init__(
        self, serve: Serve, context: ssl.SSLContext | None = None, *, address: str = "127.0.0.1"
    ) -> None:
        self._serve, self._context = serve, context
        self.met = 0
        self._listening = socket.create_server((address, 0), backlog=32)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = self._listening.accept()
                self.met += 1
                threading.Thread(target=self._meet, args=(wire,), daemon=True).start()

    def _meet(self, wire: socket.socket) -> None:
        with contextlib.suppress(OSError), wire:
            wire.settimeout(20)
            if self._context is not None:
                wire = self._context.wrap_socket(wire, server_side=True)
            with wire:
                self._serve(wire)

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()


class Answering:
    """Reads a request, then sends the pieces, and then one of them without an end.

    Attributes:
        seen: the requests, whole.
        sent: how many bytes of the endless part the system took.
    """

    def __init__(
        self, *pieces: bytes, endless: bytes = b"", pause_s: float = 0.0, at_once: bytes = b""
    ) -> None:
        self._pieces, self._endless, self._pause_s = pieces, endless, pause_s
        self._at_once = at_once
        self.seen: list[bytes] = []
        self.sent = 0

    def __call__(self, wire: socket.socket) -> None:
        heard = b""
        wire.sendall(self._at_once)
        while b"\r\n\r\n" not in heard:
            if not (data := wire.recv(65536)):
                return
            heard += data
        # A body that is announced belongs to it.
        head, _, rest = heard.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(rest) < length:
            rest += wire.recv(65536)
        self.seen.append(head + b"\r\n\r\n" + rest)
        for piece in self._pieces:
            wire.sendall(piece)
        while self._endless:
            wire.sendall(self._endless)
            self.sent += len(self._endless)
            time.sleep(self._pause_s)


def ok(body: bytes = b"{}", *headers: bytes) -> bytes:
    """A well-behaved answer."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Authority:
    """A certificate authority of the test.

    Args:
        folder: where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign("A test's authority", None, self._key)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self, name: str, for_name: str | None, key: ec.EllipticCurvePrivateKey, *, days: int = 30
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = subject if for_name is None else self._certificate.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=for_name is None, path_length=None), critical=True)
        )
        if for_name:
            try:
                names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(for_name))
            except ValueError:
                names = x509.DNSName(for_name)
            builder = builder.add_extension(x509.SubjectAlternativeName([names]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def server(self, name: str = NAME, *, days: int = 30, has_san: bool = True) -> ssl.SSLContext:
        """TLS of a server with a certificate for this name, which ends in so many days; by its CN only, without a SAN."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, name if has_san else "", key, days=days)
        file = self._folder / f"{name.replace(':', '_')}-{days}-{has_san}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@contextlib.contextmanager
def stuck(until: threading.Event) -> Iterator[Callable[[str, int], list[str]]]:
    """A resolver that does not answer until the test is over."""

    def look_up(_name: str, _port: int) -> list[str]:
        until.wait(20)
        return ["127.0.0.1"]

    try:
        yield look_up
    finally:
        until.set()
