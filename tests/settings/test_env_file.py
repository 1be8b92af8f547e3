"""`--env-file`: the settings of a service, as systemd reads them from its EnvironmentFile (systemd.exec(5))."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from service.cli import main
from service.settings.env_file import MalformedEnvFile, parse_env_file
from tests.support.cases import each_of
from tests.support.gunicorn import SECRET, clean_environment

READ = {
    "A=1": {"A": "1"},
    "A=1\nB=2\n": {"A": "1", "B": "2"},
    "# a comment\n; another\n\n  A=1": {"A": "1"},
    "A=": {"A": ""},
    "A=  two words  \n": {"A": "two words"},
    "A = 1": {"A": "1"},
    "A='single quoted # \\n'": {"A": "single quoted # \\n"},
    'A="double \\"quoted\\" \\$HOME \\n"': {"A": 'double "quoted" $HOME \\n'},
    "A='one'\"two\"": {"A": "onetwo"},
    'A=[{"client_id": "wiki"}]': {"A": '[{"client_id": "wiki"}]'},
    "A=back\\slash": {"A": "backslash"},
    "A=one \\\ntwo": {"A": "one two"},
    'A="two\nlines"': {"A": "two\nlines"},
    "A=1\r\nB=2\r\n": {"A": "1", "B": "2"},
    "A=1#2": {"A": "1#2"},
    "A=1\nA=2": {"A": "2"},
    "A=b=c": {"A": "b=c"},
}
REFUSED = {
    "no assignment": "line 1",
    "A=1\nexport B=2": "line 2",
    "=1": "line 1",
    "A='open": "line 1",
    'A=1\nB="open\n': "line 2",
}


@each_of("text", READ)
def test_a_file_is_read_as_systemd_reads_it(text: str) -> None:
    """Comments, blanks, quotes and backslashes mean what systemd.exec(5) says."""
    assert parse_env_file(text) == READ[text]


@each_of("text", REFUSED)
def test_what_is_no_assignment_is_refused_by_its_line(text: str) -> None:
    """The message names the line, and shows nothing of its text."""
    with pytest.raises(MalformedEnvFile, match=REFUSED[text]) as caught:
        parse_env_file(text)
    assert "open" not in str(caught.value).replace("opens", "")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_any_value_survives_between_quotes(value: str) -> None:
    """Between double quotes, with a backslash before what needs one, every value comes back as it was."""
    escaped = "".join(f"\\{char}" if char in '"\\`$' else char for char in value)
    assert parse_env_file(f'A="{escaped}"\nB=1') == {"A": value, "B": "1"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, as a shell runs it."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_reads_the_settings_of_the_file_and_says_which(tmp_path: Path) -> None:
    """The file's values win over the environment's; check names the settings, whose it is, and no value."""
    file = tmp_path / "env"
    file.write_text(f"PYLON_OIDC_ISSUER='https://id.example.com'\nPYLON_JWT_SECRET={SECRET}\n")
    ran = run(
        "check",
        "--env-file",
        str(file),
        PYLON_OIDC_ISSUER="https://other.example.com",
        PYLON_DATA_DIR=str(tmp_path / "d"),
    )
    assert ran.returncode == 0, ran.stderr
    assert "issuer: https://id.example.com" in ran.stdout
    assert "settings: PYLON_OIDC_ISSUER, PYLON_JWT_SECRET, PYLON_DATA_DIR, read as " in ran.stdout
    assert SECRET not in ran.stdout + ran.stderr


def test_check_says_that_there_were_no_settings(tmp_path: Path) -> None:
    """An empty environment is sound, and not what an operator meant to check."""
    ran = subprocess.run(
        [sys.executable, "-m", "service", "check"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "settings: none are set" in ran.stdout
    assert "--env-file FILE" in ran.stdout


@each_of(
    "command",
    [
        "check",
        "migrate",
        "sweep",
        "sessions list",
        "sessions revoke",
        "clients list",
        "clients add",
        "keys list",
        "keys rotate",
        "doctor",
    ],
)
def test_every_command_takes_the_file(command: str) -> None:
    """Each command's help has it, and the group's."""
    assert "--env-file FILE" in CliRunner().invoke(main, [*command.split(), "--help"]).output


def test_a_file_that_is_not_there_or_malformed_is_wrong_usage(tmp_path: Path) -> None:
    """Exit 2, one reason, nothing of the file's content."""
    (tmp_path / "bad").write_text("s3cret without an assignment\n")
    for name, reason in [("missing", "No such file"), ("bad", "line 1 is not an assignment")]:
        ran = run("migrate", "--env-file", str(tmp_path / name), PYLON_DATA_DIR=str(tmp_path / "d"))
        assert ran.returncode == 2
        assert reason in ran.stderr
        assert "s3cret" not in ran.stderr
        assert not (tmp_path / "d").exists()
