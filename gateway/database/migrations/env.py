"""Environment of Alembic: runs the migrations on the connection, and in the transaction, of `gateway.database.upgrades`.

Migrations are in versions/, one file each, named by a number and a subject. A released migration never changes. A migration must
run in SQLite and in PostgreSQL, keep every row, and keep the columns that the version before reads and writes: during an upgrade
gateways of both versions work with the database. Changes of a column in SQLite need `op.batch_alter_table`.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
