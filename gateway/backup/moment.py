"""The rows of a database as they are at one moment, however long they take to read."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, StaticPool, create_engine

from gateway.database import sqlite_file
from gateway.database.database import Database


@contextmanager
def moment(database: Database, folder: Path) -> Iterator[Connection]:
    """Give a connection that sees the rows of one moment, whatever is written meanwhile.

    PostgreSQL keeps old rows for as long as a transaction sees them. SQLite's file cannot be written while it is read, and the rows
    of years take longer to read than a writer waits. So the connection reads a copy of that file.

    Args:
        database: the database.
        folder: where the copy lies, without a name. A process that is killed leaves nothing.

    Raises:
        OSError: no space is left for the copy.
    """
    with database.told():
        if database.shared:
            options = database.engine.connect().execution_options(isolation_level="REPEATABLE READ")
            with options as connection, connection.begin():
                yield connection
            return
        with closing(_nameless(folder)) as copy:
            with database.engine.connect() as connection:
                _fill(copy, connection)
            engine = create_engine("sqlite://", creator=lambda: copy, poolclass=StaticPool)
            with engine.connect() as connection:
                yield connection


def _nameless(folder: Path) -> sqlite3.Connection:
    """Return a connection to an empty database in a file that only this connection can reach."""
    handle, name = tempfile.mkstemp(dir=folder)
    os.close(handle)
    try:
        # The threads of the caller use the connection one after the other.
        copy = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        # Neither a journal, which needs a name beside the file, nor the wait for the disk.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
    finally:
        os.unlink(name)
    return copy


def _fill(copy: sqlite3.Connection, source: Connection) -> None:
    original = source.connection.driver_connection
    assert isinstance(original, sqlite3.Connection)
    try:
        original.backup(copy)
    except sqlite3.Error as problem:
        if sqlite_file.is_full(problem):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from problem
        raise
