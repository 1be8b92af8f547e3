"""The shipped nginx site, started by tests: `nginx/` byte for byte, in a folder of its own.

Only what an operator edits is the tests' own: `local.conf` is `local.conf.example` with its addresses, names, paths
and ports replaced. Before it stands either a real gunicorn or a `StubUpstream`, which keeps what it was sent.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import http.client
import ipaddress
import json
import os
import pwd
import re
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.gunicorn import PROJECT, Answer, Headers, clean_environment, hold_port
from tests.support.stopping import Stoppable, end_process

SHIPPED = PROJECT / "nginx"
#: The name that the site is served under.
NAME = "id.example.test"
#: In `allow-app.conf` as shipped, and not in it; both are this machine.
BACKEND = "127.0.0.1"
OUTSIDER = "127.0.0.2"

_START_S = 90.0
_STOP_S = 30.0
_POLL_S = 0.01
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_nginx() -> str:
    """The nginx program.

    Raises:
        FileNotFoundError: When it is not installed.
    """
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError("no nginx here: install the package `nginx`")
    return found


@dataclass(frozen=True)
class Certificates:
    """Where a certificate, its key and the CA that vouches for it are."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, *names: str) -> Certificates:
    """Make a CA, and a certificate of it.

    Args:
        folder: Where the three PEM files go.
        names: DNS names or IP addresses of the certificate.

    Returns:
        Their paths.
    """
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    authority, site = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    ca = (
        certificate("test CA", authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority, hashes.SHA256())
    )
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    leaf = (
        certificate(names[0], site.public_key())
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False
        )
        .sign(authority, hashes.SHA256())
    )
    made = Certificates(folder / "ca.pem", folder / "fullchain.pem", folder / "privkey.pem")
    made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        site.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


class NginxDidNotStart(AssertionError):
    """nginx ended, or never listened; the message holds what it said."""


