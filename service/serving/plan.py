"""How the service is served, the same under both servers: where it listens, by how many, and how long anything may take.

gunicorn's configuration and granian's start are read off this; neither decides anything of it for itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: Requests under way at a stop may finish within this; then the process ends.
GRACEFUL_S: Final = 25
#: How long a worker that stops waits for a request on a connection that has sent nothing of one.
STOPPING_S: Final = 2.0
#: A request that has taken longer has hung: its worker is replaced.
HUNG_S: Final = 30
#: The whole head of a request, and the whole body, each.
HEAD_S: Final = 10.0
BODY_S: Final = 10.0
#: What is taken of a line of a head, and of its fields. An authorization request carries an id_token_hint of 2 KB and
#: more: gunicorn's default of 4,094 bytes a line would answer 414.
MAX_LINE_BYTES: Final = 8190
MAX_FIELDS: Final = 64

#: Threads of a worker for requests that may wait for somebody else's write. They never keep those waiting that only read.
WRITERS: Final = 8
#: What only reads: by its whole path, or by how it ends under the issuer's.
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_READS: Final = ("/oidc/jwks", "/oidc/userinfo", "/oidc/introspect", "/api/auth/me", "/api/auth/jwt")
_ASKING: Final = frozenset({"GET", "HEAD", "POST"})
_NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", re.ASCII)


class NoAddress(ValueError):
    """What should be listened on is no address."""


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: a name or an address; None for a Unix socket.
        port: 0 lets the system pick one.
        path: of a Unix socket.
    """

    host: str | None = None
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        """As gunicorn is given it."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address in `HOST:PORT`, `[IPv6]:PORT` or `unix:/path`.

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
    """What is decided.

    Attributes:
        address: where it listens.
        workers: processes.
        threads: requests that a worker answers at a time of those that only read; with 1 it does so in its loop.
        keepalive_s: how long an idle connection is kept for another request.
        forwarded_allow_ips: proxies whose headers gunicorn believes, as it writes them.
    """

    address: Address
    workers: int
    threads: int
    keepalive_s: int
    forwarded_allow_ips: str


def plan(environ: Mapping[str, str] | None = None) -> Plan:
    """The plan of an environment: `PORT` and `WEB_CONCURRENCY` as a platform sets them.

    A wrong value counts as none here: the application tells it, with all other faults.
    """
    environ = os.environ if environ is None else environ
    trusted = environ.get("FORWARDED_ALLOW_IPS") or "127.0.0.1,::1"
    port = _whole_number(environ.get("PORT", ""), 65535)
    # A mint is CPU for a few hundred microseconds: a worker a core, and two at least so that one slow request does
    # not stop the service.
    workers = _whole_number(environ.get("WEB_CONCURRENCY", ""), 1024) or max(2, len(os.sched_getaffinity(0)))
    if port:
        # A platform sends its router to the port, and its database is another machine: while one request waits for
        # that, others go on. Its router keeps its connections for longer than most routers do.
        return Plan(Address("0.0.0.0", port), workers, 8, 75, trusted)  # noqa: S104
    # Without one only this machine may ask. A local database answers a read at once: one at a time is the least CPU for
    # one.
    return Plan(Address("127.0.0.1", 4321), workers, 1, 15, trusted)


def only_reads(method: str, target: str) -> bool:
    """Whether a request never waits for another one's write, by what it asks for."""
    path = target.partition("?")[0]
    if method not in _ASKING:
        return False
    return path in _HEALTH or path.endswith(_READS) or "/.well-known/" in path


def is_read_by_gunicorn(environ: Mapping[str, str] | None = None) -> bool:
    """Whether gunicorn can begin: it reads `WEB_CONCURRENCY` for itself, before anything of ours, and stops at a word."""
    environ = os.environ if environ is None else environ
    try:
        int(environ.get("WEB_CONCURRENCY", "1"))
    except ValueError:
        return False
    return True


def _whole_number(value: str, most: int) -> int | None:
    return int(value) if _NUMBER.fullmatch(value) and 1 <= int(value) <= most else None
