"""One row for each grant, and the clients of each session. Earlier grants are dropped: nothing had been released."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

#: The tables of earlier grants. A replica of the earlier version no longer finds them, and answers 503 there.
#: In the order in which that version locks them, to avoid deadlocks.
BEFORE = ("grant_record", "authorization_code", "access_token", "refresh_token")


def upgrade() -> None:
    """Create the tables, and drop the earlier ones."""
    in_order = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")
    op.create_table(
        "oauth_grant",
        sa.Column("id_hash", in_order, primary_key=True),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("outlives_session", sa.Boolean, nullable=False),
        sa.Column("tokens", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        postgresql_with={"fillfactor": 60},
    )
    op.create_index("ix_oauth_grant_subject", "oauth_grant", ["subject", "session_id"])
    op.create_index("ix_oauth_grant_client_id", "oauth_grant", ["client_id"])
    op.create_table(
        "visit",
        sa.Column("id_hash", sa.String(64), primary_key=True),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_visit_subject", "visit", ["subject", "session_id"])
    op.create_index("ix_visit_client_id", "visit", ["client_id"])
    op.create_index("ix_visit_expires_at", "visit", ["expires_at"])
    for name in BEFORE:
        op.drop_table(name)
