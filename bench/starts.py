"""Cold start, and memory after load: one server at a time, nothing else of the benchmark running."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from apps.stand import HOME
from bench import servers, usage, wrk
from tests.support.gunicorn import PROJECT, clean_environment, hold_port

_STARTS = 5
_LIMIT_S = 20.0


@dataclass(frozen=True)
class MemoryAfterLoad:
    """PSS in MB of one server with two workers, after it has minted for a while."""

    worker_pss_mb: float
    worker_private_mb: float
    master_pss_mb: float


def memory_after_load(alg: str, folder: Path, seconds: float, kind: str) -> MemoryAfterLoad:
    """Start one server, let it answer everything that is measured, and weigh it: the heavier worker."""
    data_dir = folder / f"memory-{kind}-{alg}"
    with servers.ours(alg, data_dir, server=kind) as server:
        tokens = servers.sign_in(server, folder / f"memory-{alg}.tokens")
        for path in (servers.DISCOVERY, servers.JWKS):
            wrk.run(wrk.Target(servers.url(server, path)), 1)
        wrk.run(servers.mint(server, tokens), seconds)
        workers = [usage.memory(pid) for pid in server.worker_pids()]
        return MemoryAfterLoad(
            max(worker.pss_mb for worker in workers),
            max(worker.private_mb for worker in workers),
            usage.memory(server.pid).pss_mb,
        )


@dataclass(frozen=True)
class ColdStart:
    """From the start of the process to its first answer, in s.

    Attributes:
        first_s: With an empty data folder: the database is made and migrated.
        again_s: With the database there.
        serve_s: The same of `pylon-oidc serve`.
        help_s: Of `pylon-oidc --help`, to its end.
        environment: Which packages were installed with it.
    """

    first_s: float
    again_s: float
    serve_s: float
    help_s: float
    environment: str


def cold_start(folder: Path) -> ColdStart:
    """Start it five times for each kind, and take the medians."""
    python, environment = only_what_runs()
    data_dir = folder / "start"
    first, again, serve, shown = [], [], [], []
    _one_start(python, data_dir)  # so that bytecode is compiled
    for _ in range(_STARTS):
        shutil.rmtree(data_dir)
        first.append(_one_start(python, data_dir))
        again.append(_one_start(python, data_dir))
        serve.append(_one_start(python, data_dir, serve=True))
        began = time.monotonic()
        subprocess.run([python, "-m", "service", "--help"], cwd=PROJECT, capture_output=True, check=True)
        shown.append(time.monotonic() - began)
    return ColdStart(*(statistics.median(one) for one in (first, again, serve, shown)), environment)


def _one_start(python: str, data_dir: Path, *, serve: bool = False) -> float:
    holder = hold_port()
    port: int = holder.getsockname()[1]
    start_it = (
        ["service", "serve"] if serve else ["gunicorn", "-c", "deploy/gunicorn.conf.py", "service.wsgi:app"]
    )
    command = [python, "-m", *start_it, "--bind", f"127.0.0.1:{port}"]
    environment = clean_environment(**servers.settings("HS256", data_dir))
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while process.poll() is None and time.monotonic() - start < _LIMIT_S:
            if _answers(port):
                return time.monotonic() - start
            time.sleep(0.002)
        raise RuntimeError("the service did not start")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_LIMIT_S + 10)
        holder.close()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as wire:
            wire.sendall(f"GET {servers.DISCOVERY} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return wire.recv(15).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def only_what_runs() -> tuple[str, str]:
    """A Python with the packages of `requirements.txt` and no other, made once; else the one that runs this."""
    home, lock = HOME / "run", PROJECT / "requirements.txt"
    stamp, python = home / "installed-from", home / "bin/python"
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode() + os.fsencode(home)).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python), "only requirements.txt"
    try:
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "venv", str(home)], check=True, capture_output=True, timeout=120
        )
        install = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
        install += ["--require-hashes", "-r", str(lock)]
        subprocess.run(install, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError):
        return (
            sys.executable,
            "with the packages of the tests (requirements.txt by itself could not be installed)",
        )
    stamp.write_text(wanted)
    return str(python), "only requirements.txt"


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for databases and tokens, removed at the end."""
    return tempfile.TemporaryDirectory(prefix="pylon-bench-")
