"""The tables: one a kind, all of one shape."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, Text, text

from service.storage.interface import Kind

#: The newest revision in `migrations/versions`. A test holds the two together.
HEAD: Final = "0004"

#: What is found by its client, to fall with it.
OF_A_CLIENT: Final = (
    Kind.CLIENT,
    Kind.GRANT,
    Kind.CODE,
    Kind.ACCESS_TOKEN,
    Kind.REFRESH_TOKEN,
    Kind.CONSENT,
)

metadata = MetaData()


def _table(kind: Kind) -> Table:
    return Table(
        kind.value,
        metadata,
        Column("id_hash", String(64), primary_key=True),
        Column("subject", String(255), nullable=False),
        Column("grant_id", String(64), nullable=False),
        # The defaults are for the version before, which does not know the column, in a rolling deployment.
        Column("session_id", String(64), nullable=False, server_default=text("''")),
        Column("client_id", String(255), nullable=False, server_default=text("''")),
        Column("version", BigInteger, nullable=False, server_default=text("1")),
        Column("spent_at", BigInteger, nullable=True),
        Column("expires_at", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
        Index(f"ix_{kind.value}_subject", "subject"),
        Index(f"ix_{kind.value}_grant_id", "grant_id"),
        Index(f"ix_{kind.value}_session_id", "session_id"),
        Index(f"ix_{kind.value}_expires_at", "expires_at"),
        *([Index(f"ix_{kind.value}_client_id", "client_id")] if kind in OF_A_CLIENT else []),
    )


TABLES: Final = {kind: _table(kind) for kind in Kind}
#: Alembic's own.
REVISIONS: Final = Table("alembic_version", MetaData(), Column("version_num", String(32)))
#: What is there together since the first revision; a table of revisions alone may be another program's.
FIRST: Final = ("alembic_version", "session", "replay_marker")
