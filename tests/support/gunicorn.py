"""The real thing, started by tests: a server with the shipped configuration, on a loopback port or a Unix socket.

It is gunicorn, or granian where a test says so: by `server=`, or by `each_server` for all that the test starts.

What a test sees of the program here is what a neighbour of it sees: bytes over a socket, its log, its exit code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.stopping import Stoppable, end_process

PROJECT = Path(__file__).resolve().parents[2]

SECRET = hashlib.sha256(b"pylon-oidc tests: HS256 secret").hexdigest()
ADMIN = hashlib.sha256(b"pylon-oidc tests: admin token").hexdigest()
TRUSTED = hashlib.sha256(b"pylon-oidc tests: trusted-mint secret").hexdigest()

SERVERS = ("gunicorn", "granian")
#: What a developer's shell may hold and a test must never inherit.
_OURS = ("PYLON_", "PG")
_SERVERS = frozenset(
    {"PORT", "DATABASE_URL", "GUNICORN_CMD_ARGS", "FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY", "SCRIPT_NAME"}
)
_START_S = 90.0
_STOP_S = 35.0
_PORT_TRIES = 5
_POLL_S = 0.02


def clean_environment(**settings: str | None) -> dict[str, str]:
    """The environment of this process without any setting of ours, plus the given ones.

    Args:
        settings: Names and values to add; `None` leaves a name unset.

    Returns:
        A new dictionary, for `subprocess`.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and name not in _SERVERS
    }
    kept.update({name: value for name, value in settings.items() if value is not None})
    return kept


def hold_port(port: int = 0) -> socket.socket:
    """Reserve a loopback port: bound, never listening, so that a server may bind it and nobody else is given it.

    Args:
        port: The port to reserve; 0 lets the system pick one.

    Returns:
        The socket that holds it; closing it gives the port back.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    return holder


@functools.cache
def rsa_pem(bits: int = 2048, number: int = 0) -> str:
    """An RSA private key as PKCS#8 PEM, made once a process.

    Args:
        bits: Size of the modulus.
        number: Another number gives another key.

    Returns:
        The PEM text.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@functools.cache
def _migrated() -> bytes:
    """An SQLite file with its schema and nothing in it, made once a process: a migration costs more than most tests."""
    from tests.storage.stores import migrate  # which needs the service: not everything that starts one does

    with tempfile.TemporaryDirectory(prefix="pylon-m-") as folder:
        path = Path(folder) / "pylon.db"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def on(case: str) -> dict[str, Any]:
    """The server that a case names, as `sqlite on granian` does, as an argument of `Gunicorn`; none where it names none."""
    _, on_another, name = case.partition(" on ")
    return {"server": name} if on_another else {}


class Headers(Mapping[str, str]):
    """Response headers by lower-case name; a repeated one reads joined by `, `, and as a list from `all`."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values!r})"

    def all(self, name: str) -> list[str]:
        """Every value of one header, in the order they came; empty when it is absent."""
        return list(self._values.get(name.lower(), ()))


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: When the body is something else.
        """
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the path instead of to the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DidNotStart(AssertionError):
    """The server ended, or never answered; the message holds its output."""


