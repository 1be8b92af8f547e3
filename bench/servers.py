"""What is measured: gunicorns, granian, the shipped nginx site, and sessions to mint for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.usage import tree
from bench.wrk import Target
from tests.support.gunicorn import (
    ADMIN,
    PROJECT,
    SECRET,
    Answer,
    Gunicorn,
    clean_environment,
    hold_port,
    rsa_pem,
)
from tests.support.nginx import NginxSite

ISSUER = "https://id.example.com"
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/oidc/jwks"
MINT = "/api/auth/jwt"
FILE = "/bench-file"
#: A mint that nginx passes on by the uwsgi protocol.
BY_UWSGI = "/bench-uwsgi"
#: Of the bare application: as what only reads, it is answered without another thread.
BARE = "/.well-known/bare"
_SESSIONS = 64
_START_S = 30.0


def settings(alg: str, data_dir: Path) -> dict[str, str]:
    """The environment of a service under test.

    Args:
        alg: Of minted tokens. With `HS256` there is nothing but a secret, and the issuer comes from `Host`, as by
            default; with `RS256` the issuer is configured and a key is published.
        data_dir: Where its database is; servers that share it know the same sessions.
    """
    given = {
        "WEB_CONCURRENCY": "2",
        "PYLON_DATA_DIR": str(data_dir),
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_JWT_ALG": alg,
    }
    if alg == "HS256":
        return given | {"PYLON_JWT_SECRET": SECRET}
    return given | {"PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_OIDC_ISSUER": ISSUER}


def ours(
    alg: str,
    data_dir: Path,
    *,
    unix: bool = False,
    argv: Sequence[str] = (),
    server: str = "gunicorn",
    wait: bool = True,
    more: Mapping[str, str] | None = None,
) -> Gunicorn:
    """The service in gunicorn, by `deploy/gunicorn.conf.py` and whatever `argv` changes in it, or in granian."""
    environment: dict[str, Any] = settings(alg, data_dir) | dict(more or {})
    return Gunicorn(server=server, unix=unix, argv=argv, wait=wait, **environment)


def bare(body_bytes: int, *, unix: bool = False) -> Gunicorn:
    """A bare Falcon application in the same server with the same configuration."""
    return Gunicorn(app="bench.bare:app", unix=unix, ready_path=BARE, BARE_BYTES=str(body_bytes))


def sign_in(server: Gunicorn, path: Path, count: int = _SESSIONS) -> Path:
    """Begin sessions, and write their tokens into a file, one a line."""
    tokens = []
    for number in range(count):
        answer = server.call(
            "POST",
            "/api/auth/session",
            headers={"Authorization": f"Bearer {ADMIN}"},
            body={"user_id": f"user-{number}"},
        )
        assert answer.status == 201, answer
        tokens.append(answer.json()["token"])
    path.write_text("\n".join(tokens) + "\n")
    return path


def mint_once(server: Gunicorn, tokens: Path) -> Answer:
    """One minted token, so that a mistake shows before it is measured."""
    token = tokens.read_text().split("\n", 1)[0]
    answer = server.call("POST", MINT, headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200, answer
    return answer


def url(server: Gunicorn | Granian | NginxSite, path: str) -> str:
    """Where wrk finds a path of the server."""
    if isinstance(server, NginxSite):
        return f"https://localhost:{server.https_port}{path}"
    return f"http://127.0.0.1:{server.port}{path}"


def mint(server: Gunicorn | Granian | NginxSite, tokens: Path, path: str = MINT) -> Target:
    """`POST /api/auth/jwt` at a server, or what stands for it at a site."""
    return Target(url(server, path), "POST", tokens)


def site(socket_path: Path, file: bytes = b"") -> NginxSite:
    """The shipped site in front of a Unix socket, over TLS.

    Only the rates of its limits are out of the way, since all load comes from one address, and a file is served in the
    same server block; the log is buffered as shipped.

    Args:
        socket_path: Where the application listens.
        file: What is served as a file.
    """
    document = socket_path.with_name("file.json")
    document.write_bytes(file)
    service = "include pylon-oidc/snippets/service.conf;"
    in_place = (
        f"{service}\n    location = {FILE} {{ types {{}} default_type application/json; alias {document}; }}"
        f"\n    location = {BY_UWSGI} {{ include /etc/nginx/uwsgi_params; uwsgi_param PATH_INFO {MINT};"
        f" uwsgi_param REQUEST_URI {MINT}; uwsgi_pass unix:{socket_path}; }}"
    )
    return NginxSite(
        f"unix:{socket_path}",
        name="localhost",
        edits={
            "rate=100r/s": "rate=1000000r/s",
            "rate=1000r/s": "rate=1000000r/s",
            "buffer=64k flush=1s": "buffer=64k flush=1s",
            service: in_place,
        },
    )


class Granian:
    """The same WSGI callable in granian: another server, for comparison."""

    def __init__(
        self, environment: dict[str, str], *, unix: Path | None = None, argv: Sequence[str] = ()
    ) -> None:
        """Start it with two workers, and wait until it listens.

        Raises:
            RuntimeError: When it does not listen within 30 s.
        """
        self._holder = hold_port()
        self.port: int = self._holder.getsockname()[1]
        self._unix = unix
        where = ["--uds", str(unix)] if unix else ["--host", "127.0.0.1", "--port", str(self.port)]
        # granian sets SO_REUSEPORT, which a port that is held without it would refuse.
        self._holder.close()
        command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--workers", "2", "--no-ws"]
        self.process = subprocess.Popen(
            [*command, "--log-level", "warning", *where, *argv, "service.wsgi:app"],
            cwd=PROJECT,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self.process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX if self._unix else socket.AF_INET) as wire,
            ):
                wire.settimeout(5)
                wire.connect(str(self._unix) if self._unix else ("127.0.0.1", self.port))
                wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if wire.recv(100).startswith(b"HTTP/1.1 200"):
                    return
            time.sleep(0.02)
        raise RuntimeError("granian did not answer")

    @property
    def pid(self) -> int:
        """Process id of its first process."""
        return self.process.pid

    def stop(self) -> int:
        """End it by SIGTERM; after 35 s all of it is killed."""
        family = tree(self.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(35)
        except subprocess.TimeoutExpired:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
