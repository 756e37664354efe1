"""Operations in the database, so that every gateway knows them after a restart, and their removal by age and by number."""

from __future__ import annotations

import datetime
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import structlog
from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Double,
    ForeignKey,
    LargeBinary,
    String,
    and_,
    delete,
    exists,
    func,
    select,
    true,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog
from gateway.database.session import Database
from gateway.database.tables import Base, JobFolderRow, of_actor
from gateway.times import before_now, now
from services.common.errors import OperationNotFoundError, RequestIdReusedError, WorkCancelledError

DUB: Final = "dub"
"""Kind of the operations of CreateDub."""
FACES: Final = "faces"
"""Kind of the operations of DetectFaces."""
_NAME: Final = re.compile(r"operations/[0-9a-f]{32}")
AT_ONCE: Final = 500
"""Most operations that one transaction deletes, so that other processes need not wait for the database."""
_log = structlog.stdlib.get_logger("dubstage.operations")


class OperationRow(Base):
    """One operation. Numbers grow in the order of submission."""

    __tablename__ = "operations"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    actor_id: Mapped[str] = mapped_column(String(63), index=True)
    output: Mapped[str] = mapped_column(String(4096))
    created_at: Mapped[str] = mapped_column(String(32), index=True)
    request: Mapped[bytes] = mapped_column(LargeBinary)
    done: Mapped[bool] = mapped_column(index=True)
    metadata_bytes: Mapped[bytes] = mapped_column(LargeBinary)
    response: Mapped[bytes | None] = mapped_column(LargeBinary)
    error: Mapped[bytes | None] = mapped_column(LargeBinary)
    request_id: Mapped[str | None] = mapped_column(String(36), index=True, unique=True)
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    footage_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    """Digest of the footage whose faces the operation lists; NULL: the digest is not known yet, or the operation lists no faces."""


class LeaseRow(Base):
    """Lease of an operation: which gateway runs it, and until when. Only operations that have not ended have a row."""

    __tablename__ = "operation_leases"

    number: Mapped[int] = mapped_column(ForeignKey("operations.number", ondelete="CASCADE"), primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(80))
    """The gateway process that runs the operation; empty: none, the operation waits."""
    until: Mapped[float] = mapped_column(Double)
    """End of the lease by the clock of the database, Unix time in seconds. From then on any gateway may take the operation."""
    begun: Mapped[bool]
    """Whether a gateway has begun the work."""
    cancel: Mapped[bool]
    """Whether somebody asked for the operation to stop."""


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


@dataclass(frozen=True, slots=True)
class RequestIdentity:
    """Facts that identify a request that creates something when the request comes again.

    Attributes:
        request_id: id that identifies a request that comes again; empty: none.
        sha256: SHA-256 of the request.
    """

    request_id: str = ""
    sha256: str = ""

    def check(self, stored_sha256: str | None) -> None:
        """Check that an earlier request of this id was the same.

        Raises:
            RequestIdReusedError: it was another one.
        """
        if stored_sha256 != self.sha256:
            raise RequestIdReusedError(
                f"request_id: {self.request_id} belongs to another request: give each request an id of its own", field="request_id"
            )


NO_REQUEST_ID: Final = RequestIdentity()
"""Identity of a request without an id: such a request is new each time it comes."""

AuditOf = Callable[[OperationRecord], AuditEvent | None]
"""Returns what the audit log records of an operation that has begun or ended; None: nothing."""

OnEnd = Callable[[Session, OperationRecord], None]
"""Called in the transaction that stores how an operation ended: what the function writes is kept with the end, or not at all."""


def tell_nobody(session: Session, record: OperationRecord) -> None:
    """Do nothing: the `OnEnd` of operations that nothing follows."""


