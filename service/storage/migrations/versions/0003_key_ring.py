"""A table for signing keys in the database."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table, with the common columns."""
    op.create_table(
        "key_ring",
        sa.Column("id_hash", sa.String(64), primary_key=True),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("grant_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False, server_default=sa.text("''")),
        sa.Column("spent_at", sa.BigInteger, nullable=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    for column in ("subject", "grant_id", "session_id", "expires_at"):
        op.create_index(f"ix_key_ring_{column}", "key_ring", [column])
