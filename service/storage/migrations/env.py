"""Alembic's entry point: runs the revisions on the connection that `storage.upgrading` passes.

Everything is one transaction, under the engine's lock: if the process is killed, the schema stays as it was.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
