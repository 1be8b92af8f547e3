"""`pylon-oidc serve`: production from only the installed package, with either server, and the same from both."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.flows.polling import wait_until
from tests.support.gunicorn import (
    ADMIN,
    PROJECT,
    SECRET,
    SERVERS,
    Answer,
    Gunicorn,
    clean_environment,
    hold_port,
    rsa_pem,
    start_expecting_failure,
)


def run(*command: str | Path, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def serve(*argv: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "service", "serve", *argv, cwd=cwd, **settings)


# From a wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that holds the built wheel, what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    assert run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder).returncode == 0
    commands = folder / "venv/bin"
    into = [*pip, "--python", str(commands / "python"), "install", "--no-compile"]
    for step in (
        [*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(PROJECT)],
        [*into, "--require-hashes", "-r", str(PROJECT / "requirements.txt")],
        [*into, "--no-deps", "--no-index", "--find-links", str(folder), "pylon-oidc"],
    ):
        done = run(*step, cwd=folder)
        assert done.returncode == 0, done.stderr
    return commands


def test_a_wheel_serves_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """With nothing else on disk it serves, keeps its data in that folder, and ends with 0; no bytecode of ours is needed."""
    with hold_port() as holder:
        port = holder.getsockname()[1]
        command = [installed / "pylon-oidc", "serve", "--bind", f"127.0.0.1:{port}", "--workers", "1"]
        with subprocess.Popen(
            command, cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE
        ) as process:
            try:

                def ready() -> bool:
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    try:
                        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                            return answer.status == 200
                    except urllib.error.URLError:
                        return False

                wait_until(ready, timeout_s=60)
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_granian_that_is_not_installed_is_named_with_its_command(installed: Path, tmp_path: Path) -> None:
    """Exit 2, the command that installs the extra, and nothing begun."""
    refused = run(installed / "pylon-oidc", "serve", "--server", "granian", cwd=tmp_path)
    assert refused.returncode == 2
    assert "pip install 'pylon-oidc[granian]'" in refused.stderr
    assert not list(tmp_path.iterdir())


# Before any port is open


@pytest.mark.parametrize("server", SERVERS)
def test_a_wrong_setting_ends_it_before_the_port_is_open(server: str) -> None:
    """Every fault, one a line, exit 2, by either server."""
    wrong = {"PYLON_JWT_SECRET": "short", "PYLON_ADMIN_TOKEN": "short", "WEB_CONCURRENCY": "many"}
    code, output = start_expecting_failure(server=server, serve=True, **wrong)
    assert code == 2, output
    for name in wrong:
        assert f"{name}: " in output
    assert "Traceback" not in output


@pytest.mark.parametrize("server", SERVERS)
def test_what_must_not_be_bound_is_refused(server: str, tmp_path: Path) -> None:
    """Dev mode on a public address or a Unix socket; and with granian an issuer that comes from `Host`, on a public address."""
    for address in ("0.0.0.0:0", f"unix:{tmp_path / 'socket'}"):
        refused = serve("--server", server, "--bind", address, cwd=tmp_path, PYLON_DEV_MODE="1")
        assert refused.returncode == 2, refused.stderr
        assert "PYLON_DEV_MODE: is on, and" in refused.stderr
        assert not (tmp_path / "socket").exists()
    if server == "granian":
        refused = serve("--server", server, cwd=tmp_path, PORT="4321")
        assert refused.returncode == 2
        assert "PYLON_OIDC_ISSUER: is unset, and granian would listen on 0.0.0.0:4321" in refused.stderr


def test_wrong_arguments_are_told() -> None:
    """Exit 2, and what to write instead."""
    for argv, told in (
        (["--bind", "nowhere"], "write HOST:PORT, [IPv6]:PORT or unix:/path"),
        (["--bind", "127.0.0.1:70000"], "write HOST:PORT"),
        (["--bind", "unix:"], "write HOST:PORT"),
        (["--workers", "0"], "1<=x<=1024"),
        (["--server", "apache"], "'granian', 'gunicorn'"),
    ):
        refused = serve(*argv, cwd=PROJECT)
        assert refused.returncode == 2
        assert told in refused.stderr


@pytest.mark.parametrize("server", SERVERS)
def test_an_address_in_use_is_told(server: str) -> None:
    """A second one on the same port ends, and the first continues."""
    with Gunicorn(server=server, serve=True, WEB_CONCURRENCY="1") as first:
        argv = ["--server", server, "--bind", f"127.0.0.1:{first.port}"]
        second = serve(*argv, cwd=first.folder, PYLON_DATA_DIR=str(first.data_dir))
        assert second.returncode == 1
        assert "in use" in second.stderr
        assert first.call("GET", "/healthz").status == 200


# What it says and does, as the configuration of gunicorn


@pytest.mark.parametrize("server", SERVERS)
def test_workers_and_sockets_are_as_asked_for(server: str, tmp_path: Path) -> None:
    """`--workers` wins over `WEB_CONCURRENCY`; a Unix socket replaces one that was left, and goes with its server."""
    path = tmp_path / "s"
    for number in (3, 2):
        with Gunicorn(
            server=server,
            serve=True,
            argv=["--workers", str(number), "--bind", f"unix:{path}"],
            wait=False,
            WEB_CONCURRENCY="1",
        ) as server_running:
            server_running.socket_path = path
            wait_until(
                lambda: path.exists() and len(server_running.worker_pids()) == number,  # noqa: B023
                timeout_s=60,
            )
            assert server_running.call("GET", "/healthz").status == 200
            assert path.stat().st_mode & 0o777 == 0o777
            server_running.process.send_signal(signal.SIGTERM if number == 2 else signal.SIGKILL)
            assert server_running.wait() == (0 if number == 2 else -9)
            wait_until(lambda: not path.exists() or number == 3)  # noqa: B023


@pytest.mark.parametrize("server", SERVERS)
def test_its_log_is_the_applications(server: str) -> None:
    """Every line is JSON with `ts`, `level` and `event`, the server's own too."""
    with Gunicorn(server=server, serve=True, WEB_CONCURRENCY="1") as running:
        running.call("GET", "/healthz")
        os.kill(running.pid, signal.SIGHUP)
        time.sleep(1)
        assert running.stop() == 0
        lines = running.output().splitlines()
    assert len(lines) == len(running.log_lines()) > 3
    for line in running.log_lines():
        assert {"ts", "level", "event"} <= line.keys()


