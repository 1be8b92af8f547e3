"""docs/cli.md: the commands: exit 0 ok, 1 a finding or a failed operation, 2 wrong usage or configuration."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import click

from service.cli import main
from service.records.sessions import SignIn
from service.sessions import LocalSessions
from tests.settings.conftest import Run
from tests.settings.reading import STRONG, modulus
from tests.support.cases import each_of
from tests.support.gunicorn import PROJECT, clean_environment

EVERY = [
    ["check"],
    ["migrate"],
    ["sessions", "list", "--user", "u"],
    ["sessions", "revoke", "--user", "u"],
    ["sweep"],
    ["clients", "add", "--redirect-uri", "https://rp.example/cb"],
    ["clients", "list"],
]
ON_THE_STORE = EVERY[1:]


def _sign_in(
    sessions: LocalSessions, user_id: str = "user-1", *, ago_s: int = 0, device: str | None = None
) -> str:
    new = sessions.create(SignIn(user_id, device=device), now=int(time.time()) - ago_s)
    return new.session.sid


@each_of("command", EVERY, ids=" ".join)
def test_a_wrong_database_is_told_by_every_command(run: Run, command: list[str]) -> None:
    """Exit 2 wrong configuration, with the fault, and nothing of a password."""
    result = run(*command, DATABASE_URL="mysql://u:canary7f3a@h/n")
    assert result.exit_code == 2
    assert result.stderr.startswith("DATABASE_URL: ")
    assert "canary7f3a" not in result.output
    assert "Traceback" not in result.output


@each_of("command", ON_THE_STORE, ids=" ".join)
def test_a_fault_elsewhere_does_not_keep_an_operator_from_the_store(run: Run, command: list[str]) -> None:
    """A command ignores settings that it does not need: somebody is locked out although the key is wrong."""
    run.have_database()
    assert run(*command, PYLON_JWT_SECRET="short").exit_code == 0


@each_of("command", [each for each in ON_THE_STORE if each != ["migrate"]], ids=" ".join)
def test_a_database_that_is_not_there_is_a_failure(run: Run, command: list[str]) -> None:
    """Exit 1 a failed operation, in one line, which names `pylon-oidc migrate`; SQLite migrates at the first start."""
    result = run(*command)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.endswith("run: pylon-oidc migrate\n")
    assert "Traceback" not in result.output


@each_of("command", ON_THE_STORE, ids=" ".join)
def test_a_server_that_is_away_is_a_failure(run: Run, command: list[str]) -> None:
    """Exit 1 a failed operation; the URL, which has the password in it, is not repeated."""
    result = run(*command, DATABASE_URL="postgresql://u:canary7f3a@127.0.0.1:1/n")
    assert result.exit_code == 1
    assert "canary7f3a" not in result.output
    assert len(result.stderr.splitlines()) == 1


@each_of("command", ON_THE_STORE, ids=" ".join)
def test_a_file_that_is_no_database_is_a_failure(tmp_path: Path, run: Run, command: list[str]) -> None:
    """Exit 1 a failed operation, in one line."""
    path = tmp_path / "x.db"
    path.write_bytes(b"this is no database at all, whatever its name says\n" * 50)
    result = run(*command, DATABASE_URL=f"sqlite:///{path}")
    assert result.exit_code == 1
    assert "Traceback" not in result.output and result.exception.__class__ is SystemExit


@each_of("command", [each for each in ON_THE_STORE if each != ["migrate"]], ids=" ".join)
def test_a_database_without_its_schema_names_the_remedy(tmp_path: Path, run: Run, command: list[str]) -> None:
    """Exit 1 a failed operation; a schema behind names `pylon-oidc migrate`."""
    path = tmp_path / "x.db"
    path.touch()
    result = run(*command, DATABASE_URL=f"sqlite:///{path}")
    assert result.exit_code == 1
    assert result.stderr.endswith("run: pylon-oidc migrate\n")


def test_a_folder_that_cannot_be_made_is_a_failure(run: Run) -> None:
    """Exit 1 a failed operation, in one line: not every right can be looked up beforehand."""
    result = run("migrate", DATABASE_URL="sqlite:////proc/nothing/x.db")
    assert result.exit_code in {1, 2}
    assert len(result.stderr.splitlines()) == 1 and result.exception.__class__ is SystemExit


WRONG_USAGE = [
    ["unknown"],
    ["sessions", "unknown"],
    ["sessions", "list"],
    ["sessions", "revoke"],
    ["sessions", "list", "--user"],
    ["check", "--unknown"],
    ["check", "extra"],
    ["migrate", "--json"],
    ["sweep", "extra"],
    ["--unknown"],
]


@each_of("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_is_exit_2(run: Run, arguments: list[str]) -> None:
    """2 wrong usage."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.output or result.output.startswith("Error: ")


@each_of(
    "arguments",
    [["--help"], ["-h"], ["check", "--help"], ["sessions", "list", "-h"], ["--version"]],
    ids=" ".join,
)
def test_asking_for_help_is_ok(run: Run, arguments: list[str]) -> None:
    """Exit 0 ok."""
    assert run(*arguments).exit_code == 0


def test_migrate_makes_the_schema_and_says_so_twice(tmp_path: Path, run: Run) -> None:
    """`migrate` brings the schema up to date; a second time there is nothing to do, and exit 0."""
    for _ in range(2):
        assert run("migrate").exit_code == 0
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "pylon.db").stat().st_mode & 0o777 == 0o600


