"""Tables of the command line: 80 columns at most, every value whole with `--wide` (docs/cli.md)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from service.cli import main
from service.cli.common import print_rows
from tests.docs.markdown import PROJECT
from tests.support.gunicorn import clean_environment

ROWS = [
    {
        "client_id": "c_" + "x" * 40,
        "client_name": "A name of several words " * 4,
        "source": "database",
        "first_party": True,
    },
    {"client_id": "wiki", "client_name": None, "source": "environment", "first_party": False},
]
COLUMNS = list(ROWS[0])


def test_a_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Words wrap to the next line, an id is cut with a mark, and nothing is printed as Python does."""
    print_rows(ROWS, COLUMNS, name="clients", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("…" in line for line in lines)
    assert " ".join(lines).count("several") == 4
    assert "yes" in lines[1] and "no" in lines[-1] and "True" not in "".join(lines)


def test_wide_shows_every_value_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A row a line, whatever its length."""
    print_rows(ROWS, COLUMNS, name="clients", as_json=False, wide=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert ROWS[0]["client_id"] in lines[1]
    assert str(ROWS[0]["client_name"]).strip() in lines[1]


def test_json_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get the values as they are."""
    print_rows(ROWS, COLUMNS, name="clients", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"clients": ROWS}


def _commands(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _commands(below, *names, name)


def test_every_help_fits_80_columns_and_is_whole() -> None:
    """No line is longer, and none of what a command does is cut."""
    for names in _commands(main):
        shown = CliRunner().invoke(main, [*names, "--help"], terminal_width=80)
        assert shown.exit_code == 0
        lines = [line for line in shown.output.splitlines() if not line.startswith("Usage:")]
        assert [line for line in lines if len(line) > 80 or line.endswith("...")] == [], names


def test_sentences_fit_a_terminal_and_are_lines_elsewhere(tmp_path: Path) -> None:
    """Warnings, notes and faults are wrapped between words where somebody reads them; for programs each is one line."""
    command = [sys.executable, "-m", "service", "check"]
    environment = clean_environment(PYLON_OIDC_ISSUER="https://id.example.com", PYLON_DATA_DIR=str(tmp_path))
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(ours, "rb") as terminal:
        shown = subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs, cwd=PROJECT)
        os.close(theirs)
        lines: list[str] = []
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            lines.extend(line.decode().rstrip() for line in terminal)
        assert shown.wait(30) == 0
    plain = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=PROJECT, timeout=120, check=True
    )
    assert max(map(len, lines)) <= 80 < max(map(len, plain.stdout.splitlines()))
    assert " ".join(" ".join(lines).split()) == " ".join(plain.stdout.split())
