"""Where the microseconds of a mint go: the WSGI callable in this process, without a server.

Requests are answered again and again while a timer of this process's CPU takes a sample of the stack; a sample counts
for the innermost function of ours that it holds, and for the library that this function had called. Sampling leaves
the speed of calls as it is, where a tracing profiler makes many small ones look dear.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from bench import bare, machine, report, servers, starts

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_BATCH = 500
_CALLS = int(os.environ.get("BENCH_CALLS") or 20_000)
_SAMPLE_S = 0.001
_OURS = str(machine.PROJECT / "service") + os.sep


def environ(method: str, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """What gunicorn hands to the application."""
    given = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
    return {
        "wsgi.errors": io.StringIO(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": None,
        "wsgi.input_terminated": True,
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn",
        "REQUEST_METHOD": method,
        "QUERY_STRING": "",
        "RAW_URI": path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": "0",
        "HTTP_HOST": "id.example.com",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "4321",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        **given,
    }


def _drop(*_: Any) -> None:
    return None


def ask(app: Wsgi, request: dict[str, Any]) -> bytes:
    """Answer one request in this process."""
    return b"".join(app(dict(request), _drop))


def microseconds(work: Callable[[], object], calls: int) -> float:
    """CPU of one call in µs: the median of batches, so that a disturbance does not count."""
    batches = []
    for _ in range(max(1, calls // _BATCH)):
        start = time.process_time_ns()
        for _ in range(_BATCH):
            work()
        batches.append((time.process_time_ns() - start) / _BATCH / 1000)
    return statistics.median(batches)


def application(alg: str, data_dir: Path) -> tuple[Wsgi, str]:
    """The service as `service.wsgi` makes it, and the token of a session."""
    from service.app import create_app
    from service.logs import configure_logging
    from service.records.sessions import SignIn
    from service.sessions import LocalSessions
    from service.startup import prepare

    prepared = prepare(servers.settings(alg, data_dir), clock=time.time)
    configure_logging("info", "json")
    sessions = LocalSessions(prepared.store, lifetime_s=prepared.settings.session_lifetime_s)
    token = sessions.create(SignIn("alice"), now=int(time.time())).token
    return create_app(prepared.settings, prepared.store, prepared.keyring), token


def main() -> int:
    """Print the tables."""
    with starts.scratch() as name, _log_into(Path(name) / "log"):
        whole, parts = _measure(Path(name))
    mint = whole["mint HS256"]
    total = sum(parts.values())
    print(report.table(["one request, CPU", "µs"], [[name, f"{value:.1f}"] for name, value in whole.items()]))
    print()
    rows = [
        [ours, library, f"{mint * count / total:.1f}", f"{100 * count / total:.0f} %"]
        for (ours, library), count in parts.most_common(40)
    ]
    print(report.table(["of a mint HS256: function of ours", "in", "µs", "share"], rows))
    return 0


@contextlib.contextmanager
def _log_into(path: Path) -> Iterator[None]:
    """Let what is written to stderr go to a file, as under a server."""
    saved, log = os.dup(2), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(log)


def _measure(folder: Path) -> tuple[dict[str, float], collections.Counter[tuple[str, str]]]:
    apps = {alg: application(alg, folder / alg) for alg in ("HS256", "RS256")}
    bearer = {alg: {"Authorization": f"Bearer {token}"} for alg, (_, token) in apps.items()}
    mints = {alg: environ("POST", servers.MINT, bearer[alg]) for alg in apps}
    for alg, (app, _) in apps.items():
        assert b'"token":"' in ask(app, mints[alg])
    hs256, rs256 = apps["HS256"][0], apps["RS256"][0]
    whole = {
        "bare Falcon": (bare.app, environ("POST", "/bare", bearer["HS256"])),
        "healthz": (hs256, environ("GET", "/healthz")),
        "discovery": (rs256, environ("GET", servers.DISCOVERY)),
        "mint without a session (401)": (hs256, environ("POST", servers.MINT)),
        "mint HS256": (hs256, mints["HS256"]),
        "mint RS256": (rs256, mints["RS256"]),
    }
    calls = {name: _CALLS // 4 if "RS256" in name else _CALLS for name in whole}
    figures = {
        name: microseconds(lambda app=app, request=request: ask(app, request), calls[name])
        for name, (app, request) in whole.items()
    }
    return figures, _sample(lambda: ask(hs256, mints["HS256"]), 5 * _CALLS)


def _sample(work: Callable[[], object], calls: int) -> collections.Counter[tuple[str, str]]:
    """Count samples by our innermost function and the library below it."""
    seen: collections.Counter[tuple[str, str]] = collections.Counter()

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
        for _ in range(calls):
            work()
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
