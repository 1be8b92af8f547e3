"""Tables for sessions, and for values that may be used only once."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the two tables."""
    for name in ("session", "replay_marker"):
        op.create_table(
            name,
            sa.Column("id_hash", sa.String(64), primary_key=True),
            sa.Column("subject", sa.String(255), nullable=False),
            sa.Column("grant_id", sa.String(64), nullable=False),
            sa.Column("expires_at", sa.BigInteger, nullable=False),
            sa.Column("body", sa.Text, nullable=False),
        )
        op.create_index(f"ix_{name}_subject", name, ["subject"])
        op.create_index(f"ix_{name}_expires_at", name, ["expires_at"])
