"""Removal of finished operations by age and by number."""

from __future__ import annotations

import datetime
from typing import Final, cast

import structlog
from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, func, select

from gateway.database.database import Database
from gateway.database.tables import JobFolderRow
from gateway.operations.store import OperationRow

AT_ONCE: Final = 500
"""Most operations that one transaction deletes, so that other processes need not wait for the database."""

_log = structlog.stdlib.get_logger("dubstage.operations")


def expire_operations(database: Database, *, max_age_days: float, max_finished: int) -> int:
    """Delete old finished operations, and return their number. Blocks.

    An operation whose job has not ended stays: an erasure of the person finds the folder of the job through the operation.

    Args:
        database: database of the operations.
        max_age_days: days after its submission in which a finished operation is kept; 0: for ever.
        max_finished: most finished operations of each kind that are kept. The oldest are deleted first.

    Raises:
        BackendUnavailable: the database does not answer.
    """
    deleted = 0
    if max_age_days:
        oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=max_age_days)
        # The times in the table are texts of one form and one time zone, so that their order is that of the times.
        deleted += _delete(database, OperationRow.created_at < oldest.replace(microsecond=0).isoformat())
    for kind in _kinds_over(database, max_finished):
        mine = and_(OperationRow.done, OperationRow.kind == kind)
        numbers = select(OperationRow.number).where(mine).order_by(OperationRow.number.desc())
        with database.reading() as session:
            last = session.scalar(numbers.offset(max_finished).limit(1))
        if last is not None:
            deleted += _delete(database, and_(OperationRow.number <= last, OperationRow.kind == kind))
    if deleted:
        _log.info("operations_expired", operations=deleted)
    return deleted


def _kinds_over(database: Database, most: int) -> list[str]:
    counts = select(OperationRow.kind).where(OperationRow.done).group_by(OperationRow.kind).having(func.count() > most)
    with database.reading() as session:
        return sorted(session.scalars(counts))


def _delete(database: Database, old: ColumnElement[bool]) -> int:
    """Delete the finished operations that meet a condition, and return their number."""
    on_disk = exists().where(JobFolderRow.belongs_to == OperationRow.name)
    some = select(OperationRow.number).where(OperationRow.done, old, ~on_disk).limit(AT_ONCE)
    deleted = 0
    while True:
        with database.writing() as session:
            found = delete(OperationRow).where(OperationRow.number.in_(some))
            count = cast("CursorResult[object]", session.execute(found)).rowcount
        deleted += count
        if count < AT_ONCE:
            return deleted
