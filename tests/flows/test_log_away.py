"""A log that cannot be written, or that nobody reads, decides over no request; what was lost is said afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time

import pytest

from tests.flows.polling import wait_until
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn
from tests.support.pace import in_time

SETTINGS = {"PYLON_JWT_SECRET": SECRET, "PYLON_ADMIN_TOKEN": ADMIN, "WEB_CONCURRENCY": "1"}


@pytest.mark.parametrize("port", [None, "4321"])
def test_requests_are_answered_without_a_log(port: str | None) -> None:
    """stderr is full: health, a session and a mint are answered in full, an error too, and SIGTERM ends it with 0."""
    under = ["sh", "-c", 'exec "$0" "$@" 2>/dev/full']
    with Gunicorn(under=under, PORT=port, **SETTINGS) as server:
        assert server.call("GET", "/healthz").body == b"ok"
        assert server.mint(server.sign_in()).status == 200
        assert server.call("GET", "/nothing").json()["error"]["code"] == "NOT_FOUND"
        assert server.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert server.stop() == 0


def test_a_log_that_nobody_reads_holds_nobody_up_and_what_was_lost_is_said() -> None:
    """The reader of stderr stops until the pipe is full: requests are still answered; when it reads again, a line says how many are missing."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    redirect = "import os, sys; os.dup2(int(sys.argv[1]), 2); os.execv(sys.argv[2], sys.argv[2:])"
    under = [sys.executable, "-c", redirect, str(writing)]
    with Gunicorn(under=under, pass_fds=[writing], **SETTINGS) as server:
        os.close(writing)
        began = time.monotonic()
        for _ in range(60):
            assert server.call("GET", "/healthz").status == 200
        assert in_time(time.monotonic() - began, 10)
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.extend(os.fdopen(reading, "rb")), daemon=True)
        reader.start()

        def lost() -> int:
            server.call("GET", "/healthz")
            return sum(json.loads(line)["lost"] for line in list(lines) if b"log_lines_lost" in line)

        assert wait_until(lost) > 30
        assert server.stop() == 0
        reader.join(60)
    assert all(json.loads(line) for line in lines)


def test_after_a_reload_every_line_is_json(each_server: str) -> None:
    """HUP: the server's own lines stay in the form of the log, each once."""
    with Gunicorn(**SETTINGS) as server:
        old = server.worker_pids()
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: server.worker_pids() and not set(old) & set(server.worker_pids()))
        server.stop()
        lines = server.output().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    ends, begins = (
        ("Handling signal: term", "Booting worker")
        if each_server == "gunicorn"
        else ("Shutting down granian", "Spawning worker")
    )
    assert events.count(ends) == 1
    assert any(event.startswith(begins) for event in events)
