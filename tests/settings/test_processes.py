"""docs/cli.md, as real processes: a wrong configuration never starts, and `check` makes no file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.launch.binding import check_binding
from tests.settings.conftest import Run
from tests.settings.reading import STRONG
from tests.support.cases import each_of
from tests.support.gunicorn import PROJECT, Gunicorn, clean_environment, rsa_pem, start_expecting_failure

CANARY = "canary7f3a"
# What is set, and every line that must be there, by its beginning.
WRONG: dict[str, tuple[dict[str, str], list[str]]] = {
    "several": (
        {
            "PYLON_JWT_SECRET": CANARY,
            "PYLON_JWT_ALG": "RS256",
            "PYLON_OIDC_ISSUER": "https://id.example.com/",
            "DATABASE_URL": f"mysql://u:{CANARY}@h/n",
            "PYLON_ADMIN_TOKEN_FILE": "/nowhere",
        },
        [
            "PYLON_OIDC_ISSUER: ",
            "PYLON_JWT_SECRET: ",
            "PYLON_JWT_ALG: ",
            "DATABASE_URL: ",
            "PYLON_ADMIN_TOKEN_FILE: ",
        ],
    ),
    "crossed": ({"PYLON_DEV_MODE": "1", "PYLON_OIDC_ISSUER": "https://id.example.com"}, ["PYLON_DEV_MODE: "]),
}


GUNICORN = (sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py")


def _check(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return _run(folder, sys.executable, "-m", "service", "check", *arguments, **environ)


def _run(folder: Path, *command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command with only this environment, until it ends by itself."""
    return subprocess.run(
        command,
        env=clean_environment(**({"PYLON_DATA_DIR": str(folder / "data")} | environ)),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@each_of(("environ", "lines"), WRONG.values(), ids=WRONG.keys())
def test_gunicorn_does_not_start_with_a_wrong_configuration_and_check_prints_the_same(
    run: Run, environ: dict[str, str], lines: list[str]
) -> None:
    """The process exits non-zero before it binds, printing every fault, one line each; no traceback,
    no secret. `pylon-oidc check` prints the same, and exits with 2.
    """
    code, output = start_expecting_failure(**environ)
    result = run("check", **environ)
    assert code != 0
    assert result.exit_code == 2
    assert "Traceback" not in output + result.stderr
    assert CANARY not in output + result.stdout + result.stderr
    faults = [line for line in result.stderr.splitlines() if line.startswith(tuple(lines))]
    assert len(faults) == len(lines)
    for line in lines:
        (found,) = [each for each in faults if each.startswith(line)]
        assert "; " in found
    assert [line for line in output.splitlines() if line.startswith(tuple(lines))] == faults


def test_a_wrong_configuration_makes_no_file(tmp_path: Path) -> None:
    """A wrong configuration never starts: neither database nor key is left behind."""
    key = tmp_path / "key.pem"
    code, _ = start_expecting_failure(
        PYLON_DATA_DIR=str(tmp_path / "data"), PYLON_OIDC_KEY_PATH=str(key), PYLON_LOG_LEVEL="loud"
    )
    assert code != 0
    assert list(tmp_path.iterdir()) == []


@each_of("environ", [{}, {"PYLON_LOG_LEVEL": "loud"}, {"PYLON_JWT_SECRET": STRONG}])
def test_check_makes_no_file(tmp_path: Path, run: Run, environ: dict[str, str]) -> None:
    """And makes no file: neither data folder, database nor key."""
    result = run("check", PYLON_OIDC_KEY_PATH=str(tmp_path / "keys" / "key.pem"), **environ)
    assert result.exit_code == (2 if "PYLON_LOG_LEVEL" in environ else 0)
    assert list(tmp_path.iterdir()) == []


def test_check_leaves_a_database_as_it_is(tmp_path: Path) -> None:
    """And makes no file next to a database that is there, and changes nothing in it."""
    data = tmp_path / "data"
    environment = clean_environment(PYLON_DATA_DIR=str(data))
    subprocess.run(
        [sys.executable, "-m", "service", "migrate"], env=environment, cwd=PROJECT, check=True, timeout=60
    )
    before = {path: path.read_bytes() for path in data.iterdir()}
    assert _check(tmp_path).returncode == 0
    assert {path: path.read_bytes() for path in data.iterdir()} == before


def test_check_of_a_file_that_is_no_database_is_a_fault(tmp_path: Path) -> None:
    """What is wrong; what to write instead."""
    path = tmp_path / "x.db"
    path.write_bytes(b"no database, but longer than a header of one hundred bytes" * 10)
    result = _check(tmp_path, DATABASE_URL=f"sqlite:///{path}")
    assert result.returncode == 2
    assert result.stderr.startswith("DATABASE_URL: ") and "; " in result.stderr
    assert "Traceback" not in result.stderr


@each_of("bind", ["0.0.0.0:1", ":1", "[::]:1", "192.0.2.1:1", "unix:/run/s", "fd://3"])
@each_of("value", ["1", "true"])
def test_dev_mode_is_not_bound_to_what_others_reach(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bind: str, value: str
) -> None:
    """docs/settings.md: no address but a loopback one, and no Unix socket, which a proxy may be in front of."""
    monkeypatch.setenv("PYLON_DEV_MODE", value)
    with pytest.raises(SystemExit) as ended:
        check_binding(["127.0.0.1:1", bind], "gunicorn")
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith("PYLON_DEV_MODE: ") and "; " in line and bind in line


def test_gunicorn_ends_where_dev_mode_would_be_bound_to_what_others_reach(tmp_path: Path) -> None:
    """docs/settings.md: refused by `deploy/gunicorn.conf.py` before the port is open, however it was switched on."""
    (tmp_path / "on").write_text("1\n")
    bind = f"unix:{tmp_path}/s"
    environ = {"PYLON_DEV_MODE_FILE": str(tmp_path / "on")}
    result = _run(tmp_path, *GUNICORN, "--bind", bind, "service.wsgi:app", **environ)
    assert result.returncode not in {0, None}
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("PYLON_DEV_MODE: ")]
    assert "; " in line
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "s").exists()


