"""The tables: one a kind; all of one shape but for grants, and what came after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, String, Table, Text, text

from service.storage.interface import Kind

#: The newest revision in `migrations/versions`. A test holds the two together.
HEAD: Final = "0005"

metadata = MetaData()


def _table(kind: Kind) -> Table:
    name = kind.value
    return Table(
        name,
        metadata,
        Column("id_hash", String(64), primary_key=True),
        Column("subject", String(255), nullable=False),
        Column("grant_id", String(64), nullable=False),
        # The defaults are for the version before, which does not know the column, in a rolling deployment.
        Column("session_id", String(64), nullable=False, server_default=text("''")),
        Column("client_id", String(255), nullable=False, server_default=text("''")),
        Column("version", BigInteger, nullable=False, server_default=text("1")),
        Column("expires_at", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
        # The version before reads it; nothing is spent any more but grants, which have a table of their own.
        Column("spent_at", BigInteger, nullable=True),
        Index(f"ix_{name}_subject", "subject"),
        Index(f"ix_{name}_grant_id", "grant_id"),
        Index(f"ix_{name}_session_id", "session_id"),
        Index(f"ix_{name}_expires_at", "expires_at"),
        *([Index(f"ix_{name}_client_id", "client_id")] if kind in (Kind.CLIENT, Kind.CONSENT) else []),
    )


def _grants() -> Table:
    """One row a grant. Its ids grow with time; what changes when it is used is in no index (decision 0011)."""
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


def _table_of_sessions(
    kind: Kind, id_type: String, *more: Column[Any] | Index, postgresql_with: Mapping[str, int] | None = None
) -> Table:
    """What begins with a session of a user at a client, and is found by these two."""
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


_MADE: Final = {Kind.GRANT: _grants, Kind.VISIT: _visits}
TABLES: Final = {kind: _MADE[kind]() if kind in _MADE else _table(kind) for kind in Kind}
#: Alembic's own.
REVISIONS: Final = Table("alembic_version", MetaData(), Column("version_num", String(32)))
#: What is there together since the first revision; a table of revisions alone may be another program's.
FIRST: Final = ("alembic_version", "session", "replay_marker")
