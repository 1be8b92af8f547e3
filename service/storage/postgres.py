"""PostgreSQL, for more than one machine, through psycopg 3."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

CONNECT_TIMEOUT_S: Final = 3
_MIGRATION_LOCK: Final = 0x70796C6F6E  # "pylon"


class PostgresDatabase:
    """`storage.sql.Database` on a PostgreSQL server."""

    begin = "BEGIN"
    conflict = psycopg.IntegrityError
    has_revision = "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL"

    def __init__(self, url: str) -> None:
        self._url = url
        self._refused_until = 0.0

    def engine(self) -> Engine:
        """See `storage.sql.Database.engine`."""
        return create_engine(
            "postgresql+psycopg://", creator=self._connected, poolclass=NullPool, hide_parameters=True
        )

    def connect(self) -> psycopg.Connection[Any]:
        """See `storage.kept.Driver.connect`."""
        connection = self._connected()
        connection.autocommit = True
        return connection

    def is_stale(self, connection: Any) -> bool:
        """See `storage.kept.Driver.is_stale`."""
        return bool(connection.closed)

    def _connected(self) -> psycopg.Connection[Any]:
        # A server that does not even refuse costs the whole timeout. For as long as an attempt took, the next ones
        # fail at once, so that at most half of a worker's time is spent on it and discovery still answers.
        started = time.monotonic()
        if started < self._refused_until:
            raise psycopg.OperationalError("the database did not answer a moment ago")
        try:
            return psycopg.connect(
                self._url,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name="pylon-oidc",
                tcp_user_timeout=10_000,
            )
        except psycopg.OperationalError:
            ended = time.monotonic()
            self._refused_until = ended + (ended - started)
            raise

    @contextlib.contextmanager
    def migration_lock(self) -> Iterator[None]:
        """See `storage.sql.Database.migration_lock`: `lock_schema` suffices."""
        yield

    def lock_schema(self, connection: Connection) -> None:
        """See `storage.sql.Database.lock_schema`: an advisory lock that ends with the transaction."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})

    def is_outage(self, error: BaseException) -> bool:
        """See `storage.kept.Driver.is_outage`: also a server that is read-only, or has no tables yet."""
        return isinstance(
            error,
            (
                psycopg.OperationalError,
                psycopg.InterfaceError,
                psycopg.InternalError,
                psycopg.errors.UndefinedTable,
            ),
        )