def test_dev_mode_on_a_port_of_a_paas_is_refused(tmp_path: Path) -> None:
    """docs/settings.md: `$PORT` binds `0.0.0.0:$PORT`, which dev mode must never be bound to."""
    result = _run(tmp_path, *GUNICORN, "service.wsgi:app", PYLON_DEV_MODE="1", PORT="1")
    assert result.returncode != 0
    assert "PYLON_DEV_MODE: " in result.stderr


def test_a_wrong_port_is_told_beside_every_other_fault(tmp_path: Path) -> None:
    """Printing every fault at once, those of gunicorn's own numbers too; `pylon-oidc check` prints the same."""
    wrong = {"PORT": "70000", "WEB_CONCURRENCY": "0", "PYLON_JWT_SECRET": "short"}
    result = _run(tmp_path, *GUNICORN, "service.wsgi:app", **wrong)
    assert result.returncode == 2
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == list(wrong)
    assert _check(tmp_path, **wrong).stderr == result.stderr


@each_of(("value", "told"), [("abc", "WEB_CONCURRENCY: "), ("-1", "WEB_CONCURRENCY: "), ("", "PORT: ")])
def test_make_run_tells_what_gunicorn_would_answer_with_a_traceback(
    tmp_path: Path, value: str, told: str
) -> None:
    """`NAME: what is wrong; what to write instead`; an empty value counts as unset."""
    result = _run(tmp_path, PROJECT / "deploy/dev-run", PORT="70000", WEB_CONCURRENCY=value)
    assert result.returncode == 2
    assert result.stderr.startswith(told)
    assert "Traceback" not in result.stderr


def test_dev_mode_on_loopback_starts(gunicorn: Callable[..., Gunicorn]) -> None:
    """docs/settings.md: dev mode on a loopback bind is what it is for."""
    server = gunicorn(PYLON_DEV_MODE="1")
    answer = server.call("GET", "/.well-known/openid-configuration")
    assert answer.json()["issuer"] == f"http://127.0.0.1:{server.port}"


def test_a_sound_configuration_is_said_to_be_so(tmp_path: Path) -> None:
    """Exit 0 ok; warnings and notes do not keep the service from starting."""
    result = _check(tmp_path, PYLON_JWT_SECRET=STRONG, PYLON_FOO="1")
    assert result.returncode == 0
    assert "warning: PYLON_FOO" in result.stdout
    assert "note: " in result.stdout and "RS256" in result.stdout  # OpenID Connect asks for more than HS256
    assert STRONG not in result.stdout + result.stderr


def test_a_key_file_is_made_at_the_start_and_its_kid_logged(
    tmp_path: Path, gunicorn: Callable[..., Gunicorn]
) -> None:
    """docs/settings.md: made when the file is missing; its kid logged."""
    path = tmp_path / "keys" / "key.pem"
    server = gunicorn(PYLON_OIDC_KEY_PATH=str(path), PYLON_JWT_ALG="RS256")
    (key,) = server.call("GET", "/oidc/jwks").json()["keys"]
    assert key["kid"] in server.output()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_in_the_environment_is_never_printed(gunicorn: Callable[..., Gunicorn]) -> None:
    """docs/security.md: nor any part of it, at the most talkative level."""
    server = gunicorn(PYLON_OIDC_PRIVATE_KEY=rsa_pem(), PYLON_JWT_SECRET=STRONG, PYLON_LOG_LEVEL="debug")
    server.call("GET", "/oidc/jwks")
    assert STRONG not in server.output()
    assert not any(line in server.output() for line in rsa_pem().splitlines()[1:-1])
