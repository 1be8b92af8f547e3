"""Alembic's entry: runs the revisions on the connection that `SqlStore.migrate` hands over.

All of it is one transaction, under the lock that the engine took: a process that is killed in the middle leaves
the schema as it was.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
