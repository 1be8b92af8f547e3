"""Taking a database away from under a running program, and giving it back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pytest

from tests.support.gunicorn import PROJECT, clean_environment
from tests.support.postgres import PostgresCluster


class Outage(Protocol):
    """While the context lasts, the database is away."""

    def __enter__(self) -> Self:
        """Take it away."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        ...


class SqliteOutage:
    """The database's files, moved to another name: a volume that is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _files(self) -> Iterator[tuple[Path, Path]]:
        for suffix in ("", "-wal", "-shm"):
            here = self.path.with_name(self.path.name + suffix)
            yield here, here.with_name("away-" + here.name)

    def __enter__(self) -> Self:
        for here, away in self._files():
            if here.exists():
                here.rename(away)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for here, away in self._files():
            here.unlink(missing_ok=True)
            if away.exists():
                away.rename(here)


class PostgresOutage:
    """The server, stopped: connections that are open end, and new ones are refused."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> Self:
        self._cluster.stop("fast")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.start()


@contextmanager
def migrated_database(
    request: pytest.FixtureRequest, case: str | None = None
) -> Iterator[tuple[str, Callable[[], Outage]]]:
    """A database with its schema, for fixtures that live longer than a test.

    Args:
        request: Of a fixture whose parameter is the case, where none is given.
        case: `sqlite` or `postgres`, and perhaps ` on granian`.

    Returns:
        Its URL, and what takes it away while its context lasts.
    """
    if (case or request.param).startswith("sqlite"):
        path = request.getfixturevalue("tmp_path_factory").mktemp("database") / "pylon.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}", lambda: SqliteOutage(path)
        return
    cluster = request.getfixturevalue("postgres_cluster")
    assert isinstance(cluster, PostgresCluster)
    cluster.start()
    url = cluster.create_database(like=request.getfixturevalue("migrated_postgres"))
    yield url, lambda: PostgresOutage(cluster)
    cluster.start()
    cluster.drop_database(url)


@contextmanager
def hanging(code: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that says `in the middle` there, and waits for a line; it is killed at the end of the block.

    Args:
        code: What it runs.
        url: Its `DATABASE_URL`.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=clean_environment(DATABASE_URL=url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        yield process
    finally:
        process.kill()
        process.communicate()
