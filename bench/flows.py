"""Every flow of ours next to five other providers: all up at once, asked one at a time, round by round.

Each gives a code at once to a browser that is signed in, signs ID tokens by RS256 and rotates refresh tokens; each runs
with its own best production setting. The same clients ask all of them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import clients, flows_report, machine, report, starts, wrk
from bench.clients import Clients
from bench.providers import base, dex, django, hydra, keycloak, node, ours
from bench.providers.base import ROWS, Absent, Provider
from bench.signatures import Signer
from bench.wire import NothingAnswered
from tests.support.postgres import PostgresCluster

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
SECONDS = float(os.environ.get("BENCH_FLOW_SECONDS") or 1)
#: How many codes a round begins with at most, and how long it may take to get them.
CODES = int(os.environ.get("BENCH_FLOWS") or 800)
_CODES_S = 3.0
_REFRESHES = 100_000
_IDLE_S = 2.0

_FAILURES = (Absent, NothingAnswered, wrk.WrkFailed, AssertionError, OSError, RuntimeError)
Started = Callable[[Path, PostgresCluster], AbstractContextManager[Provider]]


@dataclass(frozen=True)
class Result:
    """One row at one provider in one round.

    Attributes:
        rate: Answers a second.
        cpu_us: CPU of an answer, of all the server's processes.
        database_us: The same of its PostgreSQL.
        p50_ms, p99_ms: How long an answer took.
        errors: Requests that failed.
    """

    rate: float
    cpu_us: float
    database_us: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class About:
    """What a provider is, and what it weighs after its rounds."""

    what: str
    durable: str
    cold_start_s: float
    pss_mb: float


@dataclass(frozen=True)
class Flows:
    """The whole run.

    Attributes:
        providers: By name.
        absent: Why a provider is missing, by name.
        signature_us: One RSA-2048 signature, a round.
        idle_us: CPU that all of them together use in a second while nobody asks.
        results: By row and provider, one a round.
    """

    providers: dict[str, About]
    absent: dict[str, str]
    signature_us: list[float]
    idle_us: float
    results: dict[str, dict[str, list[Result]]]


def known() -> dict[str, Started]:
    """What can be started, by its name in the tables."""

    def house(server: str, postgres: bool) -> Started:
        return lambda folder, database: ours.ours(folder, server, database if postgres else None)

    both = {
        ours.name(server, postgres): house(server, postgres)
        for postgres in (False, True)
        for server in ("gunicorn", "granian")
    }
    return both | {
        node.name("memory"): lambda folder, _: node.node(folder, "memory"),
        node.name("sqlite"): lambda folder, _: node.node(folder, "sqlite"),
        node.name("postgres"): lambda folder, database: node.node(folder, "postgres", database),
        hydra.name(tuned=False): functools.partial(hydra.hydra, tuned=False),
        hydra.name(tuned=True): functools.partial(hydra.hydra, tuned=True),
        dex.NAME: dex.dex,
        keycloak.NAME: keycloak.keycloak,
        django.NAME: django.django,
    }


def run(folder: Path, only: str = "") -> Flows:
    """Start all, measure them, end all.

    Args:
        folder: For databases and logs.
        only: Words, separated by commas; a provider whose name has none of them is left out.
    """
    words = [word for word in only.lower().split(",") if word]
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(clients.started())
        database = stack.enter_context(PostgresCluster(settings=base.DURABLE))
        providers: list[Provider] = []
        absent: dict[str, str] = {}
        for name, start in known().items():
            if words and not any(word in name.lower() for word in words):
                continue
            _say(f"starting {name}")
            try:
                one = stack.enter_context(start(folder, database))
                _round(one, asking, one.warm_s)  # warm: caches, compilers, the first look-ups
                providers.append(one)
            except _FAILURES as error:
                _leave_out(absent, name, error)
        return _measure(providers, absent, asking)


def _measure(providers: list[Provider], absent: dict[str, str], asking: Clients) -> Flows:
    signer, signature_us = Signer(), []
    results: dict[str, dict[str, list[Result]]] = {row: {} for row in ROWS}
    idle_us = _idle_us(providers)
    for number in range(1, ROUNDS + 1):
        signature_us.append(1e6 / signer.rsa_2048(min(1.0, SECONDS)))
        for one in providers:
            if one.name in absent:
                continue
            _say(f"round {number} of {ROUNDS}: {one.name}")
            try:
                for row, result in _round(one, asking, SECONDS).items():
                    results[row].setdefault(one.name, []).append(result)
            except _FAILURES as error:
                _leave_out(absent, one.name, error)
    for row, name in itertools.product(ROWS, absent):
        results[row].pop(name, None)
    about = {
        one.name: About(one.what, one.durable, one.cold_start_s, one.pss_mb())
        for one in providers
        if one.name not in absent
    }
    return Flows(about, absent, signature_us, idle_us, results)


def _leave_out(absent: dict[str, str], name: str, error: Exception) -> None:
    absent[name] = str(error)
    _say(f"absent: {name}: {error}")


def install() -> None:
    """Get all peers from their registries, once for each version: minutes, at the first time.

    Those that cannot be installed are named, and left out by `run`.
    """
    ours.fast_parser()
    starts.only_what_runs()
    for module in (node, django, keycloak, dex, hydra):
        _say(f"installing {module.NAME}")
        try:
            module.install()
        except Absent as error:
            _say(f"absent: {module.NAME}: {error}")


def _idle_us(providers: list[Provider]) -> float:
    def used() -> float:
        return sum(one.cpu_s()[0] for one in providers)

    before = used()
    time.sleep(_IDLE_S)
    return (used() - before) / _IDLE_S * 1e6


def _round(one: Provider, asking: Clients, seconds: float) -> dict[str, Result]:
    """Codes, which are not counted; then all of its rows."""
    codes = one.codes(asking, CODES, _CODES_S * min(seconds, 1))
    place, results = one.place, {}
    with _counted(one) as count:
        exchanged = asking.ask(place, "exchange", codes, seconds=seconds)
        results["code exchange"] = count(exchanged)
    chains = exchanged.got[: clients.PROCESSES * clients.CONNECTIONS]
    with _counted(one) as count:
        results["refresh"] = count(asking.ask(place, "refresh", chains, _REFRESHES, seconds))
    # One token for all: of a grant that was not refreshed.
    for row in ROWS:
        target = one.target(row, exchanged.access_token)
        if target is not None:
            with _counted(one) as count:
                load = wrk.run(target, seconds, connections=clients.PROCESSES * clients.CONNECTIONS)
                results[row] = count(load)
    return results


@contextlib.contextmanager
def _counted(one: Provider) -> Iterator[Callable[[clients.Answers | wrk.Load], Result]]:
    before = one.cpu_s()

    def count(answers: clients.Answers | wrk.Load) -> Result:
        app_s, database_s = (now - then for now, then in zip(one.cpu_s(), before, strict=True))
        if isinstance(answers, wrk.Load):
            number, p50_ms, p99_ms = answers.requests, answers.p50_ms, answers.p99_ms
        else:
            number = len(answers.took_ms)
            p50_ms, p99_ms = answers.percentile_ms(0.5), answers.percentile_ms(0.99)
        app_us, database_us = app_s / number * 1e6, database_s / number * 1e6
        return Result(answers.rate, app_us, database_us, p50_ms, p99_ms, answers.errors)

    yield count


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main(only: str = "") -> int:
    """Run only this part, print it, write it.

    Args:
        only: As `run` has it.
    """
    wrk.check_installed()
    install()
    described = machine.describe()
    with starts.scratch() as name:
        flows = run(Path(name), only)
    head = [f"# Next to other providers, {described['date']}", "", report.about(described), ""]
    text = "\n".join([*head, flows_report.section(flows)])
    print(text)
    path = report.write("flows", described, {"flows": asdict(flows)}, text)
    print(f"\nWritten to {path.relative_to(machine.PROJECT)} and .json")
    return 0
