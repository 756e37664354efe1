"""The SQLite file of actors and operations: who may read it, how its transactions begin, which gateway holds it, and its errors."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

BEGIN: Final = "dubstage_begin"
"""Execution option: IMMEDIATE for transactions that change something. Statements of others each stand alone."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_REFUSED: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})


def set_up(engine: Engine) -> None:
    """Give every connection its settings, and every transaction its beginning.

    Python's driver begins a transaction with its first change: what was read before it could be out of date by then. A transaction
    that will change something therefore begins as IMMEDIATE (see BEGIN), and holds the file from its first statement on.
    """
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)


def make_private(file: Path, *, tighten: bool) -> None:
    """Create a database file that its owner alone may read, whatever the umask. SQLite gives its journal the same permissions.

    Args:
        file: of the database.
        tighten: take the permissions of group and others away from a file that is there already.
    """
    # Errors are left to SQLite, which opens the file next and says what is wrong.
    with suppress(OSError):
        # Never opened where it exists: closing it would drop the locks of this process's own connections.
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


def hold(file: Path) -> int | None:
    """Hold a database file against other gateways; returns the open lock file, or None where another process holds it.

    The lock ends with the process, however it ends, or when the handle is closed.
    """
    handle = os.open(file.with_name(f"{file.name}.gateway"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        pass  # a file system without locks
    return handle


def is_damaged(error: Exception) -> bool:
    """Whether an error of the driver says that the file is no database, or no longer a whole one."""
    return _code(error) in _DAMAGED or "Could not decode to UTF-8" in str(error)


def is_refused(error: Exception) -> bool:
    """Whether an error of the driver says that the file may not be read or written."""
    return _code(error) in _REFUSED


def is_full(error: Exception) -> bool:
    """Whether an error of the driver says that no space is left."""
    return _code(error) == sqlite3.SQLITE_FULL


def first_damage(connection: Connection) -> str:
    """What SQLite's own check of the whole file finds first; empty where the file is sound."""
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    return "" if found == "ok" else " ".join(str(found).split())


def _code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return int(code) & 0xFF if code is not None else -1


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 10000")
    cursor.execute("PRAGMA foreign_keys = ON")
    # Rows of an erased person are overwritten, not only unlinked.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get(BEGIN)
    if kind is not None:
        connection.exec_driver_sql(f"BEGIN {kind}")
