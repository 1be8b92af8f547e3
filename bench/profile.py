"""Where the microseconds of each flow go: the WSGI callable in this process, without a server.

Requests are answered one after the other while a timer of this process's CPU takes samples of the stack; a sample
counts for the innermost function of ours that it holds, and for the library that this function had called. Sampling
leaves the speed of calls as it is, where a tracing profiler makes many small ones look dear.

It also shows what a request asks of the database: its statements, and the CPU of those.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from bench import bare, in_process, machine, report, servers, starts
from bench.in_process import Request, Service, Wsgi

_BATCH = 50
_CALLS = int(os.environ.get("BENCH_CALLS") or 2_000)
_SAMPLE_S = 0.001
_ROWS = int(os.environ.get("BENCH_ROWS") or 25)
_OURS = str(machine.PROJECT / "service") + os.sep
Seen = collections.Counter[tuple[str, str]]


@dataclass(frozen=True)
class Flow:
    """What one flow costs.

    Attributes:
        cpu_us: of a request.
        statements: that it asks the database.
        database_us: of their CPU, in this process.
        seen: samples by function of ours and library.
    """

    cpu_us: float
    statements: float
    database_us: float
    seen: Seen


class _Counting:
    """A connection that counts its statements and their CPU."""

    def __init__(self, connection: Any, counted: list[int]) -> None:
        self._connection, self._counted = connection, counted

    def execute(self, sql: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> Any:
        began = time.thread_time_ns()
        cursor = self._connection.execute(sql, values)
        rows = cursor.fetchall() if cursor.description else None
        self._counted.append(time.thread_time_ns() - began)
        return _Done(rows, cursor.rowcount)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _Done:
    def __init__(self, rows: list[Any] | None, count: int) -> None:
        self.description, self._rows, self.rowcount = rows is not None, rows, count

    def fetchall(self) -> list[Any]:
        return self._rows or []


def microseconds(app: Wsgi, requests: Sequence[Request]) -> float:
    """CPU of one request in µs: the median of batches, so that a disturbance does not count."""
    batches = []
    for first in range(0, len(requests), _BATCH):
        batch = requests[first : first + _BATCH]
        start = time.process_time_ns()
        for request in batch:
            in_process.ask(app, request)
        batches.append((time.process_time_ns() - start) / len(batch) / 1000)
    return statistics.median(batches)


def main() -> int:
    """Print the tables."""
    with starts.scratch() as name, log_into(Path(name) / "log"):
        small, flows = _measure(Path(name))
    print(f"load average {os.getloadavg()[0]:.2f}\n")
    print(report.table(["one request, CPU", "µs"], [[name, f"{value:.1f}"] for name, value in small.items()]))
    rows = [
        [name, f"{flow.cpu_us:.0f}", f"{flow.statements:.1f}", f"{flow.database_us:.0f}"]
        for name, flow in flows.items()
    ]
    print("\n" + report.table(["one request", "CPU µs", "statements", "their CPU µs"], rows))
    for name, flow in flows.items():
        print("\n" + _divided(name, flow))
    return 0


def _divided(name: str, flow: Flow) -> str:
    total = flow.seen.total()
    rows = [
        [ours, library, f"{flow.cpu_us * count / total:.1f}", f"{100 * count / total:.0f} %"]
        for (ours, library), count in flow.seen.most_common(_ROWS)
    ]
    return report.table([f"of {name}: function of ours", "in", "µs", "share"], rows)


@contextlib.contextmanager
def log_into(path: Path) -> Iterator[None]:
    """Let what is written to stderr go to a file, as under a server."""
    saved, log = os.dup(2), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(log)


def _measure(folder: Path) -> tuple[dict[str, float], dict[str, Flow]]:
    hs256, rs256 = Service("HS256", folder / "HS256"), Service("RS256", folder / "RS256")
    stored = Service("RS256", folder / "stored", registered=True)
    whole = {
        "bare Falcon": (bare.app, in_process.environ("GET", servers.BARE)),
        "healthz": (hs256.app, in_process.environ("GET", "/healthz")),
        "discovery": (rs256.app, in_process.environ("GET", servers.DISCOVERY)),
        "mint without a session (401)": (hs256.app, in_process.environ("POST", servers.MINT)),
    }
    small = {name: microseconds(app, [request] * _CALLS) for name, (app, request) in whole.items()}
    flows = {"mint HS256": _flow(hs256, Service.mints), "mint RS256": _flow(rs256, Service.mints)}
    for name, requests in in_process.FLOWS.items():
        if name != "mint":
            flows[name] = _flow(rs256, requests)
    for name in ("code exchange", "userinfo"):
        flows[f"{name}, client in the database"] = _flow(stored, in_process.FLOWS[name])
    return small, flows


def _flow(service: Service, requests: Callable[[Service, int], list[Request]]) -> Flow:
    microseconds(service.app, requests(service, _BATCH))  # warm: caches, connections
    cpu_us = microseconds(service.app, requests(service, _CALLS))
    seen = _sample(service.app, requests(service, _CALLS))
    asked = requests(service, _CALLS // 4)
    with _counted(service) as took_ns:
        for request in asked:
            in_process.ask(service.app, request)
    return Flow(cpu_us, len(took_ns) / len(asked), sum(took_ns) / len(asked) / 1000, seen)


@contextlib.contextmanager
def _counted(service: Service) -> Iterator[list[int]]:
    """What statements of the service take within the block, in ns of CPU."""
    database: Any = service.store._database
    plain, took_ns = database.connect, list[int]()
    service.store.close()
    database.connect = lambda: _Counting(plain(), took_ns)
    try:
        yield took_ns
    finally:
        service.store.close()
        database.connect = plain


def _sample(app: Wsgi, requests: Sequence[Request]) -> Seen:
    """Count samples by our innermost function and the library below it."""
    seen: Seen = collections.Counter()

    def take(_signal: int, frame: FrameType | None) -> None:
        library = ""
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(_OURS):
                where = code.co_filename.removeprefix(_OURS)
                seen[f"{where} {code.co_qualname}", library or "itself"] += 1
                return
            library = _library(code.co_filename)
            frame = frame.f_back
        seen["(the framework, and this loop)", library] += 1

    before = signal.signal(signal.SIGPROF, take)
    signal.setitimer(signal.ITIMER_PROF, _SAMPLE_S, _SAMPLE_S)
    try:
        for request in requests:
            in_process.ask(app, request)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return seen


def _library(filename: str) -> str:
    """The library of a file: the folder below `site-packages`, else the module of the standard library."""
    parts = Path(filename).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    if "json" in parts:
        return "json"
    return "itself" if filename.startswith("<") else Path(filename).stem


if __name__ == "__main__":
    sys.exit(main())
