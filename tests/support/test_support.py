"""The fixtures keep what they promise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.gunicorn import (
    Answer,
    DidNotStart,
    Gunicorn,
    Headers,
    clean_environment,
    hold_port,
    rsa_pem,
    start_expecting_failure,
)
from tests.support.pace import in_time
from tests.support.postgres import PostgresCluster

THIS = "tests.support.test_support"


def echo(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """A WSGI module of the tests' own: says who asked for what, and logs a line of JSON."""
    environ["wsgi.errors"].write(f'{{"route": "{environ["PATH_INFO"]}"}}\n')
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Two", "1"), ("X-Two", "2")])
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ.get('HTTP_HOST')}".encode()]


@pytest.fixture
def plain_config(tmp_path: Path) -> str:
    """A gunicorn configuration without anything of the project in it."""
    path = tmp_path / "gunicorn.conf.py"
    path.write_text("control_socket_disable = True\n")
    return str(path)


def test_postgres_gives_empty_databases_of_their_own(postgres_cluster: PostgresCluster) -> None:
    """Two databases share nothing, and a dropped one is gone though somebody is still connected."""
    first, second = postgres_cluster.create_database(), postgres_cluster.create_database()
    with psycopg.connect(first) as one, psycopg.connect(second) as two:
        one.execute("CREATE TABLE t (n int)")
        one.commit()
        assert two.execute("SELECT to_regclass('t')").fetchone() == (None,)
        postgres_cluster.drop_database(first)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)
    postgres_cluster.drop_database(first)
    postgres_cluster.drop_database(second)


