"""Tables for the provider: users, clients, interactions, grants, and the records that depend on a grant or session."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OLD = ("session", "replay_marker")
NEW = (
    "provider_session",
    "user_record",
    "client",
    "interaction",
    "verifier",
    "consent",
    "grant_record",
    "authorization_code",
    "access_token",
    "refresh_token",
)


def upgrade() -> None:
    """Add the two common columns to the old tables, and create the new ones."""
    for name in OLD:
        op.add_column(
            name, sa.Column("session_id", sa.String(64), nullable=False, server_default=sa.text("''"))
        )
        op.add_column(name, sa.Column("spent_at", sa.BigInteger, nullable=True))
        op.create_index(f"ix_{name}_grant_id", name, ["grant_id"])
        op.create_index(f"ix_{name}_session_id", name, ["session_id"])
    # A session is not a grant: the records that end with it are found by its sid.
    op.execute("UPDATE session SET session_id = grant_id, grant_id = ''")
    for name in NEW:
        op.create_table(
            name,
            sa.Column("id_hash", sa.String(64), primary_key=True),
            sa.Column("subject", sa.String(255), nullable=False),
            sa.Column("grant_id", sa.String(64), nullable=False),
            sa.Column("session_id", sa.String(64), nullable=False, server_default=sa.text("''")),
            sa.Column("spent_at", sa.BigInteger, nullable=True),
            sa.Column("expires_at", sa.BigInteger, nullable=False),
            sa.Column("body", sa.Text, nullable=False),
        )
        for column in ("subject", "grant_id", "session_id", "expires_at"):
            op.create_index(f"ix_{name}_{column}", name, [column])
