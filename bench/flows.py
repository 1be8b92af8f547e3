"""Code exchange, refresh and userinfo compared with npm `oidc-provider`: both up at once, asked in turn, round by round.

Ours is gunicorn with two workers and SQLite on disk; the peer is one Node process whose store is its memory. Both give
a code at once to a browser that is signed in, sign ID tokens by RS256, and rotate refresh tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bench import clients, machine, report, starts, usage, wrk
from bench.clients import Clients, Place
from tests.support.gunicorn import ADMIN, Gunicorn, clean_environment, rsa_pem

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
REQUESTS = int(os.environ.get("BENCH_FLOWS") or 320)
OURS, PEER = "pylon-oidc", "oidc-provider"
FLOWS = ("code exchange", "refresh", "userinfo")
_USERINFO_S = 1.0
_LIMIT_S = 40.0
_PEERS = Path(__file__).with_name("peers")
_LOGIN_URL = "http://localhost:9/login"
_CLAIMS = {"name": "Ada Byron", "email": "ada@example.com", "email_verified": True}


@dataclass(frozen=True)
class Provider:
    """A provider that is up.

    Attributes:
        name: `OURS` or `PEER`.
        what: Its versions.
        place: Where it is; its user is signed in.
        userinfo: Path of that endpoint.
        pid: Its first process.
    """

    name: str
    what: str
    place: Place
    userinfo: str
    pid: int


@dataclass(frozen=True)
class Result:
    """One flow at one provider in one round."""

    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Flows:
    """The whole run.

    Attributes:
        providers: Versions by name.
        absent: Why there is no peer; empty when there is one.
        results: By flow and provider, one a round.
    """

    providers: dict[str, str]
    absent: str
    results: dict[str, dict[str, list[Result]]]


class Absent(RuntimeError):
    """The peer is not available here; the message says why."""


def run(folder: Path) -> Flows:
    """Start both, measure them, end both.

    Args:
        folder: For the database.
    """
    absent = ""
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(clients.started())
        providers = [stack.enter_context(_ours(folder))]
        try:
            providers.append(stack.enter_context(_peer()))
        except Absent as error:
            absent = str(error)
            _say(f"{PEER}: {absent}")
        for provider in providers:
            _round(provider, asking, folder, REQUESTS // 4)  # warm: caches, compilers
        rounds = _rounds(providers, asking, folder)
    results = {
        flow: {one.name: [seen[one.name][flow] for seen in rounds] for one in providers} for flow in FLOWS
    }
    return Flows({one.name: one.what for one in providers}, absent, results)


def _rounds(providers: list[Provider], asking: Clients, folder: Path) -> list[dict[str, dict[str, Result]]]:
    """As many rounds as were asked for, as long as time is left: a busy machine gets fewer."""
    rounds: list[dict[str, dict[str, Result]]] = []
    end = time.monotonic() + _LIMIT_S
    longest = 0.0
    while len(rounds) < ROUNDS and (not rounds or time.monotonic() + longest < end):
        _say(f"round {len(rounds) + 1} of {ROUNDS}: code exchange, refresh, userinfo")
        start = time.monotonic()
        rounds.append({one.name: _round(one, asking, folder, REQUESTS) for one in providers})
        longest = max(longest, time.monotonic() - start)
    return rounds


def _round(provider: Provider, asking: Clients, folder: Path, requests: int) -> dict[str, Result]:
    place, pid = provider.place, provider.pid
    chains = clients.PROCESSES * clients.THREADS
    codes = asking.ask(place, "authorize", [""] * requests).got

    used = usage.cpu_s(pid)
    exchanged = asking.ask(place, "exchange", codes)
    after_exchange = usage.cpu_s(pid)
    refreshed = asking.ask(place, "refresh", exchanged.got[:chains], requests // chains)
    after_refresh = usage.cpu_s(pid)

    # One token for all: of a grant that was never refreshed.
    token = folder / f"{provider.name}.token"
    token.write_text(exchanged.access_token + "\n")
    target = wrk.Target(f"http://localhost:{place.port}{provider.userinfo}", tokens=token)
    load = wrk.run(target, _USERINFO_S, connections=chains)
    after_userinfo = usage.cpu_s(pid)

    def result(answers: clients.Answers, cpu_s: float) -> Result:
        p50_ms, p99_ms = answers.percentile_ms(0.5), answers.percentile_ms(0.99)
        return Result(answers.rate, cpu_s / len(answers.took_ms) * 1e6, p50_ms, p99_ms, answers.errors)

    return {
        FLOWS[0]: result(exchanged, after_exchange - used),
        FLOWS[1]: result(refreshed, after_refresh - after_exchange),
        FLOWS[2]: Result(
            load.rate,
            (after_userinfo - after_refresh) / load.requests * 1e6,
            load.p50_ms,
            load.p99_ms,
            load.errors,
        ),
    }


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# --- ours ---


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[Provider]:
    client = {
        "client_id": clients.CLIENT_ID,
        "client_secret": clients.CLIENT_SECRET,
        "redirect_uris": [clients.REDIRECT_URI],
        "scope": clients.SCOPE,
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "client_secret_basic",
        "first_party": True,
    }
    with Gunicorn(
        WEB_CONCURRENCY="2",
        PYLON_DATA_DIR=str(folder / "flows"),
        PYLON_ADMIN_TOKEN=ADMIN,
        PYLON_OIDC_ISSUER="http://localhost:{port}",
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_OIDC_CLIENTS=json.dumps([client]),
        PYLON_LOGIN_URL=_LOGIN_URL,
    ) as server:

        def sign_in(uri: str) -> str:
            interaction = parse_qs(urlsplit(uri).query)["interaction"][0]
            answer = server.call(
                "POST",
                f"/api/oidc/interactions/{interaction}/login",
                headers={"Authorization": f"Bearer {ADMIN}"},
                body={"user_id": "ada", "claims": _CLAIMS},
            )
            return str(answer.json()["redirect_to"])

        place = Place(server.port, "/oidc/authorize", "/oidc/token")
        place = dataclasses.replace(place, cookie=clients.browse(place, place.authorize_uri, sign_in))
        yield Provider(OURS, "gunicorn, 2 workers, SQLite on disk", place, "/oidc/userinfo", server.pid)


# --- the peer ---


@contextlib.contextmanager
def _peer() -> Iterator[Provider]:
    """npm `oidc-provider`.

    Raises:
        Absent: When it cannot be installed or does not start.
    """
    process = subprocess.Popen(
        [_node(), "provider.mjs"],
        cwd=_PEERS,
        env=clean_environment(
            NODE_ENV="production",
            PEER_SECRET=clients.CLIENT_SECRET,
            PEER_REDIRECT_URI=clients.REDIRECT_URI,
            PEER_SCOPE=clients.SCOPE,
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 20)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise Absent("absent: it did not start")
        said = json.loads(line)
        place = Place(said["port"], "/auth", "/token")
        place = dataclasses.replace(place, cookie=clients.browse(place, place.authorize_uri, str))
        what = f"{said['version']} on Node {said['node']}, one process, its store in memory"
        yield Provider(PEER, what, place, "/me", process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _node() -> str:
    """The Node to run it: of the npm packages, which are installed when they are not there, or else of the machine."""
    if shutil.which("npm") is None:
        raise Absent("absent: there is no npm to install it")
    try:
        subprocess.run([_PEERS / "install"], check=True, timeout=150, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        raise Absent("absent: npm could not install it") from None
    own = _PEERS / "node_modules/.bin/node"
    node = str(own) if own.exists() else shutil.which("node")
    if node is None:
        raise Absent("absent: there is no Node to run it")
    return node


# --- the report ---


def main() -> int:
    """Run only this part, print it, write it."""
    wrk.check_installed()
    described = machine.describe()
    with starts.scratch() as name:
        flows = run(Path(name))
    head = [f"# Code exchange, refresh and userinfo, {described['date']}", "", report.about(described), ""]
    text = "\n".join([*head, section(flows)])
    print(text)
    path = report.write("flows", described, {"flows": asdict(flows)}, text)
    print(f"\nWritten to {path.relative_to(machine.PROJECT)} and .json")
    return 0


def section(flows: Flows) -> str:
    """Tables: the ratios first."""
    rounds = len(flows.results[FLOWS[0]][OURS])
    rows = []
    for flow, of in flows.results.items():
        for name, results in of.items():
            rows.append(
                [
                    f"{flow}, {name}",
                    report.number(_median([one.rate for one in results])),
                    report.number(_median([one.cpu_us for one in results])),
                    report.number(_median([one.p50_ms for one in results]), 1),
                    report.number(_median([one.p99_ms for one in results]), 1),
                    str(sum(one.errors for one in results)),
                ]
            )
    about = "; ".join(f"`{name}`: {what}" for name, what in flows.providers.items())
    return "\n".join(
        [
            f"{about}. {clients.PROCESSES * clients.THREADS} connections; {rounds} interleaved rounds of {REQUESTS} "
            f"exchanges, {REQUESTS} refreshes and {_USERINFO_S:g} s of userinfo, medians.",
            "",
            _ratios(flows),
            "",
            report.table(["", "a second", "CPU µs", "p50 ms", "p99 ms", "errors"], rows),
        ]
    )


def _ratios(flows: Flows) -> str:
    if flows.absent:
        return f"No ratios: `{PEER}` is {flows.absent}."

    def ratio(flow: str, figure: str) -> str:
        both = zip(flows.results[flow][OURS], flows.results[flow][PEER], strict=True)
        return f"{_median([getattr(ours, figure) / max(getattr(peer, figure), 1e-9) for ours, peer in both]):.2f} ×"

    figures = ("rate", "cpu_us", "p50_ms", "p99_ms")
    rows = [[flow, *(ratio(flow, figure) for figure in figures)] for flow in FLOWS]
    return report.table([f"{OURS} / {PEER}", "a second", "CPU", "p50", "p99"], rows)


def _median(values: list[float]) -> float:
    return statistics.median(values)
