"""Operations in the database, so that a restarted gateway still knows them."""

from __future__ import annotations

import datetime
import re
import secrets
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import LargeBinary, String, delete, select, update
from sqlalchemy.orm import Mapped, mapped_column

from gateway.database.database import Database
from gateway.database.tables import Base
from services.common.errors import OperationNotFound

_NAME: Final = re.compile(r"operations/[0-9a-f]{32}")
MAX_FINISHED: Final = 10_000
"""Most finished operations that are kept. The oldest are deleted first."""


class OperationRow(Base):
    """One operation. Numbers grow in the order of submission."""

    __tablename__ = "operations"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    actor_id: Mapped[str] = mapped_column(String(63), index=True)
    output: Mapped[str] = mapped_column(String(4096))
    created_at: Mapped[str] = mapped_column(String(32))
    request: Mapped[bytes] = mapped_column(LargeBinary)
    done: Mapped[bool] = mapped_column(index=True)
    metadata_bytes: Mapped[bytes] = mapped_column(LargeBinary)
    response: Mapped[bytes | None] = mapped_column(LargeBinary)
    error: Mapped[bytes | None] = mapped_column(LargeBinary)


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationRecord:
    """State of one operation.

    Attributes:
        number: grows with every submission.
        name: `operations/<32 hexadecimal digits>`.
        kind: kind of the work, one of the runner's handlers.
        actor_id: actor that the operation concerns; empty: none.
        output: file that the operation writes; empty: none.
        created_at: time of the submission, RFC 3339, UTC.
        request: serialised request message.
        done: whether the operation has ended, with success or without.
        metadata: serialised progress message, the last one.
        response: serialised result; None: the operation has not succeeded.
        error: serialised google.rpc.Status; None: the operation neither failed nor was cancelled.
    """

    number: int
    name: str
    kind: str
    actor_id: str
    output: str
    created_at: str
    request: bytes
    done: bool = False
    metadata: bytes = b""
    response: bytes | None = None
    error: bytes | None = None


class OperationStore:
    """Table of operations. All methods block.

    Args:
        database: database of the actors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.make_tables()

    def add(self, kind: str, request: bytes, *, actor_id: str = "", output: str = "") -> OperationRecord:
        """Store a new operation, and return its record."""
        row = OperationRow(
            name=f"operations/{secrets.token_hex(16)}",
            kind=kind,
            actor_id=actor_id,
            output=output,
            created_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat(),
            request=request,
            done=False,
            metadata_bytes=b"",
        )
        with self._database.writing() as session:
            session.add(row)
            session.flush()
            return _record(row)

    def get(self, name: str) -> OperationRecord:
        """Return an operation.

        Raises:
            OperationNotFound: there is no operation of this name.
        """
        with self._database.reading() as session:
            # PostgreSQL cannot be asked for every text: its texts hold no NUL.
            known = _NAME.fullmatch(name) is not None
            row = session.scalar(select(OperationRow).where(OperationRow.name == name)) if known else None
            if row is None:
                raise OperationNotFound(f"no operation {name[:80]!r}: it was deleted or never existed", resource=name)
            return _record(row)

    def list(self, *, after: int = 0, limit: int = 100, done: bool | None = None) -> list[OperationRecord]:
        """Return operations in the order of their submission.

        Args:
            after: number of the operation behind which the list begins.
            limit: most operations.
            done: only operations that have ended (True) or have not ended (False); None: all.
        """
        query = select(OperationRow).where(OperationRow.number > after).order_by(OperationRow.number).limit(limit)
        if done is not None:
            query = query.where(OperationRow.done == done)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def finish(self, record: OperationRecord) -> OperationRecord:
        """Store how an operation ended, and return the record. Beyond MAX_FINISHED, the oldest finished operations are deleted."""
        ended = replace(record, done=True)
        with self._database.writing() as session:
            session.execute(
                update(OperationRow)
                .where(OperationRow.name == ended.name)
                .values(done=True, metadata_bytes=ended.metadata, response=ended.response, error=ended.error)
            )
            finished = select(OperationRow.number).where(OperationRow.done).order_by(OperationRow.number.desc())
            last = session.scalar(finished.offset(MAX_FINISHED).limit(1))
            if last is not None:
                session.execute(delete(OperationRow).where(OperationRow.done, OperationRow.number <= last))
        return ended

    def delete(self, name: str) -> None:
        """Forget an operation."""
        with self._database.writing() as session:
            session.execute(delete(OperationRow).where(OperationRow.name == name))

    def forget_actor(self, actor_id: str) -> None:
        """Forget all operations that concern a person."""
        with self._database.writing() as session:
            session.execute(delete(OperationRow).where(OperationRow.actor_id == actor_id))


def _record(row: OperationRow) -> OperationRecord:
    return OperationRecord(
        number=row.number,
        name=row.name,
        kind=row.kind,
        actor_id=row.actor_id,
        output=row.output,
        created_at=row.created_at,
        request=row.request,
        done=row.done,
        metadata=row.metadata_bytes,
        response=row.response,
        error=row.error,
    )
