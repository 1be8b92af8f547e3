"""The store's one implementation, in SQLAlchemy Core, over an engine of `sqlite` or `postgres`.

The read that every mint makes goes over a kept DBAPI connection, its SQL compiled once from Core. Everything else
goes through the engine's pool. No connection is opened before it is needed, so none crosses a fork.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Table,
    bindparam,
    delete,
    false,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.storage.interface import Kind, Record, Spent, StoreUnavailable
from service.storage.schema import HEAD, TABLES

SWEEP_EVERY_S: Final = 300
SWEEP_LIMIT: Final = 500

_log = structlog.get_logger("storage")


class Database(Protocol):
    """What differs between the engines."""

    #: The DBAPI's paramstyle: `qmark` takes a tuple, `pyformat` a mapping.
    positional: bool

    def engine(self) -> Engine:
        """A new engine, which opens its connections when they are needed."""
        ...

    def kept_connection(self) -> Any:
        """A new DBAPI connection in autocommit mode, for reads."""
        ...

    def is_stale(self, connection: Any) -> bool:
        """Whether the kept connection no longer leads to the database."""
        ...

    def migration_lock(self) -> contextlib.AbstractContextManager[None]:
        """Held around a migration, besides `lock_schema`."""
        ...

    def lock_schema(self, connection: Connection) -> None:
        """Wait, in the migration's transaction, until no other process migrates."""
        ...

    def is_outage(self, error: BaseException) -> bool:
        """Whether the DBAPI's error says that the database cannot be asked, not that the question was wrong."""
        ...


