"""The run of `make bench`: everything is up at once, asked one at a time, round by round.

A figure is the median of the rounds. A ratio is the median of the ratios of each round, whose two sides were
measured within a minute of each other.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import flows, flows_report, machine, report, servers, starts, usage, wrk
from bench.signatures import Signer
from tests.support.gunicorn import Gunicorn
from tests.support.nginx import NginxSite

SECONDS = float(os.environ.get("BENCH_SECONDS") or 4)
ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)


@dataclass(frozen=True)
class Case:
    """One thing to ask for.

    Attributes:
        name: Its row.
        target: What is asked.
        app_pid: The first process of the application's server; None where there is none.
        proxy_pid: nginx's; None where it is asked directly.
    """

    name: str
    target: wrk.Target
    app_pid: int | None
    proxy_pid: int | None = None


@dataclass(frozen=True)
class Result:
    """One case in one round: load, and the CPU of a request in µs."""

    load: wrk.Load
    app_us: float | None
    proxy_us: float | None


@dataclass(frozen=True)
class Goal:
    """A figure and what it should be."""

    name: str
    value: float
    bound: float
    at_most: bool
    unit: str = "×"

    @property
    def reached(self) -> bool:
        """Whether it is as it should be."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def measure(case: Case, seconds: float) -> Result:
    """Load one case, and count the CPU that its servers used meanwhile."""

    def used() -> list[float]:
        return [0.0 if pid is None else usage.cpu_s(pid) for pid in (case.app_pid, case.proxy_pid)]

    before = used()
    load = wrk.run(case.target, seconds)
    app, proxy = ((after - start) / load.requests * 1e6 for after, start in zip(used(), before, strict=True))
    return Result(load, None if case.app_pid is None else app, None if case.proxy_pid is None else proxy)


def _cases(stack: contextlib.ExitStack, folder: Path) -> list[Case]:
    """Start everything. The gunicorns of one algorithm share a database, so one file of tokens fits all."""

    def gunicorn(alg: str, *, unix: bool = False) -> Gunicorn:
        return stack.enter_context(servers.ours(alg, folder / "data", unix=unix))

    hs256, rs256 = gunicorn("HS256"), gunicorn("RS256")
    hs256_unix, rs256_unix = gunicorn("HS256", unix=True), gunicorn("RS256", unix=True)
    tokens = servers.sign_in(hs256, folder / "tokens")
    size = len(servers.mint_once(hs256, tokens).body)
    servers.mint_once(rs256, tokens)
    bare = stack.enter_context(servers.bare(size))
    bare_unix = stack.enter_context(servers.bare(size, unix=True))
    discovery = rs256.call("GET", servers.DISCOVERY).body

    def behind(server: Gunicorn) -> NginxSite:
        assert server.socket_path is not None
        return stack.enter_context(servers.site(server.socket_path, discovery))

    hs256_site, rs256_site, bare_site = behind(hs256_unix), behind(rs256_unix), behind(bare_unix)

    def get(server: Gunicorn | NginxSite, path: str) -> wrk.Target:
        return wrk.Target(servers.url(server, path))

    def pid(site: NginxSite) -> int:
        assert site.process is not None
        return site.process.pid

    return [
        Case("bare Falcon, GET", get(bare, servers.BARE), bare.pid),
        Case("mint HS256", servers.mint(hs256, tokens), hs256.pid),
        Case("bare Falcon, POST", wrk.Target(servers.url(bare, servers.BARE), "POST", tokens), bare.pid),
        Case("mint RS256", servers.mint(rs256, tokens), rs256.pid),
        Case("discovery", get(rs256, servers.DISCOVERY), rs256.pid),
        Case("discovery by Host", get(hs256, servers.DISCOVERY), hs256.pid),
        Case("JWKS", get(rs256, servers.JWKS), rs256.pid),
        Case("nginx: a file", get(rs256_site, servers.FILE), None, pid(rs256_site)),
        Case("nginx: discovery", get(rs256_site, servers.DISCOVERY), rs256_unix.pid, pid(rs256_site)),
        Case("nginx: JWKS", get(rs256_site, servers.JWKS), rs256_unix.pid, pid(rs256_site)),
        Case("nginx: discovery by Host", get(hs256_site, servers.DISCOVERY), hs256_unix.pid, pid(hs256_site)),
        Case("nginx: bare Falcon, GET", get(bare_site, servers.BARE), bare_unix.pid, pid(bare_site)),
        Case("nginx: mint HS256", servers.mint(hs256_site, tokens), hs256_unix.pid, pid(hs256_site)),
        Case("nginx: mint RS256", servers.mint(rs256_site, tokens), rs256_unix.pid, pid(rs256_site)),
    ]


