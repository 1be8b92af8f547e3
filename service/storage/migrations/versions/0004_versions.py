"""Columns for the client of a record, and for how often it was changed."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

#: The tables whose body names the client. The grant of a code or token names it too by then.
NAMING = ("client", "consent", "grant_record")
HANGING = ("authorization_code", "access_token", "refresh_token")
OTHERS = (
    "session",
    "provider_session",
    "replay_marker",
    "user_record",
    "interaction",
    "verifier",
    "key_ring",
)


def upgrade() -> None:
    """Add both columns to every table, and fill in the clients."""
    for name in (*NAMING, *HANGING, *OTHERS):
        op.add_column(
            name, sa.Column("client_id", sa.String(255), nullable=False, server_default=sa.text("''"))
        )
        op.add_column(name, sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")))
    for name in NAMING:
        _fill_from_body(name)
    for name in HANGING:
        table = _table(name)
        grant = _table("grant_record")
        of_grant = sa.select(grant.c.client_id).where(grant.c.grant_id == table.c.grant_id)
        op.execute(
            sa.update(table).where(sa.exists(of_grant)).values(client_id=of_grant.limit(1).scalar_subquery())
        )
    for name in (*NAMING, *HANGING):
        op.create_index(f"ix_{name}_client_id", name, ["client_id"])


def _fill_from_body(name: str) -> None:
    table, connection = _table(name), op.get_bind()
    found = connection.execute(sa.select(table.c.id_hash, table.c.body)).all()
    rows = [
        {"wanted": id_hash, "client_id": client_id}
        for id_hash, body in found
        if isinstance(client_id := json.loads(body).get("client_id"), str)
    ]
    if rows:
        connection.execute(sa.update(table).where(table.c.id_hash == sa.bindparam("wanted")), rows)


def _table(name: str) -> sa.TableClause:
    return sa.table(
        name, sa.column("id_hash"), sa.column("grant_id"), sa.column("client_id"), sa.column("body")
    )