class SqlStore:
    """`storage.interface.Store` on a SQL database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._kept = threading.local()
        self._generation = 0
        self._next_sweep = 0
        engine = database.engine()
        self._get_sql = {
            kind: str(
                select(
                    table.c.subject,
                    table.c.grant_id,
                    table.c.session_id,
                    table.c.spent_at,
                    table.c.expires_at,
                    table.c.body,
                )
                .where(table.c.id_hash == bindparam("id_hash"), table.c.expires_at > bindparam("now"))
                .compile(engine)
            )
            for kind, table in TABLES.items()
        }
        engine.dispose()

    # --- reads ---

    def get(self, kind: Kind, id_hash: str, *, now: int) -> Record | None:
        """See `Store.get`."""
        parameters = (id_hash, now) if self._database.positional else {"id_hash": id_hash, "now": now}
        row = self._read_kept(self._get_sql[kind], parameters)
        if row is None:
            return None
        subject, grant_id, session_id, spent_at, expires_at, body = row
        return Record(kind, id_hash, expires_at, subject, grant_id, session_id, spent_at, json.loads(body))

    def _read_kept(self, sql: str, parameters: Any) -> Any:
        try:
            return self._kept_connection().execute(sql, parameters).fetchone()
        except Exception as error:
            self._drop_kept()
            if not self._database.is_outage(error):
                raise
        try:  # the kept connection may have died with the last database: a read may be asked again
            return self._kept_connection().execute(sql, parameters).fetchone()
        except Exception as error:
            self._drop_kept()
            if not self._database.is_outage(error):
                raise
            raise StoreUnavailable from error

    def _kept_connection(self) -> Any:
        kept = self._kept
        connection = getattr(kept, "connection", None)
        if (
            connection is not None
            and kept.generation == self._generation
            and not self._database.is_stale(connection)
        ):
            return connection
        self._drop_kept()
        kept.connection, kept.generation = self._database.kept_connection(), self._generation
        return kept.connection

    def _drop_kept(self) -> None:
        connection = getattr(self._kept, "connection", None)
        self._kept.connection = None
        if connection is not None:
            connection.close()

    def list(
        self, kind: Kind, *, subject: str | None = None, session_id: str | None = None, now: int
    ) -> list[Record]:
        """See `Store.list`."""
        table = TABLES[kind]
        query = (
            select(table)
            .where(table.c.expires_at > now, *_fitting(table, subject=subject, session_id=session_id))
            .order_by(table.c.expires_at.desc(), table.c.id_hash)
        )
        with self._transaction(read_only=True) as connection:
            return [_record(kind, row) for row in connection.execute(query)]

    def schema_state(self) -> Literal["current", "behind", "ahead"]:
        """See `Store.schema_state`."""
        with self._transaction(read_only=True) as connection:
            return _schema_state(connection)

    # --- writes ---

    def put(self, *records: Record, now: int) -> bool:
        """See `Store.put`."""
        try:
            with self._transaction() as connection:
                _insert(connection, records)
        except IntegrityError:
            return False
        self._sweep_sometimes(now)
        return True

    def take(self, kind: Kind, id_hash: str, *, put: Sequence[Record] = (), now: int) -> Record | None:
        """See `Store.take`."""
        table = TABLES[kind]
        statement = (
            delete(table).where(table.c.id_hash == id_hash, table.c.expires_at > now).returning(*table.c)
        )
        with self._transaction() as connection:
            row = connection.execute(statement).one_or_none()
            if row is not None:
                _insert(connection, put)
        return None if row is None else _record(kind, row)

    def spend(
        self,
        kind: Kind,
        id_hash: str,
        *,
        grant: Record,
        body: Mapping[str, Any],
        put: Sequence[Record],
        now: int,
    ) -> Spent:
        """See `Store.spend`."""
        table, grants = TABLES[kind], TABLES[grant.kind]
        lock_grant = (
            update(grants)
            .where(grants.c.id_hash == grant.id_hash, grants.c.expires_at > now)
            .values(_columns(grant))
            .returning(grants.c.id_hash)
        )
        once = (
            update(table)
            .where(table.c.id_hash == id_hash, table.c.expires_at > now, table.c.spent_at.is_(None))
            .values(spent_at=now, body=_encode(body))
            .returning(*table.c)
        )
        as_it_is = select(table).where(table.c.id_hash == id_hash, table.c.expires_at > now)
        with self._transaction() as connection:
            # The grant's row first, by everyone: whoever revokes it waits, or has been.
            if connection.execute(lock_grant).one_or_none() is None:
                return Spent(False, None)
            row = connection.execute(once).one_or_none()
            if row is not None:
                _insert(connection, put)
                return Spent(True, _record(kind, row))
            row = connection.execute(as_it_is).one_or_none()
            return Spent(False, None if row is None else _record(kind, row))

    def merge(self, record: Record) -> Record:
        """See `Store.merge`."""
        table = TABLES[record.kind]
        known = select(table).where(table.c.id_hash == record.id_hash).with_for_update()
        for _ in range(2):  # of two who store the first one, one finds it at the second attempt
            try:
                with self._transaction() as connection:
                    row = connection.execute(known).one_or_none()
                    if row is None:
                        _insert(connection, [record])
                        return record
                    merged = replace(record, body={**json.loads(row.body), **record.body})
                    connection.execute(
                        update(table).where(table.c.id_hash == record.id_hash).values(_columns(merged))
                    )
                    return merged
            except IntegrityError:
                continue
        raise StoreUnavailable

    def replace(self, kind: Kind, id_hash: str, successor: Record, *, now: int) -> bool:
        """See `Store.replace`."""
        table = TABLES[kind]
        statement = (
            update(table)
            .where(table.c.id_hash == id_hash, table.c.expires_at > now)
            .values(_columns(successor))
            .returning(table.c.id_hash)
        )
        with self._transaction() as connection:
            return connection.execute(statement).one_or_none() is not None

    def delete(
        self,
        *kinds: Kind,
        subject: str | None = None,
        grant_id: str | None = None,
        session_id: str | None = None,
        keep_session_id: str | None = None,
        keep_spent: bool = False,
        now: int,
    ) -> int:
        """See `Store.delete`."""
        if subject is None and grant_id is None and session_id is None:
            raise ValueError("nothing is said of what to delete")
        counts = []
        with self._transaction() as connection:
            for kind in kinds:
                table = TABLES[kind]
                fitting = _fitting(table, subject=subject, grant_id=grant_id, session_id=session_id)
                statement = delete(table).where(table.c.expires_at > now, *fitting)
                if keep_session_id is not None:
                    statement = statement.where(table.c.session_id != keep_session_id)
                if keep_spent:
                    statement = statement.where(table.c.spent_at.is_(None))
                counts.append(connection.execute(statement).rowcount)
        return counts[0]

    def delete_expired(self, *, now: int, limit: int) -> int:
        """See `Store.delete_expired`."""
        removed = 0
        for table in TABLES.values():
            ended = (
                select(table.c.id_hash)
                .where(table.c.expires_at <= now)
                .limit(limit)
                # Two sweepers share the work instead of waiting for each other.
                .with_for_update(skip_locked=True)
            )
            with self._transaction() as connection:
                removed += connection.execute(delete(table).where(table.c.id_hash.in_(ended))).rowcount
        return removed

    def _sweep_sometimes(self, now: int) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_EVERY_S
        try:
            self.delete_expired(now=now, limit=SWEEP_LIMIT)
        except StoreUnavailable as error:  # what was put is kept; the next sweep makes up for this one
            _log.warning("sweep_failed", cause=type(error.__cause__).__name__)

    # --- the schema ---

    def migrate(self) -> None:
        """See `Store.migrate`."""
        from alembic import command  # 0.3 s of imports that serving does not need
        from alembic.config import Config

        config = Config()
        config.set_main_option(
            "script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%")
        )
        with self._database.migration_lock(), self._transaction() as connection:
            self._database.lock_schema(connection)
            if _schema_state(connection) == "ahead":  # a newer version was here: nothing is left to do
                return
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    # --- connections ---

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            self._generation += 1
            engine, self._engine = self._engine, None
        self._drop_kept()
        if engine is not None:
            engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, *, read_only: bool = False) -> Iterator[Connection]:
        with self._lock:
            if self._engine is None:
                self._engine = self._database.engine()
        try:
            with (
                self._engine.connect().execution_options(read_only=read_only) as connection,
                connection.begin(),
            ):
                yield connection
        except IntegrityError:
            raise
        except PoolTimeoutError as error:  # every connection is taken, and none came back in time
            raise StoreUnavailable from error
        except DBAPIError as error:
            if error.connection_invalidated or (
                error.orig is not None and self._database.is_outage(error.orig)
            ):
                raise StoreUnavailable from error.orig
            raise


def _schema_state(connection: Connection) -> Literal["current", "behind", "ahead"]:
    revision: str | None = None
    if connection.dialect.has_table(connection, "alembic_version"):
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision == HEAD:
        return "current"
    return "behind" if revision is None or revision < HEAD else "ahead"


def _insert(connection: Connection, records: Iterable[Record]) -> None:
    for record in records:
        connection.execute(insert(TABLES[record.kind]).values(_columns(record)))


def _fitting(table: Table, **wanted: str | None) -> Iterator[ColumnElement[bool]]:
    for name, value in wanted.items():
        if value is not None:
            # PostgreSQL takes no NUL in text, so that nothing stored has one: it fits nothing.
            yield false() if "\0" in value else table.c[name] == value


def _encode(body: Mapping[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))


def _columns(record: Record) -> dict[str, Any]:
    return {
        "id_hash": record.id_hash,
        "subject": record.subject,
        "grant_id": record.grant_id,
        "session_id": record.session_id,
        "spent_at": record.spent_at,
        "expires_at": record.expires_at,
        "body": _encode(record.body),
    }


def _record(kind: Kind, row: Row[Any]) -> Record:
    return Record(
        kind,
        row.id_hash,
        row.expires_at,
        row.subject,
        row.grant_id,
        row.session_id,
        row.spent_at,
        json.loads(row.body),
    )
