"""gunicorn's worker classes compared with each other, and another server under the same WSGI callable.

One server runs at a time; the rounds are interleaved. Three questions: how many HS256 mints a second and at which
CPU, how long the server takes to stop, and whether clients that dawdle keep others from being answered.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import machine, report, servers, slow, starts, usage, wrk
from bench.providers.ours import fast_parser
from bench.ratios import ROUNDS, SECONDS
from tests.support.gunicorn import Gunicorn

Server = Gunicorn | servers.Granian
#: BENCH_SLOW=0 leaves the slow clients out, which take minutes and do not depend on the machine.
SLOW = os.environ.get("BENCH_SLOW") != "0"
_IDLE_CONNECTIONS = 4
_START_S = 10.0
_RECORD = machine.PROJECT / "docs/decisions/0004-worker-class.md"


@dataclass(frozen=True)
class Candidate:
    """One way to run the service with two workers.

    Attributes:
        name: Its row.
        argv: gunicorn's arguments, or granian's.
        granian: Whether it is granian with its own WSGI interface.
        server: What of ours starts it: `gunicorn`, or `granian` as `pylon-oidc serve` runs it.
        in_c: Whether gunicorn parses by its extra `fast`.
        uwsgi: Whether nginx speaks the uwsgi protocol with it.
    """

    name: str
    argv: tuple[str, ...] = ()
    granian: bool = False
    server: str = "gunicorn"
    in_c: bool = False
    uwsgi: bool = False


def gthread(threads: int, keepalive_s: int = 0) -> Candidate:
    """gunicorn's threaded worker."""
    return _threaded("gthread", "gthread", threads, keepalive_s)


def ours(threads: int, keepalive_s: int = 0) -> Candidate:
    """The worker of `service/serving`, which answers in its loop when it has one thread."""
    return _threaded("ours", "service.serving.worker.BufferingWorker", threads, keepalive_s)


def _threaded(name: str, worker_class: str, threads: int, keepalive_s: int) -> Candidate:
    name += f", {threads}{', keep-alive' if keepalive_s else ''}"
    argv = ["--worker-class", worker_class, "--threads", str(threads), "--keep-alive", str(keepalive_s)]
    return Candidate(name, tuple(argv))


SYNC = Candidate("sync", ("--worker-class", "sync"))
GRANIAN = Candidate("granian, WSGI", ("--blocking-threads", "1"), granian=True)
SERVED = Candidate("granian, as served", server="granian")
KEPT = ours(1, 15)
IN_C = replace(KEPT, name="the same, parser in C", in_c=True)
REUSE_PORT = replace(KEPT, name="the same, reuse_port", argv=(*KEPT.argv, "--reuse-port"))
UWSGI = Candidate("sync, uwsgi", ("--worker-class", "sync", "--protocol", "uwsgi"), uwsgi=True)
DIRECTLY = [
    SYNC, gthread(2, 5), gthread(16, 75), ours(1), KEPT, IN_C, REUSE_PORT, ours(4, 15), ours(16, 75), GRANIAN, SERVED,
]  # fmt: skip
#: nginx closes its idle connections after 10 s: the server's own limit is longer, or there is none.
BEHIND_NGINX = [
    SYNC, UWSGI, gthread(2), gthread(2, 15), ours(1), KEPT, IN_C, ours(4, 15), GRANIAN, SERVED,
]  # fmt: skip
DAWDLED_AT = [SYNC, gthread(16), gthread(32), ours(1, 15), ours(16, 75), GRANIAN, SERVED]


@dataclass(frozen=True)
class Round:
    """One candidate in one round.

    Attributes:
        load: What came back.
        app_us: CPU of one mint.
        busier: Which part of the work the busier of the two workers did, while four clients asked.
        stop_s: From SIGTERM to the exit.
    """

    load: wrk.Load
    app_us: float
    busier: float
    stop_s: float


