"""Tables of the command line: 80 columns at most, every value whole with `--wide` (docs/cli.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from service.cli import main
from service.cli.common import print_rows

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
    """Words go on below, an id is cut and says so, and nothing is Python's."""
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
