"""The queue of operations that all gateways of one database share: each operation is leased by the gateway that runs it.

A lease ends by the clock of the database, so the clocks of the gateways need not agree. A gateway that dies renews nothing. After
the end of its leases, other gateways take its operations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, func, select, true, update
from sqlalchemy.orm import Session

from gateway.audit.log import AuditLog
from gateway.database.session import Database, new_holder
from gateway.operations.store import (
    NO_REQUEST_ID,
    AuditOf,
    LeaseRow,
    OperationRecord,
    OperationRow,
    RequestIdentity,
    begun_by,
    count_unfinished,
    new_row,
    of_kinds,
    record_of,
)
from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError, OverloadedError, StorageRefusedError

Admit = Callable[[int], None]
"""Called before an operation is stored, with the number of operations of the queue's kinds that run or wait in any gateway. Refuses
the operation by a DubstageError."""
LEASE_S: Final = 15.0
"""Seconds that a lease lasts after its last renewal."""
_FOR_EVER: Final = 1e15
"""End of a lease that needs no renewal, Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class LeasedOperation:
    """An operation that this gateway has leased.

    Attributes:
        record: the operation.
        begun: whether a gateway has begun the work before.
    """

    record: OperationRecord
    begun: bool


@dataclass(frozen=True, slots=True)
class SubmittedOperation:
    """A new operation.

    Attributes:
        record: the operation.
        mine: whether this gateway has leased the operation; False: the operation waits.
        waiting: number of operations that wait now, by kind, without those that somebody cancelled.
        repeated: whether an earlier request has begun the operation.
    """

    record: OperationRecord
    mine: bool
    waiting: Counter[str]
    repeated: bool = False


