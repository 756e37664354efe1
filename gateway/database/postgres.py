"""PostgreSQL's advisory locks, which processes hold without locking a row."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

SCHEMA: Final = 0x6475_6273
"""Key of the lock that a process holds while it creates tables. All processes use the same key."""
GATEWAY: Final = 0x6475_6274
"""Key of the lock that gateways share as long as they work, and that an erasure without a gateway holds alone."""
QUEUE: Final = 0x6475_6275
"""Key of the lock of transactions that must come one after the other."""
TURN: Final = 0x6475_6276
"""First key of the locks of single pieces of work. The second key is the number of the work."""
AUDIT: Final = 0x6475_6277
"""Key of the lock of transactions that write to the audit log. No transaction waits for another lock behind this one."""
BLOBS: Final = 0x6475_6278
"""Key of the lock that transactions share while they count blobs, and that an erasure holds alone while it deletes blobs."""
PAUSED_S: Final = 20
"""Seconds without a statement after which the server ends a transaction that changes something, and its connection."""


def wait_in_transaction(connection: Connection, key: int, *, together: bool = False) -> None:
    """Wait until no other transaction holds a lock, and hold it until the transaction ends.

    Args:
        connection: connection of the transaction.
        key: key of the lock.
        together: whether several transactions may hold the lock together.
    """
    kind = "pg_advisory_xact_lock_shared" if together else "pg_advisory_xact_lock"
    connection.execute(text(f"SELECT {kind}(:key)"), {"key": key})


def end_if_paused(connection: Connection) -> None:
    """Let the server end the transaction if this process pauses inside it: the rows and locks that it holds keep others out."""
    connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{PAUSED_S}s'"))


def use_schema(connection: Connection, schema: str) -> None:
    """Let names without a schema name tables of this schema alone, until the transaction ends."""
    connection.execute(text(f"SET LOCAL search_path TO {connection.dialect.identifier_preparer.quote(schema)}"))


def hold(engine: Engine, key: int, *, number: int | None = None, together: bool = False) -> Connection | None:
    """Take a lock, and return the connection that holds it; None: another process holds the lock.

    The lock lasts until the connection is closed, or until this process ends.

    Args:
        engine: the engine of the database.
        key: key of the lock.
        number: second key; None: the lock has one key.
        together: whether several processes may hold the lock together.
    """
    connection = engine.connect()
    # The connection leaves the pool: the lock lasts as long as the connection is open.
    connection.detach()
    try:
        # If this process's machine vanishes, the server ends the connection after 25 s.
        for setting, value in (("idle", 10), ("interval", 5), ("count", 3)):
            connection.execute(text(f"SET tcp_keepalives_{setting} = {value}"))
        kind = "pg_try_advisory_lock_shared" if together else "pg_try_advisory_lock"
        keys = {"key": key} if number is None else {"key": key, "number": number % (1 << 31)}
        free = connection.execute(text(f"SELECT {kind}({', '.join(f':{name}' for name in keys)})"), keys).scalar()
        connection.commit()
    except BaseException:
        release(connection)
        raise
    if not free:
        release(connection)
        return None
    return connection


def is_held(connection: Connection) -> bool:
    """Return whether the connection that holds a lock still works."""
    try:
        connection.execute(text("SELECT 1"))
        connection.commit()
    except DBAPIError:
        return False
    return True


def release(connection: Connection) -> None:
    """Release the lock that a connection holds."""
    with suppress(DBAPIError):
        try:
            # The server hears of a closed connection a little later, and would refuse the lock to the next process until then.
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
            connection.commit()
        finally:
            connection.close()
