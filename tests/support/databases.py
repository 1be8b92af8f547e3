"""A migrated, empty SQLite file, made once a process: a migration costs more than most tests."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pylon.db"
        store = SqlStore(SqliteDatabase(path))
        store.migrate()
        store.close()
        return path.read_bytes()


def make_migrated(path: Path) -> None:
    """Make the file as `pylon-oidc migrate` does, with its folder, unless it is there.

    Args:
        path: where.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(_migrated())
