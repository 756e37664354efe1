"""Rows of the database's tables as lines of JSON, and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from sqlalchemy import Connection, Integer, LargeBinary, Table, func, insert, select, text

from gateway.database.tables import Base, InstallationRow, JobBlobRow, JobFolderRow, JobRow
from gateway.operations.store import LeaseRow, OperationRow

TRANSIENT: Final = frozenset(table.__tablename__ for table in (JobFolderRow, JobBlobRow, JobRow, LeaseRow, InstallationRow))
"""Tables about the folders of running jobs, the gateways that run them, and the database itself. A backup leaves them out, because
it holds none of these. The id of the database is in the manifest."""
_ROWS_AT_ONCE: Final = 500
_ACTOR: Final = "actor_id"

assert OperationRow.__tablename__ in Base.metadata.tables  # the import declares the table


def kept_tables() -> list[Table]:
    """Return the tables of a backup. A table comes behind those that it refers to."""
    return [table for table in Base.metadata.sorted_tables if table.name not in TRANSIENT]


def lines_of(connection: Connection, table: Table, without: frozenset[str]) -> Iterator[bytes]:
    """Yield the rows of a table, one line of JSON each, in the order of the primary key. Few rows are in memory at a time.

    Args:
        connection: connection to the database.
        table: the table.
        without: ids of actors whose rows are left out.
    """
    query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_ROWS_AT_ONCE)
    for found in connection.execute(query):
        row = found._asdict()
        if row.get(_ACTOR) not in without:
            yield json.dumps({name: _plain(value) for name, value in row.items()}).encode() + b"\n"


def add_rows(connection: Connection, table: Table, lines: Iterable[bytes]) -> None:
    """Insert the rows that `lines_of` yielded.

    Raises:
        AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError: the lines are no rows of this table.
    """
    for part in _parts(_rows(table, lines)):
        connection.execute(insert(table), part)
    counter = next((column for column in table.primary_key.columns if isinstance(column.type, Integer)), None)
    if counter is not None and connection.dialect.name == "postgresql":
        # The server's counter does not see numbers that were given.
        connection.execute(
            select(func.setval(func.pg_get_serial_sequence(table.name, counter.name), func.max(counter))).where(
                text(f"EXISTS (SELECT 1 FROM {table.name})")
            )
        )


def _rows(table: Table, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        row = json.loads(line)
        unknown = set(row) - set(table.columns.keys())
        if unknown:
            raise ValueError(f"table {table.name} has no column {', '.join(sorted(unknown))}")
        yield {name: _value(table, name, value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value


def _value(table: Table, name: str, value: Any) -> Any:
    is_bytes = isinstance(table.columns[name].type, LargeBinary) and value is not None
    return base64.b64decode(value["base64"], validate=True) if is_bytes else value


def _parts(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == _ROWS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part
