"""What it was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.nginx import find_nginx

PROJECT = Path(__file__).resolve().parents[1]
#: The load average below which figures may be published.
QUIET = 0.5
_PACKAGES = (
    "falcon",
    "gunicorn",
    "granian",
    "joserfc",
    "cryptography",
    "msgspec",
    "sqlalchemy",
    "structlog",
)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _wait_until_quiet() -> None:
    """Wait until the load average is below 0.5, for at most `BENCH_QUIET_S` (0) seconds."""
    end = time.monotonic() + float(os.environ.get("BENCH_QUIET_S") or 0)
    while os.getloadavg()[0] >= QUIET and time.monotonic() < end:
        time.sleep(1)


def describe() -> dict[str, Any]:
    """Machine, versions and commit, for the head of a report; when the machine is quiet, where that is waited for."""
    _wait_until_quiet()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release().split("-")[0],
        "load_before": round(os.getloadavg()[0], 2),
        "python": _python(),
        "nginx": _said(find_nginx(), "-v").rpartition("/")[2].split(" ")[0],
        "wrk": (re.findall(r"wrk \S*?([0-9]+\.[0-9.]+)", _said("wrk", "-v")) or ["?"])[0],
        "openssl": _openssl(),
        "commit": _said("git", "--no-optional-locks", "-C", str(PROJECT), "rev-parse", "--short", "HEAD")
        or None,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def slug(machine: dict[str, Any]) -> str:
    """`<date>-<machine>`, for file names."""
    name = re.sub(r"[^a-z0-9]+", "-", machine["cpu"].lower()).strip("-")
    return f"{machine['date']}-{name}-{machine['cores']}-cores"


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _python() -> str:
    """Its version, and whether the interpreter is in a shared library: then each call within it is more expensive."""
    is_shared = "/libpython" in Path("/proc/self/maps").read_text()
    return platform.python_version() + (" (shared library)" if is_shared else " (static)")


def _openssl() -> str:
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text().split(" ")[1]


def _said(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return (run.stdout + run.stderr).strip().split("\n")[0] if run.returncode in {0, 1} else ""
