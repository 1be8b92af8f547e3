"""Runs the commands in an environment that a test names, on a store that it can look into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.sessions import LocalSessions
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.support.databases import make_migrated


class Run:
    """Runs commands in an environment of nothing but a data folder and what is given."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def __call__(self, *arguments: str, **environ: str) -> Result:
        env = {"PYLON_DATA_DIR": str(self._data)} | environ
        return CliRunner().invoke(main, list(arguments), env=env)

    def have_database(self) -> None:
        """Begin with what `migrate` makes in the data folder."""
        make_migrated(self._data / "pylon.db")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands, on a data folder of the test's own."""
    for name in list(os.environ):
        if name.startswith("PYLON_") or name in {"DATABASE_URL", "FORWARDED_ALLOW_IPS"}:
            monkeypatch.delenv(name)

    return Run(tmp_path / "data")


@pytest.fixture
def sessions(tmp_path: Path, run: Run) -> Iterator[LocalSessions]:
    """The sessions of the migrated store that the commands will find."""
    run.have_database()
    store = SqlStore(SqliteDatabase(tmp_path / "data" / "pylon.db"))
    yield LocalSessions(store, lifetime_s=3600)
    store.close()