def main(*, record: bool = False) -> int:
    """Run it, print it, write it.

    Args:
        record: Whether the decision record gets the tables too.
    """
    wrk.check_installed()
    fast_parser()
    described = machine.describe()
    with starts.scratch() as name:
        folder = Path(name)
        tokens = _tokens(folder)
        directly: dict[str, list[Round]] = {one.name: [] for one in DIRECTLY}
        proxied: dict[str, list[Round]] = {one.name: [] for one in BEHIND_NGINX}
        for number in range(1, ROUNDS + 1):
            for one in DIRECTLY:
                _say(f"round {number} of {ROUNDS}, directly: {one.name}")
                directly[one.name].append(_directly(one, folder, tokens))
            for one in BEHIND_NGINX:
                _say(f"round {number} of {ROUNDS}, behind nginx: {one.name}")
                proxied[one.name].append(_behind_nginx(one, folder, tokens))
        dawdled = _dawdled(folder, tokens) if SLOW else {}
    text = _text(described, directly, proxied, dawdled)
    print(text)
    data = {
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "directly": {name: [asdict(one) for one in rounds] for name, rounds in directly.items()},
        "behind_nginx": {name: [asdict(one) for one in rounds] for name, rounds in proxied.items()},
        "slow_clients": {
            name: {kind: asdict(seen) for kind, seen in kinds.items()} for name, kinds in dawdled.items()
        },
    }
    path = report.write("workers", described, data, text)
    print(f"\nWritten to {path.relative_to(machine.PROJECT)} and .json")
    if record:
        report.record(_RECORD, text.partition("\n\n")[2].replace("\n## ", "\n### "))
    return 0


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _tokens(folder: Path) -> Path:
    with servers.ours("HS256", folder / "data") as server:
        return servers.sign_in(server, folder / "tokens")


@contextlib.contextmanager
def _running(one: Candidate, folder: Path, *, unix: bool = False) -> Iterator[tuple[Server, Path]]:
    """A candidate that answers, and its socket where it has one."""
    path = folder / "granian.sock"
    if one.granian:
        path.unlink(missing_ok=True)
        settings = servers.settings("HS256", folder / "data")
        with servers.Granian(settings, unix=path if unix else None, argv=one.argv) as server:
            yield server, path
    else:
        parser = fast_parser() if one.in_c else None
        more = {"PYTHONPATH": str(parser)} if parser else {}
        argv = (
            one.argv
            if one.server == "granian"
            else (*one.argv, "--http-parser", "fast" if parser else "python")
        )
        with servers.ours(
            "HS256", folder / "data", unix=unix, argv=argv, server=one.server, wait=not one.uwsgi, more=more
        ) as server:
            end = time.monotonic() + _START_S
            while one.uwsgi and len(server.worker_pids()) < 2 and time.monotonic() < end:
                time.sleep(0.1)  # it does not answer HTTP
            yield server, server.socket_path or path


def _directly(one: Candidate, folder: Path, tokens: Path) -> Round:
    with _running(one, folder) as (server, _):
        measured = _load(servers.mint(server, tokens), server)
        with _kept_alive(server.port):
            return Round(*measured, _stop_s(server))


def _behind_nginx(one: Candidate, folder: Path, tokens: Path) -> Round:
    with _running(one, folder, unix=True) as (server, path), servers.site(path) as site:
        target = servers.mint(site, tokens, servers.BY_UWSGI if one.uwsgi else servers.MINT)
        return Round(*_load(target, server), _stop_s(server))


def _load(target: wrk.Target, server: Server) -> tuple[wrk.Load, float, float]:
    wrk.run(target, 1)
    before = usage.cpu_s(server.pid)
    load = wrk.run(target, SECONDS)
    app_us = (usage.cpu_s(server.pid) - before) / load.requests * 1e6
    family = usage.tree(server.pid)
    idle = [usage.own_cpu_s(pid) for pid in family]
    wrk.run(target, 1, connections=4)
    used = [usage.own_cpu_s(pid) - start for pid, start in zip(family, idle, strict=True)]
    return load, app_us, max(used) / max(sum(used), 0.01)