class Gunicorn(Stoppable):
    """One gunicorn of the project, or granian, from its start to its exit code.

    Settings are given by their own names: `Gunicorn(PYLON_JWT_SECRET=SECRET, PYLON_ADMIN_TOKEN=ADMIN)`. Its data
    folder is a fresh one, removed at the end, unless `PYLON_DATA_DIR` is given; its database is a migrated one, as after
    the first start. At the end of a `with` block it is killed: to stop in order takes seconds, and is a test of its own.
    """

    #: The server of those that name none: TESTS_SERVER=granian runs every test on the other one.
    usual = os.environ.get("TESTS_SERVER", "gunicorn")

    def __init__(
        self,
        *,
        server: str | None = None,
        serve: bool = False,
        app: str = "service.wsgi:app",
        config: str = "deploy/gunicorn.conf.py",
        argv: Sequence[str] = (),
        unix: bool = False,
        port: int = 0,
        wait: bool = True,
        ready_path: str = "/healthz",
        cwd: Path = PROJECT,
        under: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        **settings: str | None,
    ) -> None:
        """Start it, and wait until it answers, with all of its workers there.

        Args:
            server: `gunicorn` or `granian`; the usual one when left out.
            serve: Start it by `pylon-oidc serve`, which takes no `app` or `config`.
            app: The WSGI callable, as `module:name`.
            config: gunicorn's configuration file, relative to the project.
            argv: More arguments for gunicorn.
            unix: Bind a Unix socket in a folder of its own (`socket_path`) instead of a port.
            port: The loopback port; 0 lets the system pick one.
            wait: Return only when `ready_path` answers, with whatever status.
            ready_path: What to ask while waiting.
            cwd: The folder to start it in.
            under: A command that becomes it, as `setpriv …`, and its arguments.
            pass_fds: Open files that it inherits.
            settings: Its environment, by name; `None` unsets, and `{port}` in a value is the port it gets.

        Raises:
            DidNotStart: When it exits, or has not answered after 90 s.
        """
        # A short path of its own: a Unix socket's may have 107 bytes, which pytest's folders use up.
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-g-"))
        self.socket_path = self.folder / "s" if unix else None
        self.data_dir = Path(settings.get("PYLON_DATA_DIR") or self.folder / "data")
        given = {"WEB_CONCURRENCY": "2", "PYLON_DATA_DIR": str(self.data_dir)} | settings
        self._given = given
        self.kind = server or self.usual
        self._by_command = serve
        self._tries = 0
        self._app, self._config, self._argv, self._cwd = app, config, list(argv), cwd
        self._under, self._pass_fds = list(under), tuple(pass_fds)
        self._ready_path = ready_path
        self._fixed_port = port
        self._log_path = self.folder / "log.txt"
        self._last_output = ""
        self._holder: socket.socket | None = None
        self.port = 0
        try:
            if "PYLON_DATA_DIR" not in settings and "DATABASE_URL" not in settings:
                self.data_dir.mkdir(mode=0o700)
                (self.data_dir / "pylon.db").write_bytes(_migrated())
            self._start()
            while wait and not self._wait_until_ready():
                self._start()
        except BaseException:
            self.stop()
            raise

    # Starting and stopping

    def _start(self) -> None:
        """Start the process, on a freshly picked port unless one is fixed."""
        if self.socket_path is not None:
            bind = f"unix:{self.socket_path}"
        else:
            if self._holder is not None:
                self._holder.close()
            self._holder = hold_port(self._fixed_port)
            self.port = self._holder.getsockname()[1]
            bind = f"127.0.0.1:{self.port}"
        ported = {
            name: value and value.replace("{port}", str(self.port)) for name, value in self._given.items()
        }
        self.environment = clean_environment(**ported)
        if self._by_command:
            start, app = ["service", "serve", "--server", self.kind], []
        else:
            config = ["gunicorn", "-c", self._config]
            start, app = config if self.kind == "gunicorn" else ["service.launch.granian"], [self._app]
        command = [*self._under, sys.executable, "-m", *start, "--bind", bind, *self._argv, *app]
        self._tries += 1
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self._cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._pass_fds,
            )

    def _wait_until_ready(self) -> bool:
        """Wait for the first answer; false when somebody else had the port and another is to be tried."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                output = self.output()
                taken = "address already in use" in output.lower() or "in use:" in output.lower()
                if taken and not self._fixed_port and self._tries < _PORT_TRIES:
                    return False
                raise DidNotStart(
                    f"{self.kind} exited with {self.process.returncode} before it answered:\n{output}"
                )
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._listens():
                    self.call("GET", self._ready_path, timeout=5)
                    if len(self.worker_pids()) >= int(self._given["WEB_CONCURRENCY"] or 1):
                        return True  # a later look at its workers sees all of them
            time.sleep(_POLL_S)
        raise DidNotStart(f"{self.kind} did not answer within {_START_S:.0f} s:\n{self.output()}")

    def _listens(self) -> bool:
        """Whether this very process, not another on the same port, has the socket open."""
        if self.socket_path is not None:
            return self.socket_path.exists()
        with socket.socket() as knock:  # looking at all its sockets costs a hundred times as much
            if knock.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        with contextlib.suppress(psutil.Error):
            family = [psutil.Process(self.pid), *psutil.Process(self.pid).children()]
            return any(
                c.status == psutil.CONN_LISTEN and c.laddr.port == self.port
                for p in family
                for c in p.net_connections("tcp")
            )
        return False

    @property
    def pid(self) -> int:
        """Process id of the master."""
        return self.process.pid

    def worker_pids(self) -> list[int]:
        """Process ids of the workers, in ascending order."""
        try:
            return sorted(child.pid for child in psutil.Process(self.pid).children())
        except psutil.NoSuchProcess:
            return []

    def wait(self, timeout_s: float = _STOP_S) -> int:
        """Wait until it has ended by itself.

        Args:
            timeout_s: Seconds to wait at most.

        Returns:
            Its exit code.

        Raises:
            subprocess.TimeoutExpired: When it has not ended by then.
        """
        return self.process.wait(timeout_s)

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End all of it at once, and remove what it left in its folder."""
        if hasattr(self, "process"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and remove what it left in its folder; calling it again does nothing more.

        Args:
            how: The signal that the master gets. After 35 s without an exit all of it is killed.

        Returns:
            The exit code of the master.
        """
        process: subprocess.Popen[bytes] | None = getattr(self, "process", None)
        if process is not None and process.poll() is None:
            family = self.worker_pids()
            if not end_process(process, _STOP_S, how):
                for pid in family:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        self._last_output = self.output()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._holder is not None:
            self._holder.close()
        return process.returncode if process is not None else -1

    # Asking

    @property
    def origin(self) -> str:
        """`http://localhost:<port>`, its issuer in dev mode."""
        return f"http://localhost:{self.port}"

    @property
    def issuer_path(self) -> str:
        """The path of a configured issuer, under which everything but health is served; empty without one."""
        return urlsplit(self.environment.get("PYLON_OIDC_ISSUER", "")).path

    def connection(self, timeout: float = 30) -> http.client.HTTPConnection:
        """A connection to it, not yet open, for tests that keep one alive."""
        if self.socket_path is not None:
            return _UnixConnection(self.socket_path, timeout)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def call(
        self,
        method: str,
        path: str,
        *,
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        timeout: float = 30,
    ) -> Answer:
        """Send one request on a connection of its own.

        Args:
            method: The HTTP method.
            path: Target, with its query.
            host: The `Host` header; `None` sends the address that is connected to.
            headers: More headers.
            body: Bytes and text go as they are; anything else as JSON. A `Content-Type` of JSON is added
                where there is a body and `headers` names none.
            timeout: Seconds for each step on the socket.

        Returns:
            The answer.

        Raises:
            OSError: When it cannot be reached.
        """
        sent = dict(headers or {})
        if host is not None:
            sent["Host"] = host
        data: bytes | None = None
        if body is not None:
            if isinstance(body, str):
                data = body.encode()
            else:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if not any(name.lower() == "content-type" for name in sent):
                sent["Content-Type"] = "application/json"
        connection = self.connection(timeout)
        try:
            connection.request(method, path, body=data, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, Headers(response.getheaders()), response.read())
        finally:
            connection.close()

    def raw(self, payload: bytes, timeout: float = 5) -> bytes:
        """Send bytes as they are, and return all that comes back until the other side closes or falls silent.

        Args:
            payload: What to send; say `Connection: close` in it, or wait for the timeout.
            timeout: Seconds of silence after which to give up.

        Returns:
            The bytes received.
        """
        with socket.socket(socket.AF_UNIX if self.socket_path else socket.AF_INET) as wire:
            wire.settimeout(timeout)
            wire.connect(str(self.socket_path) if self.socket_path else ("127.0.0.1", self.port))
            received = b""
            with contextlib.suppress(OSError):
                wire.sendall(payload)
                while chunk := wire.recv(65536):
                    received += chunk
            return received

    def sign_in(self, user_id: str = "user-1", **fields: object) -> str:
        """Make a session by the admin API.

        Args:
            user_id: Whose.
            fields: More members of the request.

        Returns:
            The session token.

        Raises:
            AssertionError: When the answer is not 201.
        """
        admin = self.environment.get("PYLON_ADMIN_TOKEN", ADMIN)
        answer = self.call(
            "POST",
            self.issuer_path + "/api/auth/session",
            headers={"Authorization": f"Bearer {admin}"},
            body={"user_id": user_id, **fields},
        )
        assert answer.status == 201, (answer.status, answer.body)
        token = answer.json()["token"]
        assert isinstance(token, str)
        return token

    def trusted_mint(self, body: object, *, timestamp: int | None = None, key: str = TRUSTED) -> Answer:
        """Make a session by trusted mint, signed as an app's backend signs.

        Args:
            body: The request; bytes are signed and sent as they are.
            timestamp: Unix seconds; `None` is now.
            key: The HMAC key.

        Returns:
            The answer, whatever it is.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        stamp = str(int(time.time()) if timestamp is None else timestamp)
        mac = hmac.new(key.encode(), stamp.encode() + b"." + raw, "sha256").hexdigest()
        signed = {"X-Pylon-Trusted-Timestamp": stamp, "X-Pylon-Trusted-Signature": mac}
        return self.call(
            "POST", self.issuer_path + "/api/auth/sessions/trusted-mint", headers=signed, body=raw
        )

    def mint(self, session_token: str, body: object = None) -> Answer:
        """Mint a token for a session.

        Args:
            session_token: As `sign_in` returned it.
            body: The request's body; `None` sends none.

        Returns:
            The answer, whatever it is.
        """
        return self.call(
            "POST",
            self.issuer_path + "/api/auth/jwt",
            headers={"Authorization": f"Bearer {session_token}"},
            body=body,
        )

    # What it said

    def output(self) -> str:
        """All that it wrote to standard output and standard error so far, also after its end."""
        try:
            return self._log_path.read_text(errors="replace")
        except FileNotFoundError:
            return self._last_output

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON objects among the lines of its output, in order."""
        found = []
        for line in self.output().splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    found.append(value)
        return found


def start_expecting_failure(**options: Any) -> tuple[int, str]:
    """Start the server with a configuration that must be refused.

    Args:
        options: As for `Gunicorn`.

    Returns:
        Its exit code, and all that it printed.

    Raises:
        AssertionError: When it starts to listen, or neither listens nor exits within 90 s.
    """
    server = Gunicorn(wait=False, **options)
    try:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            code = server.process.poll()
            if code is not None:
                return code, server.output()
            assert not server._listens(), f"it started:\n{server.output()}"
            time.sleep(_POLL_S)
        raise AssertionError(f"it neither started nor ended within {_START_S:.0f} s:\n{server.output()}")
    finally:
        server.kill()
