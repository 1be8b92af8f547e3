"""PostgreSQL, for more than one machine, through psycopg 3."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from service.storage import postgres_reasons
from service.storage.interface import StoreRefused, StoreUnavailable
from service.storage.kept import KeptConnections, Run
from service.storage.reserve import Room, Unlimited
from service.storage.schema import FIRST, TABLES, Table

if TYPE_CHECKING:
    from sqlalchemy import Engine

CONNECT_TIMEOUT_S: Final = 3
ANSWER_WITHIN_S: Final = 5
_END_WITHIN_S: Final = 1
_SILENT: Final = "the database does not answer"
_PREPARE_AFTER: Final = 2  # uses
_MIGRATION_LOCK: Final = 0x70796C6F6E  # "pylon"
_SECRET: Final = {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}

#: Errors that mean that the database is unavailable, not that the statement was wrong.
_OUTAGES: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.DuplicateTable,
    psycopg.errors.InvalidSchemaName,
    # Of prepared statements: a pooler has given the session to another client, or the schema has changed.
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.FeatureNotSupported,
)

#: The schemas that have the tables: the known one, those of the search path, others that the role may read.
_SCHEMAS: Final = """
SELECT name, place FROM (
    SELECT n.nspname AS name, array_position(current_schemas(false), n.nspname) AS place,
        has_schema_privilege(n.oid, 'USAGE') AND bool_and(has_table_privilege(c.oid, 'SELECT')) AS readable
    FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
    WHERE c.relkind IN ('r', 'p') AND c.relname = ANY(%(first)s::text[])
    GROUP BY n.oid, n.nspname HAVING count(*) = cardinality(%(first)s::text[])
) AS found
WHERE place IS NOT NULL OR (readable AND NOT %(by_path)s)
ORDER BY name = %(known)s::text DESC NULLS LAST, place NULLS LAST, name
"""
#: From here on, the transaction uses the schema of the tables.
_USE_SCHEMA: Final = "SELECT set_config('search_path', quote_ident(coalesce(%(known)s::text, current_schema(), 'public')), true)"
#: Whether the server accepts writes, and which rights the role lacks.
_WRITES: Final = """
SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', current_user, (
    SELECT string_agg(DISTINCT wanted, ', ') || ' in ' || min(c.relname) FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
    WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s::text[]) AND NOT has_table_privilege(c.oid, wanted)
)
"""

#: Names of our statements: quoted ones, and parameters.
_NAMES: Final = re.compile(r'("[^"]*")|:(\w+)')

_Result = TypeVar("_Result")
_NO_TURN: Final = contextlib.nullcontext()


class TookTooLong(psycopg.OperationalError, TimeoutError):
    """The database did not answer in time."""


class _Connection(psycopg.Connection[Any]):
    """A connection that never waits without limit, for example for a frozen server or a lock that is never released.

    Only the client can notice: a frozen server ignores `statement_timeout`, and its kernel still acknowledges packets.
    A server that can still cancel the statement is healthy. One that does not answer that either is not.
    """

    answer_within_s: float | None = None
    on_silence: Callable[[], None]

    _own_cursor: psycopg.Cursor[Any] | None = None

    def execute(self, query: Any, params: Any = None, **options: Any) -> psycopg.Cursor[Any]:
        """Run a statement with a cursor that is kept: to make one is a quarter of a small statement's CPU.

        Returns:
            The cursor, whose rows must be read before the next statement.
        """
        if self._own_cursor is None:
            self._own_cursor = self.cursor()
        return self._own_cursor.execute(query, params, **options)

    def wait(self, gen: PQGen[_Result], interval: float = 0.1, timeout: float | None = None) -> _Result:
        """Wait for an answer, but not longer than the limit."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_within_s)
        except psycopg.errors._WaitTimeout:  # psycopg's way to say that `timeout` is over
            return self._ended(gen, interval)

    def _ended(self, gen: PQGen[_Result], interval: float) -> _Result:
        """Cancel a statement at the server. If it only waited for a lock, that is not an outage.

        Raises:
            TookTooLong: unless its answer came at that very moment.
        """
        try:
            self.cancel_safe(timeout=_END_WITHIN_S)
            return super().wait(gen, interval, _END_WITHIN_S)
        except psycopg.errors.QueryCanceled:
            raise TookTooLong("the database did not answer in time") from None
        except psycopg.OperationalError as error:
            if error.sqlstate:  # the statement had its own error
                raise
            # No answer to the cancellation either: the connection cannot be used any more.
            self.pgconn.finish()
            self.on_silence()
            raise TookTooLong(_SILENT) from None


