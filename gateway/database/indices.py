"""Indices that a later version of dubstage declares on a table that an installation has already."""

from __future__ import annotations

from sqlalchemy import MetaData, inspect
from sqlalchemy.engine import Connection


def add_missing_indices(connection: Connection, tables: MetaData, schema: str | None = None) -> None:
    """Create the indices that tables declare and do not have yet. The tables exist.

    SQLAlchemy creates the indices of a table together with the table, and never later. An index holds nothing of its own, so that
    it can be added at any time: a database of 100,000 operations has it within a second.

    Args:
        connection: connection with a transaction that no other process creates tables in at the same time.
        tables: declarations of all tables.
        schema: schema of PostgreSQL that the tables lie in; None: the first one of the connection.
    """
    there = {index["name"] for found in inspect(connection).get_multi_indexes(schema=schema).values() for index in found}
    for table in tables.sorted_tables:
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            if index.name not in there:
                index.create(connection)