class NginxSite(Stoppable):
    """One nginx with the shipped site, from its start to its end.

    Attributes:
        folder: Its prefix; `nginx.conf` and a copy of `nginx/` as `pylon-oidc/` are in it.
        http_port, https_port: The loopback ports it listens on.
        public_port: The port of its public URLs, as `local.conf` says.
        ca: Path of the CA that vouches for its certificate.
        access_log, error_log: Paths of the logs that `local.conf` names.
    """

    def __init__(
        self,
        upstream: str,
        *,
        name: str = NAME,
        public_port: int | None = None,
        allow_app: str | None = None,
        edits: Mapping[str, str] | None = None,
        more: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, and wait until it listens.

        Args:
            upstream: Where the application is, as nginx writes it: `unix:/path` or `127.0.0.1:port`.
            name: The public name.
            public_port: The port of the public URLs; `None` is the port that it listens on.
            allow_app: Another text for `allow-app.conf`; `None` leaves the shipped one.
            edits: More text of the example to be replaced in `local.conf`; each must be there.
            more: Text to append to `local.conf`. `{http_port}`, `{https_port}`, `{certificate}`, `{key}` and
                `{folder}` are filled in.
            environment: More of the environment that it is started with.

        Raises:
            FileNotFoundError: When nginx is not installed.
            NginxDidNotStart: When it exits, or does not listen within 20 s.
        """
        self.name, self._upstream, self._allow_app = name, upstream, allow_app
        self._edits, self._more, self._public_port = dict(edits or {}), more, public_port
        self._environment = dict(environment or {})
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-n-"))
        certificates = make_certificates(self.folder, name, f"*.{name.partition('.')[2]}")
        self.ca, self._certificates = certificates.ca, certificates
        self.access_log, self.error_log = self.folder / "access.log", self.folder / "error.log"
        self._output = self.folder / "output.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self._holders = [hold_port(), hold_port()]
        self.http_port, self.https_port = (holder.getsockname()[1] for holder in self._holders)
        self.public_port = public_port or self.https_port
        try:
            self._write_configuration()
            self._start()
        except BaseException:
            self.stop()
            raise

    # Starting and stopping

    def _write_configuration(self) -> None:
        """Write the prefix: an `nginx.conf` with the one line, the shipped files, and the operator's own."""
        site = self.folder / "pylon-oidc"
        shutil.rmtree(site, ignore_errors=True)
        self._write_site(site)
        user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
        temporary = "\n".join(f"    {kind}_temp_path {self.folder}/{kind};" for kind in _TEMPORARY)
        # What Debian's own nginx.conf sets and ours must work with is in http{} too.
        (self.folder / "nginx.conf").write_text(
            f"""{user}
worker_processes 2;
pid {self.folder}/nginx.pid;
error_log {self.folder}/main.log;
events {{ worker_connections 768; }}
http {{
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    access_log {self.folder}/main-access.log;
    gzip on;
{temporary}
    include pylon-oidc/site.conf;
}}
"""
        )

    def _write_site(self, site: Path) -> None:
        """Write what an operator copies to `/etc/nginx/pylon-oidc`."""
        shutil.copytree(SHIPPED, site)
        (site / "local.conf").write_text(self._local_conf())
        if self._allow_app is not None:
            (site / "allow-app.conf").write_text(self._allow_app)

    def _local_conf(self) -> str:
        """`local.conf`: the example, with what an operator replaces replaced."""
        text = (SHIPPED / "local.conf.example").read_text()
        # This machine may have no IPv6.
        text = re.sub(r"^ *listen \[::\]:.*\n", "", text, flags=re.MULTILINE)
        replacements = {
            "default 443;": f"default {self.public_port};",
            "listen 443 ": f"listen 127.0.0.1:{self.https_port} ",
            "listen 80": f"listen 127.0.0.1:{self.http_port}",
            "server_name id.example.com;": f"server_name {self.name};",
            "unix:/run/pylon-oidc/gunicorn.sock": self._upstream,
            "/etc/ssl/pylon-oidc/fullchain.pem": str(self._certificates.certificate),
            "/etc/ssl/pylon-oidc/privkey.pem": str(self._certificates.key),
            "/var/lib/nginx/pylon-oidc": str(self.folder / "cache"),
            "/var/log/nginx/pylon-oidc.access.log": str(self.access_log),
            "/var/log/nginx/pylon-oidc.error.log": str(self.error_log),
            # Tests read the log at once.
            "buffer=64k flush=1s": "",
        } | self._edits
        for old, new in replacements.items():
            assert old in text, f"local.conf.example has no {old!r}"
            text = text.replace(old, new)
        more = self._more
        for field, value in {
            "http_port": self.http_port,
            "https_port": self.https_port,
            "certificate": self._certificates.certificate,
            "key": self._certificates.key,
            "folder": self.folder,
        }.items():
            more = more.replace(f"{{{field}}}", str(value))
        return text + more

    def command(self, *arguments: str) -> list[str]:
        """nginx's command line for this prefix.

        Args:
            arguments: More of it, as `-t`.
        """
        return [find_nginx(), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), *arguments]

    def _start(self) -> None:
        """Start the process, and wait until it listens."""
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command("-g", "daemon off;"),
                env=clean_environment(**self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise NginxDidNotStart(f"nginx exited with {self.process.returncode}:\n{self.output()}")
            # The pid file comes after the sockets are bound, so this is no other program on our port.
            if (self.folder / "nginx.pid").exists() and self._listens():
                return
            time.sleep(_POLL_S)
        raise NginxDidNotStart(f"nginx did not listen within {_START_S:.0f} s:\n{self.output()}")

    def _listens(self) -> bool:
        for port in (self.http_port, self.https_port):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
        return True

    def stop(self) -> None:
        """End it by its own process id, and remove its folder; calling it again does nothing more."""
        process, self.process = self.process, None
        if process is not None:
            end_process(process, _STOP_S)
        for holder in self._holders:
            holder.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Asking

    @property
    def origin(self) -> str:
        """The public origin, and so the issuer where it is derived: `https://name[:port]`."""
        return f"https://{self.authority}"

    @property
    def authority(self) -> str:
        """The public name, with the port unless it is 443: the right `Host`."""
        return self.name if self.public_port == 443 else f"{self.name}:{self.public_port}"

    def trust(self) -> ssl.SSLContext:
        """A client's TLS context that trusts only the test CA."""
        return ssl.create_default_context(cafile=str(self.ca))

    def connect(
        self,
        *,
        tls: bool = True,
        port: int | None = None,
        sni: str | None = "",
        source: str = BACKEND,
        alpn: Sequence[str] = (),
        timeout: float = 10,
    ) -> socket.socket:
        """Open a connection.

        Args:
            tls: To the https port, with the certificate verified; else to the http port, in the clear.
            port: Another port to go to.
            sni: The name to ask for in TLS; empty is the public name, `None` sends none and verifies no name.
            source: The address to come from: `BACKEND` or `OUTSIDER`.
            alpn: Protocols to offer.
            timeout: Seconds for each step.

        Raises:
            ssl.SSLError: When the handshake is refused.
        """
        port = port or (self.https_port if tls else self.http_port)
        wire = socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0))
        if not tls:
            return wire
        context = self.trust()
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if sni is None:
            context.check_hostname = False
        try:
            return context.wrap_socket(wire, server_hostname=self.name if sni == "" else sni)
        except BaseException:
            wire.close()
            raise

    def exchange(
        self,
        payload: bytes,
        *,
        tls: bool = True,
        port: int | None = None,
        sni: str | None = "",
        source: str = BACKEND,
        head: bool = False,
        timeout: float = 30,
        quiet_s: float | None = None,
    ) -> list[Answer]:
        """Send bytes as they are, and read every answer until nginx closes or is silent.

        Args:
            payload: One or more requests; say `Connection: close` in the last, or wait for the timeout.
            tls, port, sni, source: As for `connect`.
            head: The answers are to HEAD requests, and have no body.
            timeout: Seconds of silence after which to give up.
            quiet_s: The same after the first answer; `None` if it is no other time.

        Returns:
            The answers, in order.

        Raises:
            ValueError: When the bytes are no HTTP responses.
        """
        received = b""
        with (
            self.connect(tls=tls, port=port, sni=sni, source=source, timeout=timeout) as wire,
            contextlib.suppress(OSError),
        ):
            wire.sendall(payload)
            while chunk := wire.recv(65536):
                received += chunk
                wire.settimeout(quiet_s or timeout)
        return list(parse_answers(received, head=head))

    def call(
        self,
        method: str,
        target: str,
        *,
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        tls: bool = True,
        source: str = BACKEND,
        version: str = "1.1",
    ) -> Answer:
        """Send one request, its target as it is, on a connection of its own.

        Args:
            method: The HTTP method.
            target: The request target, byte for byte.
            host: The `Host` header; `None` is the right one.
            headers: More headers.
            body: The body, with its `Content-Length`.
            tls, source: As for `connect`.
            version: Of HTTP.

        Returns:
            The one answer.
        """
        sent = {"Host": self.authority if host is None else host, "Connection": "close"} | dict(headers or {})
        if body is not None:
            sent["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in sent.items())]
        payload = "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
        answers = self.exchange(payload, tls=tls, source=source, head=method == "HEAD")
        assert len(answers) == 1, answers
        return answers[0]

    def call_h2(
        self, path: str, *, authority: str | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Send one GET over HTTP/2.

        Args:
            path: The `:path`.
            authority: The `:authority`; `None` is the right one.
            headers: More headers, in lower case.

        Returns:
            The status.

        Raises:
            AssertionError: When HTTP/2 is not agreed on, or no status comes.
        """
        with self.connect(alpn=["h2"]) as wire:
            assert isinstance(wire, ssl.SSLSocket)
            assert wire.selected_alpn_protocol() == "h2"
            fields = {
                ":method": "GET",
                ":scheme": "https",
                ":authority": self.authority if authority is None else authority,
                ":path": path,
            } | dict(headers or {})
            block = b"".join(
                b"\x10" + _hpack_text(name) + _hpack_text(value) for name, value in fields.items()
            )
            settings, request = _h2_frame(4, 0, 0), _h2_frame(1, 5, 1, block)
            wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + request)
            stream = wire.makefile("rb")
            while head := stream.read(9):
                length, kind = int.from_bytes(head[:3]), head[3]
                payload = stream.read(length)
                if kind == 1:
                    return _hpack_status(payload)
        raise AssertionError("no answer")

    # What it said

    def output(self) -> str:
        """What it printed, and its logs of failures."""
        parts = (self._output, self.folder / "main.log", self.error_log)
        return "".join(part.read_text(errors="replace") for part in parts if part.exists())

    def log_lines(self, request_id: str | None = None) -> list[dict[str, Any]]:
        """The access log.

        Args:
            request_id: Only its lines, of which the first is waited for (nginx writes them after the answer).

        Returns:
            The lines, as parsed JSON.
        """
        end = time.monotonic() + 5
        while True:
            text = self.access_log.read_text() if self.access_log.exists() else ""
            lines = [json.loads(line) for line in text.splitlines()]
            found = [line for line in lines if request_id in {None, line["request_id"]}]
            if found or time.monotonic() > end:
                return found
            time.sleep(_POLL_S)


def _h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _hpack_text(text: str) -> bytes:
    """A string literal without Huffman coding (RFC 7541 §5.2)."""
    data = text.encode("latin-1")
    assert len(data) < 127
    return bytes([len(data)]) + data


def _hpack_status(block: bytes) -> int:
    """The status, which comes first in a header block: indexed, or a literal with an indexed name."""
    if block[0] & 0xE0 == 0x20:  # a change of the table size
        block = block[1:]
    indexed = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
    return indexed.get(block[0]) or int(block[2:5])


def parse_answers(received: bytes, *, head: bool = False) -> Iterator[Answer]:
    """Cut a byte stream into HTTP/1.x responses.

    Args:
        received: All of it.
        head: The answers have no body.

    Yields:
        Each answer; one that is cut short has the body that there is.

    Raises:
        ValueError: When something else than a response stands where one should begin.
    """
    while received:
        if not received.startswith(b"HTTP/1."):
            raise ValueError(f"not a response: {received[:80]!r}")
        raw_head, _, received = received.partition(b"\r\n\r\n")
        first, *lines = raw_head.decode("latin-1").split("\r\n")
        pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        headers, status = Headers(pairs), int(first.split(" ")[1])
        if head or status in {204, 304}:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body, received = _unchunk(received)
        else:
            length = int(headers.get("content-length", len(received)))
            body, received = received[:length], received[length:]
        yield Answer(status, headers, body)


def _unchunk(data: bytes) -> tuple[bytes, bytes]:
    """Decode a chunked body.

    Returns:
        The body, and what comes after it.
    """
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line or b"0", 16)
        body, data = body + data[:size], data[size + 2 :]
        if size == 0:
            return body, data


@dataclass(frozen=True)
class Seen:
    """One request as the application was given it."""

    method: str
    target: str
    version: str
    headers: Headers
    body: bytes

    def credential_free(self) -> bool:
        """Whether it carries neither `Authorization` nor `Cookie`."""
        return not {"authorization", "cookie"} & set(self.headers)


@dataclass(frozen=True)
class Reply:
    """What a `StubUpstream` answers.

    Attributes:
        status: Of the response.
        headers: In addition to `Content-Length`; `Date` is now unless it is given.
        body: Of the response.
        delay_s: Seconds to wait before it is sent.
        drop: Close the connection instead of answering.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    body: bytes = b"{}"
    delay_s: float = 0.0
    drop: bool = False


class StubUpstream(Stoppable):
    """A WSGI-less application on a Unix socket, which keeps what it was sent and answers what a test says.

    Attributes:
        seen: Every request so far, in order.
        reply: What is answered, as a function of the request.
        connections: How many connections were opened to it.
    """

    def __init__(self, reply: Callable[[Seen], Reply] | None = None) -> None:
        """Start to listen.

        Args:
            reply: What to answer; by default 200 and `{}`.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-u-"))
        self.socket_path = self.folder / "s"
        self.seen: list[Seen] = []
        self.connections = 0
        self.default_reply = reply or (lambda _seen: Reply())
        self.reply = self.default_reply
        self._lock = threading.Lock()
        stub = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with stub._lock:
                    stub.connections += 1
                with contextlib.suppress(OSError):
                    while stub._answer(self.rfile, self.wfile):
                        pass

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 512

        self._server = Server(str(self.socket_path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it is, as nginx writes it."""
        return f"unix:{self.socket_path}"

    def _answer(self, incoming: Any, outgoing: Any) -> bool:
        """Read one request and answer it; false when the connection is over."""
        line = incoming.readline().decode("latin-1")
        if not line.strip():
            return False
        method, target, version = line.strip().split(" ")
        raw = http.client.parse_headers(incoming)
        headers = Headers([(name, str(value)) for name, value in raw.items()])
        body = incoming.read(int(headers.get("content-length", "0")))
        seen = Seen(method, target, version, headers, body)
        with self._lock:
            self.seen.append(seen)
        reply = self.reply(seen)
        time.sleep(reply.delay_s)
        if reply.drop:
            return False
        given = dict(reply.headers)
        given.setdefault("Date", http_date(time.time()))
        lines = [f"HTTP/1.1 {reply.status} Stub", *(f"{name}: {value}" for name, value in given.items())]
        if reply.status not in {204, 304}:
            lines.append(f"Content-Length: {len(reply.body)}")
        outgoing.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if method != "HEAD" and reply.status not in {204, 304}:
            outgoing.write(reply.body)
        outgoing.flush()
        return True

    def forget(self) -> None:
        """Forget what was seen, and answer as at the start."""
        with self._lock:
            self.seen.clear()
            self.reply = self.default_reply

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self.folder, ignore_errors=True)


def http_date(moment: float) -> str:
    """A `Date` header.

    Args:
        moment: Unix seconds.
    """
    return email.utils.formatdate(moment, usegmt=True)


@contextlib.contextmanager
def names_resolve_here(*names: str) -> Iterator[None]:
    """Let the names mean this machine, for clients that look them up by themselves.

    Args:
        names: Each is resolved to 127.0.0.1 inside the `with` block, in this process only.
    """
    look_up = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host in names else host, *arguments, **options)

    socket.getaddrinfo = resolve
    try:
        yield
    finally:
        socket.getaddrinfo = look_up