def main() -> int:
    """Run it, print it, write it.

    Returns:
        0; a target that is missed is said, and is no failure of the benchmark.
    """
    wrk.check_installed()
    flows.install()
    described = machine.describe()
    with starts.scratch() as name:
        folder = Path(name)
        _say("memory after load")
        memory = {
            f"{server}, {alg}": starts.memory_after_load(alg, folder, SECONDS, server)
            for server in ("gunicorn", "granian")
            for alg in ("HS256", "RS256")
        }
        _say("cold start")
        cold = starts.cold_start(folder)
        raw, results = _rounds(folder)
        next_to_peers = flows.run(folder)
    goals = _goals(described["cores"], raw, results, memory, cold)
    text = _text(described, raw, results, memory, cold, goals)
    text += f"\n\n# Next to other providers\n\n{flows_report.section(next_to_peers)}"
    print(text)
    data = {
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "raw_per_core": raw,
        "cases": {case: [_flat(result) for result in rounds] for case, rounds in results.items()},
        "memory": {server: asdict(one) for server, one in memory.items()},
        "cold_start": asdict(cold),
        "flows": asdict(next_to_peers),
        "targets": [asdict(goal) | {"reached": goal.reached} for goal in goals],
    }
    path = report.write("", described, data, text)
    print(f"\nWritten to {path.relative_to(machine.PROJECT)} and .json")
    return 0


def _rounds(folder: Path) -> tuple[dict[str, list[float]], dict[str, list[Result]]]:
    signer = Signer()
    signatures: Mapping[str, Callable[[float], float]] = {
        "RSA-2048": signer.rsa_2048,
        "HMAC-SHA256": signer.hmac_sha256,
    }
    raw: dict[str, list[float]] = {name: [] for name in signatures}
    with contextlib.ExitStack() as stack:
        cases = _cases(stack, folder)
        results: dict[str, list[Result]] = {case.name: [] for case in cases}
        for case in cases:
            measure(case, 1)  # warm: connections, caches, the first look-ups
        for number in range(1, ROUNDS + 1):
            for name, sign in signatures.items():
                raw[name].append(sign(min(1.0, SECONDS / 2)))
            for case in cases:
                _say(f"round {number} of {ROUNDS}: {case.name}")
                results[case.name].append(measure(case, SECONDS))
    return raw, results


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _flat(result: Result) -> dict[str, Any]:
    return asdict(result.load) | {"app_us": result.app_us, "proxy_us": result.proxy_us}


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _goals(
    cores: int,
    raw: dict[str, list[float]],
    results: dict[str, list[Result]],
    memory: dict[str, starts.MemoryAfterLoad],
    cold: starts.ColdStart,
) -> list[Goal]:
    def cpu(name: str) -> list[float]:
        return [result.app_us or 0.0 for result in results[name]]

    def rate(name: str) -> list[float]:
        return [result.load.rate for result in results[name]]

    def ratio(above: list[float], below: list[float]) -> float:
        return _median([a / b for a, b in zip(above, below, strict=True)])

    machine_raw = [one * cores for one in raw["RSA-2048"]]
    return [
        Goal(
            "mint HS256: CPU / bare Falcon GET",
            ratio(cpu("mint HS256"), cpu("bare Falcon, GET")),
            1.9,
            True,
        ),
        Goal(
            "mint HS256: CPU / bare POST, same headers",
            ratio(cpu("mint HS256"), cpu("bare Falcon, POST")),
            1.9,
            True,
        ),
        Goal(
            "mint RS256: rate / raw signatures, all cores",
            ratio(rate("mint RS256"), machine_raw),
            0.43,
            False,
        ),
        Goal("the same through nginx", ratio(rate("nginx: mint RS256"), machine_raw), 0.43, False),
        Goal(
            "discovery through nginx: rate / the file",
            ratio(rate("nginx: discovery"), rate("nginx: a file")),
            0.9,
            False,
        ),
        *(
            Goal(
                f"worker's memory (PSS), {server}",
                one.worker_pss_mb,
                35 if "gunicorn" in server else 60,
                True,
                "MB",
            )
            for server, one in memory.items()
        ),
        Goal("cold start, gunicorn, database there", cold.again_s, 0.7, True, "s"),
        Goal("cold start, gunicorn, empty data folder", cold.first_s, 0.7, True, "s"),
        Goal("cold start, pylon-oidc serve, database there", cold.serve_s, 1.1, True, "s"),
        Goal("pylon-oidc --help", cold.help_s, 0.2, True, "s"),
    ]


