"""The SQLite file of actors and operations: permissions, transactions, the gateway's lock, and errors."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from services.common.locks import open_locked

BEGIN: Final = "dubstage_begin"
"""Execution option: IMMEDIATE for transactions that change something, DEFERRED for reading the rows of one moment. Without the
option, each statement stands alone."""

_BUSY_MS: Final = 10_000
"""Most milliseconds to wait for another writer."""
_UPGRADE_MS: Final = 600_000
"""Most milliseconds to wait for another process that upgrades the tables."""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_REFUSED: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})


def set_up(engine: Engine) -> None:
    """Set up every connection, and the beginning of every transaction.

    Python's driver begins a transaction with the first change. What the transaction read before could be out of date by then. So a
    transaction that will change something begins as IMMEDIATE (see BEGIN), and holds the file from its first statement on.
    """
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)


def make_private(file: Path, *, tighten: bool) -> None:
    """Create a database file that only its owner may read, whatever the umask. SQLite gives its journal the same permissions.

    Args:
        file: the database file.
        tighten: take the permissions of group and others away from a file that exists already.
    """
    # Errors are ignored here: SQLite opens the file next, and says what is wrong.
    with suppress(OSError):
        # A file that exists is not opened: closing the handle would drop the locks of this process's own connections.
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
        return
    if tighten:
        with suppress(OSError):
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o077:
                file.chmod(mode & 0o700)


@contextmanager
def changing_tables(connection: Connection) -> Iterator[None]:
    """Prepare a connection, before its transaction begins, for the change of tables. A connection of PostgreSQL stays as it is.

    SQLite changes a table by copying the rows to a new table and dropping the old one. With foreign keys, the drop would delete
    the rows of other tables that refer to the old one.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        yield
        return
    driver.execute("PRAGMA foreign_keys = OFF")
    driver.execute(f"PRAGMA busy_timeout = {_UPGRADE_MS}")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")


def nameless(folder: Path, content: IO[bytes] | None = None) -> tuple[sqlite3.Connection, IO[bytes]]:
    """Return a connection to a database in a file without a name, and the file. The caller closes both.

    Args:
        folder: folder whose disk holds the file. A process that is killed leaves nothing there.
        content: the database; None: the database is empty.

    Raises:
        sqlite3.Error: the content is no database.
        OSError: no space is left.
    """
    handle, name = tempfile.mkstemp(dir=folder)
    file = os.fdopen(handle, "w+b")
    try:
        if content is not None:
            shutil.copyfileobj(content, file)
            file.flush()
        # The threads of the caller use the connection one after the other.
        connection = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        try:
            # Neither a journal, which needs a name beside the file, nor the wait for the disk.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
        except BaseException:
            connection.close()
            raise
    except BaseException:
        file.close()
        raise
    finally:
        os.unlink(name)
    return connection, file


def hold(file: Path) -> int | None:
    """Lock a database file against other gateways, and return the open lock file; None: another process holds the lock.

    The lock ends when the handle is closed, or with the process, however the process ends.
    """
    return open_locked(file.with_name(f"{file.name}.gateway"))


def is_damaged(error: Exception) -> bool:
    """Return whether an error of the driver says that the file is no database, or damaged."""
    return _code(error) in _DAMAGED or "Could not decode to UTF-8" in str(error)


def is_refused(error: Exception) -> bool:
    """Return whether an error of the driver says that the file may not be read or written."""
    return _code(error) in _REFUSED


def is_full(error: Exception) -> bool:
    """Return whether an error of the driver says that no space is left."""
    return _code(error) == sqlite3.SQLITE_FULL


def misses_table(error: BaseException) -> bool:
    """Return whether an error of the driver says that a table does not exist."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such table")


def first_damage(connection: Connection) -> str:
    """Return the first damage that SQLite's own check of the whole file finds; empty: the file is sound."""
    answer = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    return "" if answer == "ok" else " ".join(str(answer).split())


def _code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return int(code) & 0xFF if code is not None else -1


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    # Deleted rows are overwritten, so that nothing of an erased person stays in the file.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get(BEGIN)
    if kind is not None:
        connection.exec_driver_sql(f"BEGIN {kind}")