def test_granian_replaces_workers_that_end() -> None:
    """A worker that is killed has another one in its place, as often as that happens; all end with the master."""
    with Gunicorn(server="granian", WEB_CONCURRENCY="2") as server:
        for _ in range(4):
            old = server.worker_pids()
            os.kill(old[0], signal.SIGKILL)
            wait_until(
                lambda: len(server.worker_pids()) == 2 and old[0] not in server.worker_pids()  # noqa: B023
            )
            assert server.call("GET", "/healthz").status == 200
        workers = server.worker_pids()
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), timeout_s=60)


def test_granian_shares_connections_out() -> None:
    """Of connections that are opened at the same moment each worker gets some, and none is lost as one is replaced."""
    with Gunicorn(server="granian", app="tests.flows.collecting:app", WEB_CONCURRENCY="2") as server:

        def answered_by() -> Counter[int]:
            with contextlib.ExitStack() as stack:
                wires = [stack.enter_context(socket.socket()) for _ in range(40)]
                for wire in wires:
                    wire.setblocking(False)
                    wire.connect_ex(("127.0.0.1", server.port))
                for wire in wires:
                    wire.settimeout(15)
                    wire.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answers = [wire.makefile("rb").read() for wire in wires]
            return Counter(int(answer.partition(b"\r\n\r\n")[2].split()[0]) for answer in answers)

        for _ in range(5):
            answered = answered_by()
            assert len(answered) == 2
            assert min(answered.values()) >= 4
        killed = psutil.Process(server.worker_pids()[0])
        killed.kill()
        wait_until(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
        assert answered_by().total() == 40


# The same from both

ISSUER = "https://id.example.com"
_FORM = "application/x-www-form-urlencoded"
_BEARER = {"Authorization": f"Bearer {ADMIN}"}
REQUESTS: list[tuple[str, str, dict[str, str], bytes | None]] = [
    ("GET", "/.well-known/openid-configuration", {}, None),
    ("HEAD", "/.well-known/openid-configuration", {}, None),
    ("OPTIONS", "/.well-known/openid-configuration", {"Origin": "https://a.example"}, None),
    ("POST", "/.well-known/openid-configuration", {}, b"{}"),
    ("GET", "/.well-known/oauth-authorization-server", {"Host": "other.example"}, None),
    ("GET", "/oidc/jwks", {}, None),
    ("GET", "/oidc/jwks", {"If-None-Match": "*"}, None),
    ("GET", "/oidc/jwks?x=1&y=%20", {}, None),
    ("GET", "/oidc/%6awks", {}, None),
    ("GET", "//oidc/jwks", {}, None),
    ("GET", "/", {}, None),
    ("GET", "/caf%C3%A9/%00/%ff", {}, None),
    ("FOO", "/oidc/jwks", {}, None),
    ("DELETE", "/healthz", {}, None),
    ("GET", "/healthz", {"Host": "???"}, None),
    ("POST", "/api/auth/jwt", {}, None),
    ("POST", "/api/auth/jwt", {"Authorization": "Bearer nobody"}, b"{}"),
    ("GET", "/api/auth/me", {"Cookie": "pylon_session=a; pylon_session=b"}, None),
    ("DELETE", "/api/auth/session", {"Authorization": "Basic x"}, None),
    ("POST", "/api/auth/session", {}, b"{}"),
    ("POST", "/api/auth/session", _BEARER, b"{}"),
    ("POST", "/api/auth/session", _BEARER, b"\xff"),
    ("POST", "/api/auth/session", _BEARER | {"Content-Type": "text/plain"}, b"{}"),
    ("POST", "/api/auth/session", _BEARER, b'{"user_id": "a", "user_id": "b"}'),
    ("POST", "/api/auth/session", _BEARER, b"x" * 65_537),
    ("POST", "/api/auth/session", _BEARER, b"x" * 200_000),
    ("PUT", "/api/auth/users/a%2Fb", _BEARER, b'{"roles": ["a"]}'),
    ("GET", "/api/auth/users/a%2Fb/sessions", _BEARER, None),
    ("GET", "/api/oidc/clients", _BEARER, None),
    ("GET", "/api/oidc/clients/none", _BEARER, None),
    ("GET", "/api/oidc/grants?user_id=a", _BEARER, None),
    ("GET", "/oidc/authorize", {}, None),
    ("GET", "/oidc/authorize?client_id=none&response_type=code", {"Accept-Language": "de"}, None),
    ("GET", "/oidc/logout?signed_out", {}, None),
    ("POST", "/oidc/token", {"Content-Type": _FORM}, b"grant_type=password"),
    ("POST", "/oidc/token", {"Content-Type": _FORM, "Authorization": "Basic YTpi"}, b"grant_type=password"),
    ("POST", "/oidc/token", {"Content-Type": "application/json"}, b"{}"),
    ("GET", "/oidc/token", {}, None),
    ("OPTIONS", "/oidc/token", {"Origin": "https://a", "Access-Control-Request-Method": "POST"}, None),
    ("POST", "/oidc/introspect", {"Content-Type": _FORM} | _BEARER, b"token=a"),
    ("POST", "/oidc/revoke", {"Content-Type": _FORM}, b"token=a"),
    ("GET", "/oidc/userinfo", {"Authorization": "Bearer a"}, None),
    ("GET", "/oidc/userinfo", {"X-Request-Id": "not kept: spaces"}, None),
    ("GET", "/oidc/interaction/none", {}, None),
]
#: The server's own, and what differs from request to request.
_NOT_COMPARED = {"date", "server", "connection", "keep-alive", "x-request-id"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gunicorn]]:
    """One service in two servers."""
    settings = {
        "PYLON_OIDC_ISSUER": ISSUER,
        "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_JWT_SECRET": SECRET,
        "PYLON_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "WEB_CONCURRENCY": "1",
    }
    with (
        Gunicorn(server="gunicorn", serve=True, **settings) as one,
        Gunicorn(server="granian", serve=True, **settings) as other,
    ):
        yield [one, other]


