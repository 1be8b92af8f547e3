"""What each work costs with 1,000,000 sessions and grants and 100,000 clients, compared with 1,000 and 10.

The rows are written by SQL. Each size has a database of its own; all are asked in turn, in this process and without a
server, so that CPU is all that counts: of this process, and of PostgreSQL.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from bench import in_process, machine, plots, profile, report, starts, usage
from bench.in_process import Service
from bench.providers.base import DURABLE
from tests.storage.stores import migrate
from tests.support.postgres import PostgresCluster

BOUND = 1.2
#: Sessions and grants each, and clients.
SIZES = tuple(
    (int(sessions), int(clients))
    for sessions, _, clients in (
        pair.partition(":")
        for pair in (os.environ.get("BENCH_SIZES") or "1000:10,30000:1000,1000000:100000").split(",")
    )
)
_CALLS = int(os.environ.get("BENCH_CALLS") or 200)
_ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 5)
_USERS = 200
#: What standard error is before the log of the service takes its place.
_SAID = os.fdopen(os.dup(2), "w")
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
_FAR = 9_007_199_254_740_992
_DAY_S = 86_400


@dataclass(frozen=True)
class Grown:
    """One database.

    Attributes:
        sessions, clients: How many there are; of grants and users as many as of sessions.
        filled_s: How long that took.
        cost_us: CPU of a request, by work, one a round.
    """

    sessions: int
    clients: int
    filled_s: float
    cost_us: dict[str, list[float]]


def main() -> int:
    """Run it, print it, write it."""
    described = machine.describe()
    with starts.scratch() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(profile.log_into(folder / "log"))
        database = stack.enter_context(PostgresCluster(settings=DURABLE))
        grown = {
            "SQLite": _measure(folder / "sqlite", None),
            "PostgreSQL": _measure(folder / "postgres", database),
        }
    text = _text(described, grown)
    print(text)
    data = {database: [asdict(one) for one in of] for database, of in grown.items()}
    path = report.write("growth", described, {"growth": data}, text)
    _draw(path, grown)
    print(f"\nWritten to {path.relative_to(machine.PROJECT)}, .json and .svg")
    return 0


def ratio(of: list[Grown], work: str, number: int) -> float:
    """The cost of a work with one size, compared with the smallest: the median of the rounds."""
    both = zip(of[number].cost_us[work], of[0].cost_us[work], strict=True)
    return statistics.median([large / small for large, small in both])


def _measure(folder: Path, database: PostgresCluster | None) -> list[Grown]:
    folder.mkdir()
    services: list[Service] = []
    grown: list[Grown] = []
    for sessions, clients in SIZES:
        _say(f"{folder.name}: {sessions:,} sessions, {clients:,} clients")
        began = time.monotonic()
        home = folder / str(sessions)
        home.mkdir()
        url = database.create_database() if database else f"sqlite:///{home / 'pylon.db'}"
        migrate(url)
        with _connected(url) as run:
            _fill(run, sessions, clients, sqlite=database is None)
        services.append(
            Service("RS256", home, registered=True, database_url=url if database else None, users=_USERS)
        )
        grown.append(Grown(sessions, clients, time.monotonic() - began, {}))
    for work in in_process.FLOWS:
        for service in services:
            _cost_us(service, work, database)  # warm: caches, connections, statements
        for number in range(1, _ROUNDS + 1):
            _say(f"{folder.name}: {work}, round {number} of {_ROUNDS}")
            for one, service in zip(grown, services, strict=True):
                one.cost_us.setdefault(work, []).append(_cost_us(service, work, database))
    for service in services:
        service.store.close()
    return grown


def _cost_us(service: Service, work: str, database: PostgresCluster | None) -> float:
    """CPU of a request: of this process, and of its PostgreSQL's, without what that does in the background."""
    requests = in_process.FLOWS[work](service, _CALLS)

    def used_s() -> float:
        theirs = database.execute(_BACKENDS) if database is not None else []
        return time.process_time() + sum(usage.precise_cpu_s(pid) for (pid,) in theirs)

    began_s = used_s()
    for request in requests:
        in_process.ask(service.app, request)
    return (used_s() - began_s) / len(requests) * 1e6


@contextlib.contextmanager
def _connected(url: str) -> Iterator[object]:
    """What runs a statement on a database."""
    if url.startswith("sqlite:"):
        with contextlib.closing(
            sqlite3.connect(urlsplit(url).path.removeprefix("/"), isolation_level=None)
        ) as sqlite:
            sqlite.execute("PRAGMA cache_size = -1000000")
            sqlite.execute("PRAGMA synchronous = OFF")
            yield sqlite.execute
            sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    else:
        with psycopg.connect(url, autocommit=True) as postgres:
            yield postgres.execute


