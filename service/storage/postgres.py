"""PostgreSQL, for more than one machine, through psycopg 3."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from service.storage import postgres_reasons
from service.storage.interface import StoreRefused, StoreUnavailable
from service.storage.kept import KeptConnections

CONNECT_TIMEOUT_S: Final = 3
ANSWER_WITHIN_S: Final = 5
_END_WITHIN_S: Final = 1
_PREPARE_AFTER: Final = 2  # uses
_MIGRATION_LOCK: Final = 0x70796C6F6E  # "pylon"
_SECRET: Final = {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}

#: What says that the database cannot be asked, not that the question was wrong.
_OUTAGES: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
    # Of statements that are kept prepared: a pooler has given the session to somebody else, or the schema has changed.
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.FeatureNotSupported,
)

_Result = TypeVar("_Result")


class TookTooLong(psycopg.OperationalError, TimeoutError):
    """No answer within the time that one is waited for."""


class _Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever: a server that is frozen, or a lock that is never given back.

    Only the client can tell: such a server heeds no `statement_timeout`, and its kernel goes on acknowledging.
    A server that can still be told to end the statement is well; one that is silent about that too is not.
    """

    answer_within_s: float | None = None
    on_silence: Callable[[], None]

    def wait(self, gen: PQGen[_Result], interval: float = 0.1, timeout: float | None = None) -> _Result:
        """Wait for an answer, but not for ever."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_within_s)
        except psycopg.errors._WaitTimeout:  # how psycopg tells that `timeout` is over
            return self._ended(gen, interval)

    def _ended(self, gen: PQGen[_Result], interval: float) -> _Result:
        """What becomes of a statement that is ended at the server: a lock that it waited for is no sign of an outage.

        Raises:
            TookTooLong: but where its answer came at that very moment.
        """
        try:
            self.cancel_safe(timeout=_END_WITHIN_S)
            return super().wait(gen, interval, _END_WITHIN_S)
        except psycopg.errors.QueryCanceled:
            raise TookTooLong("the database did not answer in time") from None
        except psycopg.OperationalError as error:
            if error.sqlstate:  # it had an answer of its own
                raise
            # Silence, even about that: a connection that owes an answer is of no more use.
            self.pgconn.finish()
            self.on_silence()
            raise TookTooLong("the database does not answer") from None


class PostgresDatabase:
    """`storage.sql.Database` on a PostgreSQL server.

    Args:
        url: libpq's form.
        prepare: whether the server keeps statements prepared. They belong to a session of the server, and a
            transaction pooler gives us another one.
        answer_within_s: how long an answer is waited for, in s.
    """

    # What is relied on is said, whatever the role's default is; and within the transaction, where a pooler keeps it.
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
    conflict = psycopg.IntegrityError
    has_revision = "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL"

    def __init__(self, url: str, *, prepare: bool = False, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._url = url
        self._secrets = [str(value) for name, value in conninfo_to_dict(url).items() if name in _SECRET]
        self._prepare_threshold = _PREPARE_AFTER if prepare else None
        self._answer_within_s = answer_within_s
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

    def _connected(self) -> _Connection:
        # A server that does not even refuse costs the whole timeout. For as long as an attempt took, or a wait for an
        # answer, the next ones fail at once, so that at most half of a worker's time is spent on it and discovery still answers.
        started = time.monotonic()
        if started < self._refused_until:
            raise psycopg.OperationalError("the database did not answer a moment ago")
        try:
            connection = _Connection.connect(
                self._url,
                connect_timeout=CONNECT_TIMEOUT_S,
                prepare_threshold=self._prepare_threshold,
                client_encoding="UTF8",
                application_name="pylon-oidc",
                tcp_user_timeout=10_000,
            )
        except psycopg.OperationalError:
            self._refuse_for(time.monotonic() - started)
            raise
        connection.answer_within_s = self._answer_within_s
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # of a migration
        connection.on_silence = lambda: self._refuse_for(self._answer_within_s)
        return connection

    def _refuse_for(self, seconds: float) -> None:
        self._refused_until = time.monotonic() + seconds

    @contextlib.contextmanager
    def migration_lock(self) -> Iterator[None]:
        """See `storage.sql.Database.migration_lock`: `lock_schema` suffices."""
        yield

    def lock_schema(self, connection: Connection) -> None:
        """See `storage.sql.Database.lock_schema`: an advisory lock that ends with the transaction.

        Whoever migrates waits for the others, and for a table as long as that takes.
        """
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.answer_within_s = None
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})

    @contextlib.contextmanager
    def sweeping_turn(self) -> Iterator[bool]:
        """See `storage.sweeping.Sweepable.sweeping_turn`: rows that another one removes are passed over."""
        yield True

    def give_back(self, connections: KeptConnections, *, within_s: float) -> bool:
        """See `storage.sweeping.Sweepable.give_back`: autovacuum does it."""
        return False

    def outage(self, error: BaseException) -> StoreUnavailable | None:
        """See `storage.kept.Driver.outage`: also a server that is read-only, has no tables yet, or refuses rights."""
        if not isinstance(error, _OUTAGES):
            return None
        # What a statement met is told without its details, which may hold what is stored.
        text = error.diag.message_primary if error.sqlstate else str(error)
        reason = postgres_reasons.one_line(text or type(error).__name__, self._secrets)
        remedy = postgres_reasons.remedy(error.sqlstate, reason)
        return StoreUnavailable(reason) if remedy is None else StoreRefused(reason, remedy)

    def gave_way(self, error: BaseException) -> bool:
        """See `storage.kept.Driver.gave_way`: a deadlock, or what could not be serialized."""
        return isinstance(error, (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected))
