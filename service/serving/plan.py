"""How the service is served under either server: the address, the number of workers and threads, and all time limits.

gunicorn's configuration and granian's start both take their values from here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

#: How long running requests may take to finish when the process stops.
GRACEFUL_S: Final = 25
#: How long a worker that stops waits for a request on an idle connection.
STOPPING_S: Final = 2.0
#: A request that takes longer has hung, and its worker is replaced.
HUNG_S: Final = 30
#: For the whole head of a request, and again for the whole body.
HEAD_S: Final = 10.0
BODY_S: Final = 10.0
#: The longest line of a head, and the most fields. An authorization request can have an id_token_hint of 2 KB or
#: more, and gunicorn's default of 4,094 bytes for a line would answer 414.
MAX_LINE_BYTES: Final = 8190
MAX_FIELDS: Final = 64

#: Threads of a worker for requests that wait for another request's write. Requests that only read never wait for them.
WRITERS: Final = 8
#: On SQLite, requests that may write run one at a time, which costs the least. The next one starts when the last one has
#: taken this long, in s.
SLOW_S: Final = 0.02
#: How long a request may keep the loop of a worker, in s. Then another thread continues the loop.
PATIENT_S: Final = 0.01
#: How long requests that may write have threads of their own after one has kept the loop, in s.
WARY_S: Final = 1.0
#: The requests that only read: by the whole path, or by its end below the issuer's path.
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_READS: Final = ("/oidc/jwks", "/oidc/userinfo", "/api/auth/me", "/api/auth/jwt")
#: It reads too, unless its client shows a signed assertion: that is noted, and may wait for the client's keys.
_READS_FOR_SOME: Final = "/oidc/introspect"
_ASSERTION: Final = b"client_assertion"
#: Of all grant types, this one stores nothing, and no code or token is used up.
_TOKENS: Final = "/oidc/token"
_GRANT_TYPE: Final = b"grant_type"
_CLIENT_CREDENTIALS: Final = b"grant_type=client_credentials"
_ASKING: Final = frozenset({"GET", "HEAD", "POST"})
_NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", re.ASCII)


class NoAddress(ValueError):
    """The address to listen on is malformed."""


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: a name or an IP address; None for a Unix socket.
        port: 0 lets the system pick one.
        path: of a Unix socket.
    """

    host: str | None = None
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        """The address in gunicorn's notation."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`.

    Raises:
        NoAddress: for anything else.
    """
    if text.startswith("unix:") and len(text) > len("unix:") and "\0" not in text:
        return Address(path=text.removeprefix("unix:").removeprefix("//"))
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > 65535:
        raise NoAddress(text)
    return Address(host=found[1] or found[2], port=int(found[3]))


@dataclass(frozen=True)
class Plan:
    """The decisions of `plan`.

    Attributes:
        address: where the server listens.
        workers: number of processes.
        threads: how many read-only requests a worker answers at the same time; with 1, and on SQLite, it answers them
            in its loop.
        keepalive_s: how long an idle connection is kept for another request.
        forwarded_allow_ips: proxies whose headers gunicorn believes, in its notation.
    """

    address: Address
    workers: int
    threads: int
    keepalive_s: int
    forwarded_allow_ips: str


def plan(environ: Mapping[str, str] | None = None) -> Plan:
    """Make the plan from an environment, with `PORT` and `WEB_CONCURRENCY` as a platform sets them.

    A wrong value is ignored here: the application reports it, together with all other faults.
    """
    environ = os.environ if environ is None else environ
    trusted = environ.get("FORWARDED_ALLOW_IPS") or "127.0.0.1,::1"
    port = _whole_number(environ.get("PORT", ""), 65535)
    # Minting a token takes a few hundred microseconds of CPU: one worker for each core, and at least two, so that one slow
    # request does not stop the service.
    workers = _whole_number(environ.get("WEB_CONCURRENCY", ""), 1024) or max(2, len(os.sched_getaffinity(0)))
    if port:
        # The platform's router connects to this port, and its PostgreSQL is on another machine: while one request waits for
        # the database, others continue. Idle connections are kept longer than most routers keep them.
        return Plan(Address("0.0.0.0", port), workers, 8, 75, trusted)  # noqa: S104
    # Without a port, only this machine may connect. A local database answers a read at once: one at a time takes the
    # least CPU.
    return Plan(Address("127.0.0.1", 4321), workers, 1, 15, trusted)


def _is_client_credentials(body: bytes) -> bool:
    """Whether a form can be nothing else: written without escapes, named once, and without an assertion."""
    if _CLIENT_CREDENTIALS not in body.split(b"&"):
        return False
    plain = unquote_to_bytes(body)
    return plain.count(_GRANT_TYPE) == 1 and _ASSERTION not in plain


def only_reads(method: str, target: str, body: bytes | None = b"") -> bool:
    """Whether a request never waits for another request's write, or for another machine.

    Args:
        method: its method.
        target: its target.
        body: its decoded body; None if it is not known.
    """
    path = target.partition("?")[0]
    if method not in _ASKING:
        return False
    if path.endswith(_READS_FOR_SOME):
        return body is not None and _ASSERTION not in unquote_to_bytes(body)
    if path.endswith(_TOKENS):
        return body is not None and _is_client_credentials(body)
    return path in _HEALTH or path.endswith(_READS) or "/.well-known/" in path


def writes_in_turn(app: object) -> bool:
    """Whether an application wants requests that may write to run one at a time. One that does not say so does not."""
    return bool(getattr(app, "writes_in_turn", False))


def is_read_by_gunicorn(environ: Mapping[str, str] | None = None) -> bool:
    """Whether gunicorn can read `WEB_CONCURRENCY`: it does so before our code runs, and fails if it is not a number."""
    environ = os.environ if environ is None else environ
    try:
        int(environ.get("WEB_CONCURRENCY", "1"))
    except ValueError:
        return False
    return True


def _whole_number(value: str, most: int) -> int | None:
    return int(value) if _NUMBER.fullmatch(value) and 1 <= int(value) <= most else None