@contextlib.contextmanager
def _kept_alive(port: int) -> Iterator[None]:
    """A few clients that have been answered, and keep their connections where they may."""
    with contextlib.ExitStack() as stack:
        for _ in range(_IDLE_CONNECTIONS):
            wire = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wire.recv(65536)
        yield


def _stop_s(server: Server) -> float:
    start = time.monotonic()
    server.stop()
    return time.monotonic() - start


def _dawdled(folder: Path, tokens: Path) -> dict[str, dict[str, slow.Seen]]:
    seen: dict[str, dict[str, slow.Seen]] = {}
    for one in DAWDLED_AT:
        seen[one.name] = {}
        for kind in slow.KINDS:
            _say(f"20 slow clients, {kind}: {one.name}")
            with _running(one, folder) as (server, _):
                seen[one.name][kind] = slow.watch(
                    slow.to_port(server.port), kind, host="localhost", tokens=tokens
                )
    behind = "sync, behind nginx"
    with _running(SYNC, folder, unix=True) as (_, path), servers.site(path) as site:
        _say(f"20 slow clients: {behind}")
        seen[behind] = {
            kind: slow.watch(site.connect, kind, host=site.authority, tokens=tokens) for kind in slow.KINDS
        }
    return seen


def _text(
    described: dict[str, Any],
    directly: dict[str, list[Round]],
    proxied: dict[str, list[Round]],
    dawdled: dict[str, dict[str, slow.Seen]],
) -> str:
    head = ["", "/s", "app µs", "/ sync", "p50", "p99", "busier", "stop", "err."]
    slow_rows = [
        [
            name,
            *(f"{one.answered}/{one.asked} {report.number(one.slowest_ms)}" for one in kinds.values()),
        ]
        for name, kinds in dawdled.items()
    ]
    return "\n".join(
        [
            f"# Worker classes, {described['date']}",
            "",
            report.about(described),
            "",
            f"HS256 mints, 2 workers, wrk with {wrk.CONNECTIONS} connections; {ROUNDS} interleaved rounds of "
            f"{SECONDS:g} s, medians, one server at a time. `app µs` is CPU of the server's processes for one mint, "
            "`/ sync` the same as a ratio, `/s` mints a second, `p50` and `p99` ms, `busier` the part of the work that one of the two workers did while only "
            "four clients asked, `stop` the seconds from SIGTERM to the exit, with idle kept-alive connections open where the "
            "server keeps them.",
            "",
            "## Directly, over TCP",
            "",
            report.table(head, _rows(directly)),
            "",
            "## Behind the nginx site, over a Unix socket",
            "",
            report.table(head, _rows(proxied)),
            "",
            f"## {slow.CLIENTS} slow clients",
            "",
            f"How many requests for discovery, asked one after the other during {slow.WINDOW_S:g} s, were answered "
            "within 2 s, and how long the slowest of those took in ms. A number after a class is its threads.",
            "",
            report.table(["", "silent", "slow head", "slow body", "does not close"], slow_rows)
            if slow_rows
            else "Not run.",
        ]
    )


def _rows(measured: dict[str, list[Round]]) -> list[list[str]]:
    def median(rounds: list[Round], of: Callable[[Round], float]) -> float:
        return statistics.median(of(one) for one in rounds)

    rows = []
    for name, rounds in measured.items():
        beside = [one.app_us / sync.app_us for one, sync in zip(rounds, measured[SYNC.name], strict=True)]
        rows.append(
            [
                name,
                report.number(median(rounds, lambda one: one.load.rate)),
                report.number(median(rounds, lambda one: one.app_us)),
                f"{statistics.median(beside):.2f} ×",
                report.number(median(rounds, lambda one: one.load.p50_ms), 1),
                report.number(median(rounds, lambda one: one.load.p99_ms), 1),
                f"{100 * median(rounds, lambda one: one.busier):.0f} %",
                report.number(median(rounds, lambda one: one.stop_s), 2),
                str(sum(one.load.errors for one in rounds)),
            ]
        )
    return rows