def _compared(answer: Answer) -> tuple[int, dict[str, list[str]], bytes]:
    names = [name for name in answer.headers if name not in _NOT_COMPARED]
    return answer.status, {name: sorted(answer.headers.all(name)) for name in names}, answer.body


def test_a_request_has_the_same_answer_from_both(both: list[Gunicorn]) -> None:
    """The same status, header values and body, for every kind of answer."""
    statuses = set()
    for number, (method, path, headers, body) in enumerate(REQUESTS):
        given = {"Host": "id.example.com", "X-Request-Id": f"request-{number}"} | headers
        first, second = (_compared(server.call(method, path, headers=given, body=body)) for server in both)
        if "X-Request-Id" in headers:  # which was not kept
            first, second = (*first[:2], b""), (*second[:2], b"")
        assert first == second, (method, path)
        statuses.add(first[0])
    assert {200, 204, 304, 400, 401, 403, 404, 405, 413, 415} <= statuses


def test_a_session_begun_at_one_mints_at_the_other(both: list[Gunicorn]) -> None:
    """What is new each time has the same members and headers."""
    for giving, taking in (both, both[::-1]):
        session = giving.sign_in("ada")
        answers = [taking.mint(session), giving.mint(session)]
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].json().keys() == answers[1].json().keys()
        for answer in answers:
            assert answer.headers["cache-control"] == "no-store"