def test_postgres_asks_for_the_password(postgres_url: str, postgres_cluster: PostgresCluster) -> None:
    """A wrong password is refused, so that the one in a URL is a real secret."""
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    wrong = postgres_url.replace("pylon:", "pylon:x", 1)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(wrong)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_comes_back_with_its_data_at_its_address(
    postgres_cluster: PostgresCluster, postgres_url: str, mode: Any
) -> None:
    """A stopped server refuses connections; started again it has the same URL and what was committed."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    held = psycopg.connect(postgres_url)
    old = postgres_cluster.pid
    postgres_cluster.stop(mode)
    assert postgres_cluster.pid is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url)
    with pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    held.close()
    postgres_cluster.start()
    assert postgres_cluster.pid not in (None, old)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_postgres_is_up_again_for_the_next_test(postgres_cluster: PostgresCluster, postgres_url: str) -> None:
    """Starting a running server changes nothing."""
    before = postgres_cluster.pid
    postgres_cluster.start()
    assert postgres_cluster.pid == before
    psycopg.connect(postgres_url).close()


def test_postgres_leaves_nothing_behind() -> None:
    """After its end there is no process, no folder, and nothing listens on the port."""
    with PostgresCluster() as cluster:
        pid, folder, port = cluster.pid, cluster.folder, cluster.port
    assert not folder.exists()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_database_of_either_kind_is_fresh(database_url: str, tmp_path: Path) -> None:
    """The parametrised fixture gives an absent SQLite file, or an empty PostgreSQL database."""
    if database_url.startswith("sqlite:///"):
        assert not Path(database_url.removeprefix("sqlite:///")).exists()
        return
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row == (0,)


def test_a_held_port_is_bound_by_a_server_and_by_nobody_else() -> None:
    """A server may listen on a held port, while the system gives that port to no one who asks for any."""
    with hold_port() as holder, socket.socket() as server:
        port = holder.getsockname()[1]
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        socket.create_connection(("127.0.0.1", port), 1).close()


def test_the_environment_of_a_server_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the shell that runs the tests never reach a server."""
    for name in ("PYLON_JWT_ALG", "PORT", "DATABASE_URL", "GUNICORN_CMD_ARGS", "PGHOST", "WEB_CONCURRENCY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("KEPT", "y")
    found = clean_environment(PYLON_DEV_MODE="1", PYLON_JWT_SECRET=None)
    assert found["KEPT"] == "y"
    assert found["PYLON_DEV_MODE"] == "1"
    assert not {"PYLON_JWT_ALG", "PYLON_JWT_SECRET", "PORT", "DATABASE_URL", "PGHOST"} & found.keys()


def test_headers_keep_every_value() -> None:
    """A repeated header is found by any case, joined, and as a list."""
    headers = Headers([("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("Age", "0")])
    assert headers["SET-COOKIE"] == "a=1, b=2"
    assert headers.all("Set-Cookie") == ["a=1", "b=2"]
    assert headers.get("absent") is None
    assert headers.all("absent") == []
    assert Answer(200, headers, b'{"a": 1}').json() == {"a": 1}


def test_rsa_keys_are_made_once_and_differ_by_number() -> None:
    """The same size and number give the same key."""
    assert rsa_pem() is rsa_pem()
    assert rsa_pem(number=1) != rsa_pem()
    assert rsa_pem().startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("unix", [False, True])
def test_gunicorn_answers_on_a_port_and_on_a_socket(
    gunicorn: Callable[..., Gunicorn], plain_config: str, unix: bool
) -> None:
    """It is asked and its log is read the same way on both, and it ends with 0."""
    server = gunicorn(app=f"{THIS}:echo", config=plain_config, unix=unix)
    answer = server.call("PUT", "/a?b=c", host="id.example", body={"x": 1})
    assert (answer.status, answer.body) == (200, b"PUT /a id.example")
    assert answer.headers.all("x-two") == ["1", "2"]
    raw = server.raw(b"GET /raw HTTP/1.0\r\n\r\n")
    assert raw.startswith(b"HTTP/1.0 200") or raw.startswith(b"HTTP/1.1 200")
    assert raw.endswith(b"GET /raw None")
    assert {"route": "/a"} in server.log_lines()
    assert len(server.worker_pids()) == 2
    assert server.stop() == 0
    assert "/raw" in server.output()
    assert not server.folder.exists()


def test_a_gunicorn_that_ends_at_once_says_why(plain_config: str) -> None:
    """The error of one that did not start holds its output, and its exit code is given where it is expected."""
    with pytest.raises(DidNotStart, match="broken_app"):
        Gunicorn(app=f"{THIS}:broken_app", config=plain_config)
    code, output = start_expecting_failure(app=f"{THIS}:broken_app", config=plain_config, argv=["--preload"])
    assert code not in (0, None)
    assert "broken_app" in output


def test_a_gunicorn_that_starts_though_it_should_not_is_an_error(plain_config: str) -> None:
    """Expecting a failure fails when the server listens."""
    with pytest.raises(AssertionError, match="it started"):
        start_expecting_failure(app=f"{THIS}:echo", config=plain_config)


def test_a_limit_in_time_grows_with_what_others_use_of_the_processors() -> None:
    """What is in time counts at once; what takes ten times as long and more never does."""
    assert in_time(0.9, 1.0)
    assert not in_time(10.0, 1.0)


def test_a_crashed_gunicorn_gives_its_exit_code(gunicorn: Callable[..., Gunicorn], plain_config: str) -> None:
    """A signal that it cannot handle is its exit code, negative."""
    server = gunicorn(app=f"{THIS}:echo", config=plain_config, WEB_CONCURRENCY="1")
    workers = server.worker_pids()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_test_left_out_fails_in_ci(tmp_path: Path) -> None:
    """With `CI=true` a skip, an expected failure and a missing module fail the run; without it they do not."""
    project = Path(__file__).resolve().parents[2]
    inside = tmp_path / "tests"
    inside.mkdir()
    (inside / "conftest.py").write_text((project / "tests/conftest.py").read_text())
    for name, source in {
        "skip": "def test_it():\n    pytest.skip('left out')\n",
        "fail": "def test_it():\n    pytest.xfail('in vain')\n",
        "miss": "pytest.importorskip('no_such')\ndef test_it(): pass\n",
    }.items():
        (inside / f"test_{name}.py").write_text(f"import pytest\n{source}")
    for ci, expected in (("true", 1), ("", 0)):
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--continue-on-collection-errors",
                "--rootdir",
                str(inside),
                str(inside),
            ],
            cwd=tmp_path,
            env=clean_environment(CI=ci, PYTHONPATH=str(project)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == expected, run.stdout + run.stderr
        for reason in ("left out", "in vain", "no_such"):
            assert not ci or reason in run.stdout
