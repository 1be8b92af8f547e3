"""The tables: one a kind, all of one shape."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, Text, text

from service.storage.interface import Kind

#: The newest revision in `migrations/versions`. A test holds the two together.
HEAD: Final = "0003"

metadata = MetaData()


def _table(kind: Kind) -> Table:
    return Table(
        kind.value,
        metadata,
        Column("id_hash", String(64), primary_key=True),
        Column("subject", String(255), nullable=False),
        Column("grant_id", String(64), nullable=False),
        # The default is for the version before, which does not know the column, in a rolling deployment.
        Column("session_id", String(64), nullable=False, server_default=text("''")),
        Column("spent_at", BigInteger, nullable=True),
        Column("expires_at", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
        Index(f"ix_{kind.value}_subject", "subject"),
        Index(f"ix_{kind.value}_grant_id", "grant_id"),
        Index(f"ix_{kind.value}_session_id", "session_id"),
        Index(f"ix_{kind.value}_expires_at", "expires_at"),
    )


TABLES: Final = {kind: _table(kind) for kind in Kind}