def test_list_shows_where_a_user_is_signed_in(run: Run, sessions: LocalSessions) -> None:
    """`sessions list`, a table; of that user, and only of live sessions."""
    mine, other, ended = (
        _sign_in(sessions, device="Firefox"),
        _sign_in(sessions, "user-2"),
        _sign_in(sessions, ago_s=7200),
    )
    result = run("sessions", "list", "--user", "user-1", "--wide")
    assert result.exit_code == 0
    head, *rows = result.output.splitlines()
    assert head.split("  ")[0].strip() == "sid"
    assert [row.split()[0] for row in rows] == [mine]
    assert "Firefox" in rows[0]
    assert other not in result.output and ended not in result.output


def test_list_prints_json_where_it_is_asked_to(run: Run, sessions: LocalSessions) -> None:
    """`--json` on every command that prints a table."""
    sid = _sign_in(sessions, device="Firefox")
    result = run("sessions", "list", "--user", "user-1", "--json")
    (row,) = json.loads(result.stdout)["sessions"]
    assert set(row) == {"sid", "token_prefix", "device", "created_at", "expires_at"}
    assert (row["sid"], row["device"], row["expires_at"] - row["created_at"]) == (sid, "Firefox", 3600)
    assert json.loads(run("sessions", "list", "--user", "nobody", "--json").stdout) == {"sessions": []}


def test_list_prints_nothing_that_moves_a_terminal(run: Run, sessions: LocalSessions) -> None:
    """docs/security.md: what an app gave as a device's name is text of strangers."""
    _sign_in(sessions, device="\x1b[31mred\nnext\u202e")
    table = run("sessions", "list", "--user", "user-1", "--wide").output
    assert "\x1b" not in table and "\u202e" not in table
    assert len(table.splitlines()) == 2


def test_revoke_signs_a_user_out_everywhere(run: Run, sessions: LocalSessions) -> None:
    """`sessions revoke --user`."""
    _sign_in(sessions)
    _sign_in(sessions)
    other = _sign_in(sessions, "user-2")
    result = run("sessions", "revoke", "--user", "user-1")
    assert (result.exit_code, "2" in result.output) == (0, True)
    assert sessions.list("user-1", now=int(time.time())) == []
    assert [each.sid for each in sessions.list("user-2", now=int(time.time()))] == [other]
    assert run("sessions", "revoke", "--user", "user-1").exit_code == 0


def test_sweep_removes_what_has_ended_and_nothing_else(run: Run, sessions: LocalSessions) -> None:
    """`sweep`."""
    live = _sign_in(sessions)
    for _ in range(3):
        _sign_in(sessions, ago_s=7200)
    result = run("sweep")
    assert result.exit_code == 0
    assert [each.sid for each in sessions.list("user-1", now=int(time.time()))] == [live]
    assert "Removed" in result.output
    assert run("sweep").output == "Removed 0 ended records.\n"


def test_check_prints_json_where_it_is_asked_to(run: Run) -> None:
    """`--json`: faults, warnings and notes; the exit code stays."""
    good = run("check", "--json", PYLON_JWT_SECRET=STRONG)
    assert good.exit_code == 0
    assert set(json.loads(good.stdout)) == {"faults", "warnings", "notes"}
    assert json.loads(good.stdout)["faults"] == []
    bad = run("check", "--json", PYLON_JWT_SECRET="short", PYLON_JWT_ALG="RS256")
    assert bad.exit_code == 2
    assert [fault["name"] for fault in json.loads(bad.stdout)["faults"]] == [
        "PYLON_JWT_SECRET",
        "PYLON_JWT_ALG",
    ]


@each_of(
    ("environ", "noted"),
    [({}, True), ({"PYLON_OIDC_JWKS_RSA_N": "<modulus>"}, False)],
)
def test_check_notes_that_hs256_alone_is_not_what_openid_connect_asks_for(
    run: Run, environ: dict[str, str], noted: bool
) -> None:
    """docs/endpoints.md: `check` runs Authlib's validators; that HS256 by itself is not enough is a note there, not a fault."""
    given = {name: modulus() for name in environ}
    result = run("check", PYLON_JWT_SECRET=STRONG, **given)
    assert result.exit_code == 0
    assert any("RS256" in line and "MUST" in line for line in result.output.splitlines()) is noted


@each_of("program", [[sys.executable, "-m", "service"], [str(Path(sys.executable).with_name("pylon-oidc"))]])
def test_the_program_has_two_names(program: list[str], tmp_path: Path) -> None:
    """`pylon-oidc` (also `python -m service`)."""
    environment = clean_environment(PYLON_DATA_DIR=str(tmp_path))
    result = subprocess.run(
        [*program, "--version"],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stdout.split()[0].rstrip(",")) == (0, "pylon-oidc")


def test_the_list_of_commands_says_of_each_what_it_says_of_itself(run: Run) -> None:
    """`--help` imports none of them, which is most of its time, and its lines are theirs."""
    listed = run("--help").output
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        text = " ".join(listed.partition("Commands:\n")[2].split())
        assert f"{name} {command.get_short_help_str(200)}" in text
    loaded = "import sys; from service.cli import main; main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert not {"msgspec", "sqlalchemy", "falcon", "cryptography"} & set(re.findall(r"'(\w+)'", done.stdout))


def test_settings_are_read_without_a_framework() -> None:
    """A short command's time is its imports, and each of them reads the settings. What writes JSON is small: signing needs it."""
    loaded = "import sys; import service.settings; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert not {"pydantic", "sqlalchemy", "falcon"} & set(re.findall(r"'(\w+)'", done.stdout))