def _text(
    described: dict[str, Any],
    raw: dict[str, list[float]],
    results: dict[str, list[Result]],
    memory: dict[str, starts.MemoryAfterLoad],
    cold: starts.ColdStart,
    goals: list[Goal],
) -> str:
    rows = []
    for name, rounds in results.items():
        loads = [result.load for result in rounds]
        rows.append(
            [
                name,
                report.number(_median([load.rate for load in loads])),
                report.number(_over(rounds, "app_us")),
                report.number(_over(rounds, "proxy_us")),
                report.number(_median([load.p50_ms for load in loads]), 1),
                report.number(_median([load.p99_ms for load in loads]), 1),
                str(sum(load.errors for load in loads)),
            ]
        )
    goal_rows = [
        [
            goal.name,
            f"{goal.value:.2f} {goal.unit}",
            f"{'≤' if goal.at_most else '≥'} {goal.bound:g} {goal.unit}",
            "reached" if goal.reached else "MISSED",
        ]
        for goal in goals
    ]
    signatures = "; ".join(
        f"{name} {report.number(_median(values))} a second on one core ({1e6 / _median(values):.1f} µs)"
        for name, values in raw.items()
    )
    weights = "; ".join(
        f"{server} {one.worker_pss_mb:.1f} MB PSS ({one.worker_private_mb:.1f} MB of it shared with nobody), "
        f"master {one.master_pss_mb:.1f} MB"
        for server, one in memory.items()
    )
    head = ["", "/s", "app µs", "nginx", "p50", "p99", "err."]
    return "\n".join(
        [
            f"# Benchmark, {described['date']}",
            "",
            report.about(described),
            "",
            f"gunicorn by `deploy/gunicorn.conf.py` with 2 workers; wrk with {wrk.CONNECTIONS} connections; "
            f"{ROUNDS} interleaved rounds of {SECONDS:g} s, medians. `app µs` and `nginx` are CPU for one request, in µs, "
            "`/s` requests a second, `p50` and `p99` ms.",
            "",
            report.table(["target", "measured", "wanted", ""], goal_rows),
            "",
            report.table(head, rows),
            "",
            f"Raw signatures: {signatures}.",
            "",
            f"Memory of the heavier of two workers after load: {weights}.",
            "",
            f"Cold start, median of 5, environment: {cold.environment}: {cold.again_s:.2f} s with the database "
            f"there, {cold.first_s:.2f} s with an empty data folder (it is migrated first); by `pylon-oidc serve` "
            f"{cold.serve_s:.2f} s. `pylon-oidc --help`: {cold.help_s:.2f} s.",
        ]
    )


def _over(rounds: list[Result], name: str) -> float | None:
    values = [value for result in rounds if (value := getattr(result, name)) is not None]
    return _median(values) if values else None
