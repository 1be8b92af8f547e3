"""The load generator: wrk, 32 connections kept alive where the server lets them be, two threads."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
THREADS = 2
_SCRIPT = Path(__file__).with_name("load.lua")


class WrkFailed(RuntimeError):
    """wrk ended without a result; the message holds what it said."""


@dataclass(frozen=True)
class Target:
    """What is asked for.

    Attributes:
        url: Of one resource.
        method: `GET` or `POST`.
        tokens: A file with session tokens, one a line, used in turn as `Authorization: Bearer`.
        body: What is posted.
        content_type: Of the body.
        authorization: The header of each request, where no tokens are given.
    """

    url: str
    method: str = "GET"
    tokens: Path | None = None
    body: str = ""
    content_type: str = "application/x-www-form-urlencoded"
    authorization: str = ""


@dataclass(frozen=True)
class Load:
    """What came back.

    Attributes:
        requests: Answers.
        rate: Answers a second.
        p50_ms, p99_ms, max_ms: Latency.
        errors: Answers of 400 and above, and broken connections.
        generator_cores: How much of a core wrk itself used.
    """

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    generator_cores: float


def check_installed() -> None:
    """Leave with one line when wrk is not here."""
    if shutil.which("wrk") is None:
        raise SystemExit("the benchmark needs wrk, please install the package: wrk")


def run(target: Target, seconds: float, connections: int = CONNECTIONS) -> Load:
    """Ask for the target as fast as it answers.

    Args:
        target: What to ask for.
        seconds: How long; wrk counts in whole seconds, one at least.
        connections: How many at once.

    Raises:
        WrkFailed: When it could not, or nothing was answered.
    """
    whole = max(1, round(seconds))
    command = ["wrk", f"-t{min(THREADS, connections)}", f"-c{connections}", f"-d{whole}s", "--timeout", "5s"]
    command += ["-s", str(_SCRIPT), target.url, "--", target.method, str(target.tokens or "")]
    command += [target.body, target.content_type] + ([target.authorization] if target.authorization else [])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 20, check=False)
    except subprocess.TimeoutExpired as error:
        raise WrkFailed(f"wrk did not end: {target.url}") from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"requests"')]
    if done.returncode != 0 or not lines:
        raise WrkFailed(f"{target.url}: {done.stdout}{done.stderr}")
    said = json.loads(lines[-1])
    if said["requests"] == 0:
        raise WrkFailed(f"{target.url}: nothing was answered")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(
        requests=said["requests"],
        rate=said["requests"] / said["duration_us"] * 1e6,
        p50_ms=said["p50_us"] / 1000,
        p99_ms=said["p99_us"] / 1000,
        max_ms=said["max_us"] / 1000,
        errors=said["refused"] + said["broken"],
        generator_cores=cpu / (said["duration_us"] / 1e6),
    )
