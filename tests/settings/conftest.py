"""Runs the commands in an environment that a test names, on a store that it can look into."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.sessions import LocalSessions
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an environment of nothing but a data folder and what is given."""
    for name in list(os.environ):
        if name.startswith("PYLON_") or name in {"DATABASE_URL", "FORWARDED_ALLOW_IPS"}:
            monkeypatch.delenv(name)

    def call(*arguments: str, **environ: str) -> Result:
        env = {"PYLON_DATA_DIR": str(tmp_path / "data")} | environ
        return CliRunner().invoke(main, list(arguments), env=env)

    return call


@pytest.fixture
def sessions(tmp_path: Path, run: Run) -> Iterator[LocalSessions]:
    """The sessions of the migrated store that the commands will find."""
    assert run("migrate").exit_code == 0
    store = SqlStore(SqliteDatabase(tmp_path / "data" / "pylon.db"))
    yield LocalSessions(store, lifetime_s=3600)
    store.close()
