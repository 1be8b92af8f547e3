"""An answer, and the server that sent it: values without a connection.

The server may be hostile: nothing here fails, whatever the server sends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class WireError(Exception):
    """There was no answer.

    Args:
        kind: `dns`, `refused`, `unroutable` (from here), `timeout`, `certificate`, `client-certificate` (the server
            requires one), `old-tls`, `tls`, `closed` (without a byte of an answer) or `protocol`.
        detail: what happened, in words; may contain what the server sent.
        code: OpenSSL's code for a certificate that did not verify, otherwise 0.
    """

    def __init__(self, kind: str, detail: str, code: int = 0) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.code = kind, detail, code


@dataclass(frozen=True)
class Certificate:
    """The content of a server's certificate; nothing in it is verified.

    Attributes:
        names: the names that it is for (RFC 6125 §1.8): DNS names and addresses of its `subjectAltName`.
        subject: the common name of its subject; empty if it has none.
        begins: the start of its validity, Unix s.
        ends: the end of its validity, Unix s.
    """

    names: tuple[str, ...]
    subject: str
    begins: int
    ends: int

    @staticmethod
    def read(der: bytes | None) -> Certificate | None:
        """Read a certificate; None if there is none, or it cannot be read."""
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
        status: the status code.
        headers: name in lower case, and value, in their order.
        body: its first 256 KiB.
        truncated: whether the body was longer.
        received_at: when the head of the answer arrived, Unix s.
        asked_from: our own address on the connection.
        tls: the version of TLS, or None for plain http.
        alpn: the negotiated protocol, or None.
        took_s: from the start of the connection to the head of the answer.
        certificate: the server's, if only a handshake was requested.
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
        """All values of a header."""
        return [value for given, value in self.headers if given == name]

    def header(self, name: str) -> str:
        """The values of a header, joined; empty if it is missing."""
        return ", ".join(self.all(name))

    @property
    def media_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.header("content-type").partition(";")[0].strip().lower()

    @property
    def location(self) -> str:
        """The target of a redirect; empty for any other answer."""
        return self.header("location") if 300 <= self.status < 400 else ""

    def json(self) -> Any:
        """The body as JSON; None if it is not JSON, nested too deeply, too long or not UTF-8."""
        try:
            return None if self.truncated else json.loads(self.body.decode())
        except (ValueError, RecursionError):
            return None

    def json_object(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty if it is not one."""
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
    """The server: scheme, name and port as in the URL."""

    scheme: str
    name: str
    port: int

    @staticmethod
    def of(url: str) -> Origin | None:
        """The origin of a URL; None if it has none, or none that doctor may use."""
        try:
            parts = urlsplit(url)
            port = parts.port or {"https": 443, "http": 80}[parts.scheme]
        except (ValueError, KeyError):
            return None
        name = (parts.hostname or "").lower()
        return Origin(parts.scheme, name, port) if name and parts.username is None else None

    @property
    def host(self) -> str:
        """The value of `Host`, without the default port."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port == {"https": 443, "http": 80}[self.scheme] else f"{name}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


@dataclass(frozen=True)
class Place:
    """Where to connect to.

    Attributes:
        address: an IP address, or the path of a Unix socket.
        port: its port; 0 for a socket.
    """

    address: str
    port: int