def _fill(run, sessions: int, clients: int, *, sqlite: bool) -> None:  # type: ignore[no-untyped-def]
    """Sessions, grants, users and clients that look as the service writes them; indexes are made afterwards."""
    now = int(time.time())
    rand = {size: f"lower(hex(randomblob({size})))" if sqlite else _random(size) for size in (11, 13, 32)}
    session = {
        "claims": {"name": "Ada Byron", "email": "ada@example.com"},
        "auth_time": now,
        "lifetime_s": _DAY_S,
    }
    grant = {
        "issuer": "https://id.example.com", "scope": ["openid", "profile", "email", "offline_access"],
        "auth_time": now, "created_at": now, "code": {"challenge": "E" * 43, "spent_at": now, "hash": "h" * 22},
        "refresh": {"valid_until": now + _DAY_S, "fixed_hash": "f" * 22, "hash": "r" * 22, "made_at": now},
    }  # fmt: skip
    client = {
        "client_id": "other",
        "redirect_uris": ["https://example.com/cb"],
        "secrets": [["s" * 64, None]],
    }
    own = {"grant_id": "''", "version": "1", "expires_at": str(now + _DAY_S)}
    user = {"subject": "'user-' || i", "session_id": "'sid-' || i", "client_id": "''"}
    tokens = f"x'{'00' * 32}'" if sqlite else f"'\\x{'00' * 32}'"
    tables = {
        "session": (sessions, own | user | {"id_hash": rand[32], "body": _json(session)}),
        "user_record": (
            sessions,
            own
            | user
            | {"session_id": "''", "id_hash": rand[32], "expires_at": str(_FAR), "body": _json(session)},
        ),
        "client": (
            clients - 1,
            own
            | {"subject": "''", "session_id": "''", "client_id": "'client-' || i", "id_hash": rand[32]}
            | {"expires_at": str(_FAR), "body": _json(client)},
        ),
        "oauth_grant": (
            sessions,
            user
            | {
                "id_hash": rand[13],
                "client_id": f"'client-' || i % {clients}",
                "version": "2",
                "tokens": tokens,
            }
            | {"outlives_session": "true", "expires_at": str(now + _DAY_S), "body": _json(grant)},
        ),
    }
    for table, (count, values) in tables.items():
        indexes = _without_indexes(run, table, sqlite=sqlite)
        numbers = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
            if sqlite
            else f"WITH n AS (SELECT i FROM generate_series(1, {count}) AS i)"
        )
        columns, chosen = ", ".join(values), ", ".join(values.values())
        run(f"{numbers} INSERT INTO {table} ({columns}) SELECT {chosen} FROM n")
        for statement in indexes:
            run(statement)
        run(f"ANALYZE {table}" if sqlite else f"VACUUM ANALYZE {table}")
    if not sqlite:
        run("CHECKPOINT")  # what the filling left to do is done now


def _without_indexes(run, table: str, *, sqlite: bool) -> list[str]:  # type: ignore[no-untyped-def]
    """Drop the indexes of a table; what makes them again."""
    found = (
        f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}' AND sql IS NOT NULL"
        if sqlite
        else f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{table}' AND indexname LIKE 'ix_%'"
    )
    indexes = run(found).fetchall()
    for name, _ in indexes:
        run(f"DROP INDEX {name}")
    return [statement for _, statement in indexes]


def _random(size: int) -> str:
    return f"substr(md5(random()::text) || md5(random()::text), 1, {2 * size})"


def _json(value: object) -> str:
    return f"'{json.dumps(value)}'"


def _say(what: str) -> None:
    print(what, file=_SAID, flush=True)


def _text(described: dict[str, object], grown: dict[str, list[Grown]]) -> str:
    parts = [f"# Growth, {described['date']}", "", report.about(described), ""]
    sizes = "; ".join(f"{sessions:,} and {clients:,}" for sessions, clients in SIZES)
    parts += [
        f"CPU µs of a request, in one process, with so many sessions (users, grants) and clients: {sizes}. "
        f"{_ROUNDS} rounds of {_CALLS} requests of {_USERS} users in turn, medians; "
        f"the ratio of the largest to the smallest is the median of the rounds' ratios, wanted ≤ {BOUND}.",
    ]
    for database, of in grown.items():
        rows = []
        for work in in_process.FLOWS:
            grew = ratio(of, work, -1)
            figures = [report.number(statistics.median(one.cost_us[work])) for one in of]
            rows.append([work, *figures, f"{grew:.2f} ×", "reached" if grew <= BOUND else "MISSED"])
        head = [database, *(f"{one.sessions:,}" for one in of), "ratio", ""]
        filled = ", ".join(f"{one.filled_s:.0f} s" for one in of)
        parts += ["", report.table(head, rows), "", f"Filled in {filled}."]
    return "\n".join(parts)


def _draw(path: Path, grown: dict[str, list[Grown]]) -> None:
    for theme in (plots.LIGHT, plots.DARK):
        for database, of in grown.items():
            series = {
                work: [ratio(of, work, number) for number in range(len(of))] for work in in_process.FLOWS
            }
            ticks = [f"{one.sessions:,}" for one in of]
            title = f"CPU of a request by the number of sessions and grants, {database}"
            svg = plots.lines(theme, title, ticks, series, BOUND)
            name = f"{path.stem}-{database.lower()}-{theme.name}.svg"
            path.with_name(name).write_text(svg + "\n")
