"""The tables: one for each kind. All have the same shape, except grants and later kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, String, Table, Text, text

from service.storage.interface import Kind

#: The newest revision in `migrations/versions`. A test holds the two together.
HEAD: Final = "0008"

metadata = MetaData()


def _table(kind: Kind) -> Table:
    name = kind.value
    return Table(
        name,
        metadata,
        Column("id_hash", String(64), primary_key=True),
        Column("subject", String(255), nullable=False),
        Column("grant_id", String(64), nullable=False),
        # The defaults are for the previous version in a rolling deployment, which does not know the column.
        Column("session_id", String(64), nullable=False, server_default=text("''")),
        Column("client_id", String(255), nullable=False, server_default=text("''")),
        Column("version", BigInteger, nullable=False, server_default=text("1")),
        Column("expires_at", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
        # The previous version reads it. Today only grants can be spent, and they have their own table.
        Column("spent_at", BigInteger, nullable=True),
        Index(f"ix_{name}_subject", "subject"),
        Index(f"ix_{name}_grant_id", "grant_id"),
        Index(f"ix_{name}_session_id", "session_id"),
        Index(f"ix_{name}_expires_at", "expires_at"),
        *([Index(f"ix_{name}_client_id", "client_id")] if kind in (Kind.CLIENT, Kind.CONSENT) else []),
    )


def _grants() -> Table:
    """One row for each grant. Ids grow with time, and columns that change with use are in no index (decision 0011)."""
    in_order = String(32).with_variant(String(32, collation="C"), "postgresql")
    return _table_of_sessions(
        Kind.GRANT,
        in_order,
        Column("outlives_session", Boolean, nullable=False),
        Column("tokens", LargeBinary, nullable=False),
        postgresql_with={"fillfactor": 60},
    )


def _visits() -> Table:
    return _table_of_sessions(Kind.VISIT, String(64), Index("ix_visit_expires_at", "expires_at"))


def _devices() -> Table:
    return _table_of_sessions(Kind.DEVICE, String(64), Index("ix_device_expires_at", "expires_at"))


def _table_of_subjects(kind: Kind) -> Table:
    """A table of records that depend on nothing, and are found by their id or subject."""
    name = kind.value
    return Table(
        name,
        metadata,
        Column("id_hash", String(64), primary_key=True),
        Column("subject", String(255), nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
        Index(f"ix_{name}_subject", "subject"),
        Index(f"ix_{name}_expires_at", "expires_at"),
    )


def _deliveries() -> Table:
    return _table_of_sessions(
        Kind.DELIVERY,
        String(64),
        Column("due_at", BigInteger, nullable=False),
        Index("ix_delivery_due_at", "due_at"),
        Index("ix_delivery_expires_at", "expires_at"),
    )


def _table_of_sessions(
    kind: Kind, id_type: String, *more: Column[Any] | Index, postgresql_with: Mapping[str, int] | None = None
) -> Table:
    """A table of records that belong to a session and a client, and are found by both."""
    name = kind.value
    return Table(
        name,
        metadata,
        Column("id_hash", id_type, primary_key=True),
        Column("subject", String(255), nullable=False),
        Column("session_id", String(64), nullable=False),
        Column("client_id", String(255), nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
        Index(f"ix_{name}_subject", "subject", "session_id"),
        Index(f"ix_{name}_client_id", "client_id"),
        *more,
        postgresql_with=postgresql_with,
    )


_MADE: Final[Mapping[Kind, Callable[[], Table]]] = {
    Kind.GRANT: _grants,
    Kind.VISIT: _visits,
    Kind.DELIVERY: _deliveries,
    Kind.DEVICE: _devices,
    Kind.STATUS: partial(_table_of_subjects, Kind.STATUS),
    Kind.INVITATION: partial(_table_of_subjects, Kind.INVITATION),
}
TABLES: Final = {kind: _MADE[kind]() if kind in _MADE else _table(kind) for kind in Kind}
#: Alembic's own.
REVISIONS: Final = Table("alembic_version", MetaData(), Column("version_num", String(32)))
#: Tables that exist together since the first revision. A single table of revisions may belong to another program.
FIRST: Final = ("alembic_version", "session", "replay_marker")
