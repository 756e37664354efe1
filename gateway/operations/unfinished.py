"""How many operations have not ended."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gateway.database.database import Database
from gateway.operations.store import OperationRow, of_kinds


def count_unfinished(session: Session, kinds: Collection[str] | None) -> int:
    """Return the number of operations of these kinds that run or wait in any gateway; None: of any kind."""
    mine = select(func.count()).select_from(OperationRow).where(OperationRow.done.is_(False), of_kinds(kinds))
    return session.scalar(mine) or 0


def unfinished_in(database: Database, kinds: Collection[str]) -> int:
    """Return what `count_unfinished` returns, for a database. Blocks."""
    with database.reading() as session:
        return count_unfinished(session, kinds)