class OperationStore:
    """Table of operations. All methods block.

    Attributes:
        database: database of the actors.
        kinds: kinds of the operations that this store and its queue see; None: all.
        audit_of: see `AuditOf`. The entries are written with the operations.

    Args:
        database: database of the actors.
        kinds: kinds of the operations that this store and its queue see; None: all.
        audit_of: see the attribute.
        on_end: see `OnEnd`.
    """

    def __init__(
        self,
        database: Database,
        *,
        kinds: Collection[str] | None = None,
        audit_of: AuditOf = lambda record: None,
        on_end: OnEnd = tell_nobody,
    ) -> None:
        self.database = database
        self.kinds = kinds
        self.audit_of = audit_of
        self._on_end = on_end
        self._audit = AuditLog(database)

    def add_ended(self, kind: str, request: bytes) -> OperationRecord:
        """Store an operation that has succeeded already, with what `on_end` and `audit_of` write, and return its record."""
        row = new_row(kind, request, actor_id="", output="")
        row.done, row.response = True, b""
        with self.database.writing() as session:
            session.add(row)
            session.flush()
            record = record_of(row)
            self._on_end(session, record)
            event = self.audit_of(record)
            if event is not None:
                self._audit.append(session, event)
        return record

    def get(self, name: str) -> OperationRecord:
        """Return an operation.

        Raises:
            OperationNotFoundError: there is no operation of this name.
        """
        with self.database.reading() as session:
            # PostgreSQL cannot be asked for every text: its texts hold no NUL.
            valid = _NAME.fullmatch(name) is not None
            row = session.scalar(select(OperationRow).where(OperationRow.name == name, of_kinds(self.kinds))) if valid else None
            if row is None:
                raise OperationNotFoundError(f"no operation {name[:80]!r}: it was deleted or never existed", resource=name)
            return record_of(row)

    def begun_by(self, identity: RequestIdentity) -> OperationRecord | None:
        """Return the operation that an earlier request of the same id has begun; None: there is none.

        Raises:
            RequestIdReusedError: the earlier request was another one.
        """
        with self.database.reading() as session:
            return begun_by(session, identity)

    def list(
        self, *, after: int = 0, limit: int = 100, done: bool | None = None, kind: str = "", newest: bool = False
    ) -> list[OperationRecord]:
        """Return operations in the order of their submission, or the newest first.

        Args:
            after: number of the operation behind which the list begins; 0: at the first.
            limit: most operations.
            done: only operations that have ended (True) or have not ended (False); None: all.
            kind: only operations of this kind; empty: all.
            newest: whether the list begins with the operation that was submitted last.
        """
        number = OperationRow.number
        query = select(OperationRow).where(of_kinds(self.kinds)).order_by(number.desc() if newest else number).limit(limit)
        if after:
            query = query.where(number < after if newest else number > after)
        if kind:
            query = query.where(OperationRow.kind == kind)
        if done is not None:
            query = query.where(OperationRow.done == done)
        with self.database.reading() as session:
            return [record_of(row) for row in session.scalars(query)]

    def finish(self, record: OperationRecord, *, owner: str = "") -> OperationRecord:
        """Store how an operation ended, and return the record.

        Args:
            record: the operation with its end.
            owner: the gateway process that ran the operation; empty: no process has taken the operation.

        Raises:
            WorkCancelledError: the operation belongs to another gateway now, or has ended. Nothing has changed.
        """
        ended = replace(record, done=True)
        with self.database.writing() as session:
            # The row is deleted first: from here on no other gateway can take the operation.
            mine = delete(LeaseRow).where(LeaseRow.number == ended.number, LeaseRow.owner == owner)
            if not cast("CursorResult[object]", session.execute(mine)).rowcount:
                raise taken_over(ended.name)
            session.execute(
                update(OperationRow)
                .where(OperationRow.name == ended.name)
                .values(done=True, metadata_bytes=ended.metadata, response=ended.response, error=ended.error)
            )
            self._on_end(session, ended)
            event = self.audit_of(ended)
            if event is not None:
                self._audit.append(session, event, continues=ended.name)
        return ended

    def is_written(self, outputs: Collection[str], *, before: int | None = None) -> bool:
        """Return whether an operation that has not ended writes one of these outputs.

        Args:
            outputs: outputs as they were submitted.
            before: only operations that were submitted before the operation of this number; None: all.
        """
        query = select(OperationRow.number).where(
            OperationRow.done.is_(False), OperationRow.output.in_(outputs), of_kinds(self.kinds)
        )
        if before is not None:
            query = query.where(OperationRow.number < before)
        with self.database.reading() as session:
            return session.scalar(query.limit(1)) is not None

    def was_written(self, outputs: Collection[str]) -> bool:
        """Return whether an operation that succeeded wrote one of these outputs.

        Args:
            outputs: outputs as they were submitted.
        """
        query = select(OperationRow.number).where(
            OperationRow.response.is_not(None), OperationRow.output.in_(outputs), of_kinds(self.kinds)
        )
        with self.database.reading() as session:
            return session.scalar(query.limit(1)) is not None

    def succeeded_requests(self, kind: str, limit: int) -> Sequence[bytes]:
        """Return the requests of operations of a kind that succeeded, the newest first.

        Args:
            kind: kind of the operations.
            limit: most operations.
        """
        # The results of long videos are large, and are not read.
        query = (
            select(OperationRow.request)
            .where(OperationRow.kind == kind, OperationRow.response.is_not(None))
            .order_by(OperationRow.number.desc())
            .limit(limit)
        )
        with self.database.reading() as session:
            return session.scalars(query).all()

    def delete(self, name: str) -> None:
        """Forget an operation. An erasure of its actor still finds the folders of a job that has not ended."""
        with self.database.writing() as session:
            actor_id = session.scalar(select(OperationRow.actor_id).where(OperationRow.name == name))
            if actor_id:
                folders = update(JobFolderRow).where(JobFolderRow.belongs_to == name)
                session.execute(folders.values(belongs_to=of_actor(actor_id)))
            session.execute(delete(OperationRow).where(OperationRow.name == name))
            self._audit.append(session, AuditEvent(event=EventKind.OPERATION_REMOVED, work=name))

    def note_footage(self, name: str, sha256: str) -> None:
        """Store the footage of an operation that lists its faces. An erasure of a person in the footage forgets the operation."""
        with self.database.writing() as session:
            session.execute(update(OperationRow).where(OperationRow.name == name).values(footage_sha256=sha256))

    def forget_actor(self, actor_id: str) -> None:
        """Forget all operations that concern a person."""
        with self.database.writing() as session:
            session.execute(delete(OperationRow).where(OperationRow.actor_id == actor_id))