class PostgresDatabase:
    """`storage.database.Database` on a PostgreSQL server.

    Args:
        url: libpq's form.
        prepare: whether to use prepared statements. They belong to a session of the server, and a transaction pooler
            may give us another session.
        answer_within_s: how long to wait for an answer, in s.
    """

    # Set what we rely on, whatever the role's default is; and within the transaction, so that a pooler keeps it.
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
    begin_snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    conflict = psycopg.IntegrityError

    def __init__(self, url: str, *, prepare: bool = False, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._url = url
        options = conninfo_to_dict(url)
        self._role = str(options.get("user") or "this role")
        self._by_path = "search_path" in str(options.get("options"))  # a value in the URL replaces ours
        self._secrets = [str(value) for name, value in options.items() if name in _SECRET]
        self._prepare_threshold = _PREPARE_AFTER if prepare else None
        self.patience_s = answer_within_s
        self._refused_until, self._refusal = 0.0, ""
        self.room: Room = Unlimited()

    def spelled(self, sql: str) -> str:
        """See `storage.database.Database.spelled`: with the parameters of psycopg."""
        return _NAMES.sub(lambda name: f"%({name[2]})s" if name[2] else name[1].replace("%", "%%"), sql)

    def engine(self) -> Engine:
        """See `storage.database.Database.engine`."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine(
            "postgresql+psycopg://", creator=self._patient, poolclass=NullPool, hide_parameters=True
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
        # A server that does not even refuse costs the whole timeout. After such a wait, attempts fail at once for the same
        # time, so that a worker waits at most half of the time, and discovery is still answered. They have its reason: the log
        # names it at each 503, and a wrong password stays a fault.
        started = time.monotonic()
        if started < self._refused_until:
            raise psycopg.OperationalError(f"{self._refusal}\nthat was a moment ago")
        try:
            connection = _Connection.connect(
                self._url,
                connect_timeout=CONNECT_TIMEOUT_S,
                prepare_threshold=self._prepare_threshold,
                client_encoding="UTF8",
                application_name="pylon-oidc",
                tcp_user_timeout=10_000,
            )
        except psycopg.OperationalError as error:
            self._refuse_for(time.monotonic() - started, str(error))
            raise
        connection.answer_within_s = self.patience_s
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # of a migration
        connection.on_silence = lambda: self._refuse_for(self.patience_s, _SILENT)
        return connection

    def _patient(self) -> _Connection:
        connection = self._connected()
        connection.answer_within_s = None
        return connection

    def _refuse_for(self, seconds: float, reason: str) -> None:
        self._refusal = reason
        self._refused_until = time.monotonic() + seconds

    @contextlib.contextmanager
    def migration_lock(self) -> Iterator[None]:
        """See `storage.database.Database.migration_lock`: `lock_schema` suffices."""
        yield

    def lock_schema(self, run: Run) -> None:
        """See `storage.database.Database.lock_schema`: an advisory lock that ends with the transaction."""
        run("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _MIGRATION_LOCK})
        run(_USE_SCHEMA, {"known": self.find_schema(run, None)})

    def create_tables(self, _connections: KeptConnections) -> bool:
        """See `storage.database.Database.create_tables`: never, because a server may have anything in it."""
        return False

    def exists(self) -> bool:
        """See `storage.database.Database.exists`: its server knows."""
        return True

    def connect_patiently(self) -> psycopg.Connection[Any]:
        """See `storage.database.Database.connect_patiently`."""
        connection = self._patient()
        connection.autocommit = True
        return connection

    def insert_rows(self, connection: Any, schema: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """See `storage.database.Database.insert_rows`."""
        names = sql.SQL(", ").join(map(sql.Identifier, (*table.columns, *table.unused)))
        into = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(schema, table.name), names)
        with connection.cursor() as cursor, cursor.copy(into) as copy:
            for row in rows:
                copy.write_row(row)

    def find_schema(self, run: Run, known: str | None) -> str | None:
        """See `storage.database.Database.find_schema`: the first of the search path, else the only one.

        Raises:
            StoreRefused: when there are several, and nothing says which.
        """
        found = run(_SCHEMAS, {"known": known, "first": list(FIRST), "by_path": self._by_path})
        if len(found) > 1 and found[0][0] != known and found[0][1] is None:
            names = " and ".join(str(name) for name, _ in found)
            raise StoreRefused(
                f"the tables are in the schemas {names}", f"run ALTER ROLE {self._role} SET search_path = …"
            )
        return str(found[0][0]) if found else None

    def write_refusal(self, run: Run, schema: str) -> StoreUnavailable | None:
        """See `storage.database.Database.write_refusal`."""
        names = [table.name for table in TABLES.values()]
        ((is_standby, is_read_only, role, missing),) = run(_WRITES, {"schema": schema, "names": names})
        if is_standby:
            return StoreUnavailable(
                "it is a standby; among several hosts target_session_attrs=read-write finds the primary"
            )
        if is_read_only:
            return StoreUnavailable("default_transaction_read_only is on for this role or database")
        if not missing:
            return None
        return StoreRefused(
            f"the role {role} may not {missing}",
            f"run GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
        )

    @contextlib.contextmanager
    def sweeping_turn(self) -> Iterator[bool]:
        """See `storage.sweeping.Sweepable.sweeping_turn`: rows that another sweep removes are skipped."""
        yield True

    def prepare_sweep(self, connections: KeptConnections) -> None:
        """See `storage.sweeping.Sweepable.prepare_sweep`: the server writes back in the background."""

    def write_back(self, connections: KeptConnections) -> None:
        """See `storage.sweeping.Sweepable.write_back`: the server does it."""

    def give_back(self, connections: KeptConnections, *, within_s: float) -> bool:
        """See `storage.sweeping.Sweepable.give_back`: autovacuum does it."""
        return False

    def check_revocable(self, connections: KeptConnections) -> None:
        """See `storage.database.Database.check_revocable`: from version 14 on, a server reports that it is read-only."""
        connection = connections.current()
        if connection is None:
            return
        told = connection.pgconn.parameter_status
        if b"on" in {told(b"in_hot_standby"), told(b"default_transaction_read_only")}:
            raise StoreUnavailable("the server is read-only: tokens that are issued now could not be revoked")

    def turn(self, within_s: float) -> contextlib.AbstractContextManager[object]:
        """See `storage.kept.Driver.turn`: any number of writers may write at the same time."""
        return _NO_TURN

    def set_patience(self, connection: Any, patience_s: float) -> None:
        """See `storage.kept.Driver.set_patience`."""
        connection.answer_within_s = patience_s

    def waited_in_vain(self, error: BaseException | None) -> bool:
        """See `storage.kept.Driver.waited_in_vain`."""
        return isinstance(error, TookTooLong)

    def outage(self, error: BaseException) -> StoreUnavailable | None:
        """See `storage.kept.Driver.outage`: also a server that is read-only, has no tables yet, or refuses rights."""
        if not isinstance(error, _OUTAGES):
            return None
        # A failed statement is reported without its details, which may contain stored data.
        text = error.diag.message_primary if error.sqlstate else str(error)
        reason = postgres_reasons.one_line(text or type(error).__name__, self._secrets)
        remedy = postgres_reasons.remedy(error.sqlstate, reason, self._role)
        return StoreUnavailable(reason) if remedy is None else StoreRefused(reason, remedy)

    def gave_way(self, error: BaseException) -> bool:
        """See `storage.kept.Driver.gave_way`: a deadlock, or a serialization failure."""
        return isinstance(error, (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected))
