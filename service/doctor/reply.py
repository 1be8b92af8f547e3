"""What comes back, and from whom: values without a connection.

The server may be hostile: nothing here fails, whatever it sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class WireError(Exception):
    """No answer came.

    Args:
        kind: `dns`, `refused`, `unroutable` (from here), `timeout`, `certificate`, `client-certificate` (the server
            wants one), `old-tls`, `tls`, `closed` (without a byte of an answer) or `protocol`.
        detail: what happened, in words; may hold what the server sent.
        code: OpenSSL's code of a certificate that did not verify, else 0.
    """

    def __init__(self, kind: str, detail: str, code: int = 0) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.code = kind, detail, code


@dataclass(frozen=True)
class Certificate:
    """What a server's certificate says of itself; nothing of it is checked.

    Attributes:
        names: for which it stands (RFC 6125 §1.8): DNS names and addresses of its `subjectAltName`.
        subject: the common name of its subject; empty without one.
        begins: Unix s.
        ends: Unix s.
    """

    names: tuple[str, ...]
    subject: str
    begins: int
    ends: int

    @staticmethod
    def read(der: bytes | None) -> Certificate | None:
        """Read one; None for none, and for what cannot be read."""
        from cryptography import x509

        try:
            found = x509.load_der_x509_certificate(der or b"")
            common = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            try:
                alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                names = [str(name.value) for name in alternatives]
            except x509.ExtensionNotFound:
                names = []
            begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
        except (ValueError, TypeError):
            return None
        subject = str(common[0].value) if common else ""
        return Certificate(tuple(names), subject, int(begins.timestamp()), int(ends.timestamp()))


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
        took_s: from the beginning of the connection to the head of the answer.
        certificate: of the server, if only a handshake was asked for.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool
    received_at: float
    asked_from: str = ""
    tls: str | None = None
    alpn: str | None = None
    took_s: float = 0.0
    certificate: Certificate | None = None

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
    """The server to ask: scheme, name and port as in the URL."""

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


@dataclass(frozen=True)
class Place:
    """Where to connect to.

    Attributes:
        address: an IP address, or the path of a Unix socket.
        port: of it; 0 for a socket.
    """

    address: str
    port: int