def shows_footage(digests: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that an operation lists the faces of footage.

    Args:
        digests: SHA-256 of the footage, hexadecimal.
    """
    return OperationRow.footage_sha256.in_(sorted(digests))


def of_kinds(kinds: Collection[str] | None) -> ColumnElement[bool]:
    """Return the condition that an operation is of one of these kinds; None: of any kind."""
    return true() if kinds is None else OperationRow.kind.in_(sorted(kinds))


def begun_by(session: Session, identity: RequestIdentity) -> OperationRecord | None:
    """Return the operation that an earlier request of the same id has begun; None: there is none.

    Raises:
        RequestIdReusedError: the earlier request was another one.
    """
    row = (
        session.scalar(select(OperationRow).where(OperationRow.request_id == identity.request_id)) if identity.request_id else None
    )
    if row is None:
        return None
    identity.check(row.request_sha256)
    return record_of(row)


def new_row(kind: str, request: bytes, *, actor_id: str, output: str, identity: RequestIdentity = NO_REQUEST_ID) -> OperationRow:
    """Return the row of a new operation, without its number."""
    return OperationRow(
        name=f"operations/{secrets.token_hex(16)}",
        kind=kind,
        actor_id=actor_id,
        output=output,
        created_at=now(),
        request=request,
        done=False,
        metadata_bytes=b"",
        request_id=identity.request_id or None,
        request_sha256=identity.sha256 or None,
    )


def record_of(row: OperationRow) -> OperationRecord:
    """Return the record of a stored operation."""
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


def taken_over(name: str) -> WorkCancelledError:
    """Return the error for work on an operation that another gateway has taken over."""
    return WorkCancelledError(f"{name} belongs to another gateway now, or has ended: the work of this process ends")


def count_unfinished(session: Session, kinds: Collection[str] | None) -> int:
    """Return the number of operations of these kinds that run or wait in any gateway; None: of any kind."""
    mine = select(func.count()).select_from(OperationRow).where(OperationRow.done.is_(False), of_kinds(kinds))
    return session.scalar(mine) or 0


def unfinished_in(database: Database, kinds: Collection[str]) -> int:
    """Return what `count_unfinished` returns, for a database. Blocks."""
    with database.reading() as session:
        return count_unfinished(session, kinds)


def expire_operations(database: Database, *, max_age_days: float, max_finished: int) -> int:
    """Delete old finished operations, and return their number. Blocks.

    An operation whose job has not ended stays: an erasure of the person finds the folder of the job through the operation.

    Args:
        database: database of the operations.
        max_age_days: days after its submission in which a finished operation is kept; 0: for ever.
        max_finished: most finished operations of each kind that are kept. The oldest are deleted first.

    Raises:
        BackendUnavailableError: the database does not answer.
    """
    deleted = 0
    if max_age_days:
        deleted += _delete(database, OperationRow.created_at < before_now(datetime.timedelta(days=max_age_days)))
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
            statement = delete(OperationRow).where(OperationRow.number.in_(some))
            count = cast("CursorResult[object]", session.execute(statement)).rowcount
        deleted += count
        if count < AT_ONCE:
            return deleted