def assert_refused(answer: Answer, status: int) -> None:
    """Check that nginx itself refused, in the shape of the service's errors.

    Args:
        answer: Of `NginxSite.call`; not to a HEAD request.
        status: The one expected.
    """
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["code"] == "PROXY_REFUSED"
    assert error["message"]
    assert answer.headers.all("x-request-id") == [error["request_id"]]
    _assert_headers_of_a_refusal(answer, status)


def assert_refused_by_oauth(answer: Answer, status: int, error: str) -> None:
    """Check that nginx itself refused, in the shape of OAuth's errors (RFC 6749 §5.2).

    Args:
        answer: Of `NginxSite.call`; not to a HEAD request.
        status: The one expected.
        error: Its word.
    """
    body = answer.json()
    assert set(body) == {"error", "error_description"}
    assert body["error"] == error
    assert body["error_description"]
    _assert_headers_of_a_refusal(answer, status)


def _assert_headers_of_a_refusal(answer: Answer, status: int) -> None:
    assert answer.status == status, (answer.status, answer.body)
    assert len(answer.headers.all("x-request-id")) == 1
    assert answer.headers.all("content-type") == ["application/json"]
    assert answer.headers.all("cache-control") == ["no-store"]
    assert answer.headers.all("x-content-type-options") == ["nosniff"]
    assert answer.headers.all("server") == ["nginx"]
