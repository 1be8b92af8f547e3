"""What a provider is to the benchmark, and a process that is a server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench import clients, usage
from bench.clients import Clients, Place
from bench.wrk import Target
from tests.support.gunicorn import clean_environment, hold_port
from tests.support.postgres import PostgresCluster

#: What the tables and plots have, in their order.
ROWS = (
    "discovery",
    "JWKS",
    "code exchange",
    "refresh",
    "userinfo",
    "introspection",
    "mint HS256",
    "mint RS256",
    "client_credentials, RS256",
    "client_credentials, ES256",
)
#: What every commit of the benchmark's PostgreSQL keeps to.
DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "1GB",
    "max_connections": "300",
}
_STOP_S = 10.0
_POLL_S = 0.005


class Absent(RuntimeError):
    """A peer is not available here; the message says why."""


def set_up(command: Sequence[str | Path], folder: Path, environ: Mapping[str, str], what: str) -> None:
    """Run a command that makes a provider's tables.

    Args:
        command: its words.
        folder: where it runs.
        environ: more of its environment.
        what: what could not be done if it fails, for the message.

    Raises:
        Absent: If it fails.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise Absent(f"{what}: {(done.stdout + done.stderr)[-1000:]}")


@dataclass(frozen=True)
class Provider:
    """A provider that is up.

    Attributes:
        name: Its row in the tables, where PG is PostgreSQL.
        what: Its versions, and how it is run.
        durable: What is on disk when an answer is sent.
        place: Where it is; its user is signed in.
        pid: Its first process.
        cold_start_s: From its start to the first answer, with its database there.
        targets: What wrk asks for, by row; a row that is missing here it does not have.
        userinfo: Its path; empty where there is none.
        introspection: Its path, or its URL where it is elsewhere; empty where there is none.
        warm_s: How long each row is asked for before it counts: compilers need longer.
        code: Signs a browser in and gives a code, where that takes more than one request.
        database: Its PostgreSQL.
    """

    name: str
    what: str
    durable: str
    place: Place
    pid: int
    cold_start_s: float
    targets: Mapping[str, Target] = field(default_factory=dict)
    userinfo: str = ""
    introspection: str = ""
    warm_s: float = 0.5
    code: Callable[[], str] | None = None
    database: PostgresCluster | None = None

    def cpu_s(self) -> tuple[float, float]:
        """CPU that its processes, and its database's, have used so far."""
        database = self.database.pid if self.database is not None else None
        return usage.cpu_s(self.pid), usage.cpu_s(database) if database is not None else 0.0

    def pss_mb(self) -> float:
        """Memory of all its processes, without the database's."""
        return sum(usage.memory(pid).pss_mb for pid in usage.tree(self.pid))

    def codes(self, asking: Clients, count: int, seconds: float) -> list[str]:
        """Codes for the signed-in user, as many as it gives in so many seconds."""
        if self.code is None:
            return asking.ask(self.place, "authorize", [""] * count, seconds=seconds).got
        end, codes = time.monotonic() + seconds, []
        while len(codes) < count and time.monotonic() < end:
            codes.append(self.code())
        return codes

    def target(self, row: str, access_token: str) -> Target | None:
        """What wrk asks for in a row."""
        url = f"http://localhost:{self.place.port}"
        if row == "userinfo" and self.userinfo:
            return Target(url + self.userinfo, authorization=f"Bearer {access_token}")
        if row == "introspection" and self.introspection:
            url = self.introspection if "://" in self.introspection else url + self.introspection
            body = urlencode({"token": access_token})
            return Target(url, "POST", body=body, authorization=clients.BASIC)
        return self.targets.get(row)


def documents(port: int, discovery: str, jwks: str) -> dict[str, Target]:
    """The two documents, as targets."""
    url = f"http://localhost:{port}"
    return {"discovery": Target(url + discovery), "JWKS": Target(url + jwks)}


def for_itself(port: int, token: str, **form: str) -> Target:
    """A token by `client_credentials`, as a target."""
    body = urlencode({"grant_type": "client_credentials"} | form)
    return Target(f"http://localhost:{port}{token}", "POST", body=body, authorization=clients.BASIC)


@dataclass(frozen=True)
class Server:
    """A process that answers."""

    process: subprocess.Popen[bytes]
    port: int
    start_s: float


@contextlib.contextmanager
def port() -> Iterator[int]:
    """A loopback port that nobody else is given."""
    with contextlib.closing(hold_port()) as holder:
        yield holder.getsockname()[1]


@contextlib.contextmanager
def server(
    command: Sequence[str | Path],
    at: int,
    ready: str,
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_s: float = 60.0,
) -> Iterator[Server]:
    """Start a server, wait until it answers 200, and end all of it by its own process ids.

    Args:
        command: Program and arguments.
        at: Its loopback port.
        ready: The path that is asked for.
        folder: For its log.
        environ: More of its environment.
        cwd: Its folder.
        limit_s: How long it may take to answer.

    Raises:
        Absent: When it does not; the message has the end of its log.
    """
    log_path = folder / f"log-{at}.txt"
    start = time.monotonic()
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd or folder,
            env=clean_environment(**(environ or {})),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _answers(at, ready):
            if process.poll() is not None or time.monotonic() - start > limit_s:
                said = log_path.read_text(errors="replace")[-2000:]
                raise Absent(f"it did not start: {said}")
            time.sleep(_POLL_S)
        yield Server(process, at, time.monotonic() - start)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that descend from it."""
    family = usage.tree(process.pid)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    for pid in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _answers(at: int, path: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return call(at, "GET", path).status == 200
    return False


@dataclass(frozen=True)
class Reply:
    """An answer to `call`."""

    status: int
    body: bytes
    cookies: str
    location: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def call(
    at: int,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request, for setting a provider up.

    Args:
        at: The loopback port.
        method: HTTP method.
        path: Path and query.
        body: Text is sent as a form, anything else as JSON.
        headers: More headers.
    """
    given = dict(headers or {})
    if body is not None:
        given["Content-Type"] = clients.FORM if isinstance(body, str) else "application/json"
        body = body if isinstance(body, str) else json.dumps(body)
    wire = http.client.HTTPConnection("localhost", at, timeout=30)
    with contextlib.closing(wire):
        wire.request(method, path, body, given)
        answer = wire.getresponse()
        cookies = [line.split(";")[0] for line in answer.headers.get_all("Set-Cookie") or []]
        return Reply(answer.status, answer.read(), "; ".join(cookies), answer.headers["Location"] or "")