class OperationQueue:
    """Leases of one gateway process. All methods block. `busy` are always the numbers of the operations that this process runs.

    Attributes:
        owner: name of this process in the database.
        lease_s: seconds that a lease lasts after its last renewal; None: no other gateway uses the database, and leases do not end.

    Args:
        database: database of the operations.
        lease_s: see the attribute.
        kinds: kinds of the operations of this queue; None: all.
        audit_of: as for `OperationStore`.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float | None = LEASE_S,
        kinds: Collection[str] | None = None,
        audit_of: AuditOf = lambda record: None,
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._audit_of = audit_of
        self._audit = AuditLog(database)
        self.owner = new_holder()
        self.lease_s = lease_s

    def submit(
        self,
        kind: str,
        request: bytes,
        *,
        actor_id: str,
        output: str,
        busy: Collection[int],
        free: int,
        most_waiting: int,
        admit: Admit = lambda unfinished: None,
        identity: RequestIdentity = NO_REQUEST_ID,
    ) -> SubmittedOperation:
        """Store a new operation, and lease it if this gateway has a free slot for it.

        A request that comes again is answered with the operation that it has begun.

        Args:
            kind: kind of the operation.
            request: serialised message for the handler.
            actor_id: actor that the work concerns; empty: none.
            output: file that the work writes; empty: none.
            busy: numbers of the operations that this process runs.
            free: operations that this gateway can begin now.
            most_waiting: most operations that may wait, beyond those that this gateway can begin now.
            admit: see `Admit`.
            identity: what identifies the request when the request comes again.

        Raises:
            DubstageError: from `admit`.
            RequestIdReusedError: another request had this id.
            OverloadedError: as many operations wait as may wait.
            InvalidRequestError: an operation that has not ended writes this output.
            BackendUnavailableError: the database does not answer. The operation is not stored.
            StorageRefusedError: the database does not answer any more, and nobody knows whether the operation is stored.
        """
        row = new_row(kind, request, actor_id=actor_id, output=output, identity=identity)
        name, submitted = row.name, None
        try:
            with self._database.writing() as session:
                self._database.one_by_one(session)
                if (before := begun_by(session, identity)) is not None:
                    return SubmittedOperation(before, mine=False, waiting=self._waiting(session, busy), repeated=True)
                admit(count_unfinished(session, self._kinds))
                waiting = self._waiting(session, busy)
                if waiting.total() - free >= most_waiting:
                    there = len(busy) + waiting.total()
                    raise OverloadedError(
                        f"{there} operations run or wait already, as many as the gateway takes: try again later",
                        retry_after_s=5.0,
                    )
                submitted = self._add(session, row, waiting=waiting, mine=waiting.total() < free)
        except BackendUnavailableError as problem:
            # Before the COMMIT nothing is stored. If only its answer is lost, a caller who asks again would get the work twice.
            stored = None if submitted is None else self._stored(name, busy, problem)
            if stored is None:
                raise
            return stored
        return submitted

    def take(self, limit: int, *, busy: Collection[int], unwanted: bool = False) -> tuple[Sequence[LeasedOperation], Counter[str]]:
        """Lease the operations that have waited longest, or whose gateway died. Return them, and how many of each kind still wait.

        Args:
            limit: most operations.
            busy: numbers of the operations that this process runs.
            unwanted: take operations that somebody cancelled; False: take the others.
        """
        query = (
            select(OperationRow, LeaseRow)
            .join(LeaseRow, LeaseRow.number == OperationRow.number)
            .where(self._is_free(busy), LeaseRow.cancel.is_(unwanted))
            .order_by(OperationRow.number)
            .limit(limit)
            .with_for_update(of=LeaseRow, skip_locked=True)
        )
        with self._database.reading() as session:
            # Most looks find nothing, and change nothing.
            if not self._count(session, self._is_free(busy)):
                return (), Counter()
        with self._database.writing() as session:
            taken = []
            for row, lease in session.execute(query).all():
                taken.append(LeasedOperation(record_of(row), lease.begun))
                lease.owner, lease.begun = self.owner, True
                lease.until = self._end()
            session.flush()
            return taken, self._count(session, self._is_free(busy))

    def renew(self, numbers: Collection[int], progress: Mapping[int, bytes]) -> dict[int, bool]:
        """Renew the leases of operations. Return the operations that still are this gateway's, and whether somebody cancelled them.

        Args:
            numbers: numbers of the operations.
            progress: serialised progress messages to store, by number.
        """
        mine = update(LeaseRow).where(LeaseRow.number.in_(numbers), LeaseRow.owner == self.owner)
        with self._database.writing() as session:
            renewed = session.execute(mine.values(until=self._end()).returning(LeaseRow.number, LeaseRow.cancel))
            held = {int(number): bool(cancel) for number, cancel in renewed}
            for number, metadata in progress.items():
                if number in held:
                    session.execute(update(OperationRow).where(OperationRow.number == number).values(metadata_bytes=metadata))
        return held

    def release(self, numbers: Collection[int]) -> None:
        """Let other gateways take these operations at once."""
        mine = update(LeaseRow).where(LeaseRow.number.in_(numbers), LeaseRow.owner == self.owner)
        with self._database.writing() as session:
            session.execute(mine.values(owner="", until=0.0))

    def release_all(self) -> None:
        """Let any gateway take every operation. Only for a gateway that has the database for itself."""
        with self._database.writing() as session:
            session.execute(update(LeaseRow).where(self._is_ours()).values(owner="", until=0.0))

    def cancel(self, number: int) -> None:
        """Ask the gateway that runs an operation, or takes it, to stop it."""
        with self._database.writing() as session:
            session.execute(update(LeaseRow).where(LeaseRow.number == number).values(cancel=True))

    def cancel_work_on(self, actor_id: str) -> None:
        """Ask for the end of all operations that concern a person."""
        numbers = select(OperationRow.number).where(OperationRow.actor_id == actor_id, OperationRow.done.is_(False))
        with self._database.writing() as session:
            session.execute(update(LeaseRow).where(LeaseRow.number.in_(numbers)).values(cancel=True))

    def concerns(self, actor_id: str) -> bool:
        """Return whether an operation that concerns a person runs or waits in any gateway."""
        with self._database.reading() as session:
            mine = select(OperationRow.number).where(OperationRow.actor_id == actor_id, OperationRow.done.is_(False))
            return session.scalar(mine.limit(1)) is not None

    def _add(self, session: Session, row: OperationRow, *, waiting: Counter[str], mine: bool) -> SubmittedOperation:
        same = select(OperationRow.number).where(OperationRow.done.is_(False), OperationRow.output == row.output).limit(1)
        if row.output and session.scalar(same) is not None:
            raise InvalidRequestError(
                f"another operation writes {row.output}: wait for it, or choose another name", field="output_uri"
            )
        session.add(row)
        session.flush()
        lease = LeaseRow(number=row.number, owner=self.owner if mine else "", begun=mine, cancel=False)
        lease.until = self._end() if mine else 0.0  # type: ignore[assignment]  # an expression of the database's clock
        session.add(lease)
        session.flush()
        event = self._audit_of(record_of(row))
        if event is not None:
            self._audit.append(session, event)
        return SubmittedOperation(record_of(row), mine, waiting if mine else waiting + Counter({row.kind: 1}))

    def _stored(self, name: str, busy: Collection[int], problem: BackendUnavailableError) -> SubmittedOperation | None:
        """Return a new operation as it is stored, after a COMMIT without an answer; None: it is not stored.

        Args:
            name: name of the operation.
            busy: numbers of the operations that this process runs.
            problem: error of the COMMIT.

        Raises:
            StorageRefusedError: the database cannot be asked.
        """
        query = (
            select(OperationRow, LeaseRow.owner)
            .outerjoin(LeaseRow, LeaseRow.number == OperationRow.number)
            .where(OperationRow.name == name)
        )
        try:
            with self._database.writing() as session:
                # The server may still be at the COMMIT: the transaction holds this lock until its end.
                self._database.one_by_one(session)
                stored = session.execute(query).one_or_none()
                if stored is None:
                    return None
                row, owner = stored
                return SubmittedOperation(record_of(row), owner == self.owner, self._waiting(session, busy))
        except DubstageError as error:
            # Not a BackendUnavailableError, after which clients ask again.
            raise StorageRefusedError(
                f"{name} may have begun or not: the connection to the database broke while the operation was stored. Look for "
                f"this operation before you ask for the work again. {error}",
                subject=name,
            ) from error

    def _waiting(self, session: Session, busy: Collection[int]) -> Counter[str]:
        # Cancelled operations need no slot: a look ends them.
        return self._count(session, self._is_free(busy), LeaseRow.cancel.is_(False))

    def _count(self, session: Session, *conditions: ColumnElement[bool]) -> Counter[str]:
        of_kind = select(OperationRow.kind, func.count()).join(LeaseRow, LeaseRow.number == OperationRow.number)
        rows = session.execute(of_kind.where(*conditions).group_by(OperationRow.kind))
        return Counter({str(kind): int(number) for kind, number in rows})

    def _is_free(self, busy: Collection[int]) -> ColumnElement[bool]:
        # An operation of this process whose lease ended, because the database was away, is still this process's.
        return and_(LeaseRow.until <= self._database.clock, LeaseRow.number.not_in(sorted(busy)), self._is_ours())

    def _is_ours(self) -> ColumnElement[bool]:
        # Looked up by the number of each lease: the table of operations may be long, that of leases is short.
        if self._kinds is None:
            return true()
        return exists().where(OperationRow.number == LeaseRow.number, of_kinds(self._kinds)).correlate(LeaseRow)

    def _end(self) -> ColumnElement[float] | float:
        return _FOR_EVER if self.lease_s is None else self._database.clock + self.lease_s
