"""Erasing a person: everything made from the person's footage, in the database, in the artefact store and in the jobs' folders.

An erasure is a row of the table `erasures`. While the row is open, no work with the actor begins, and running work ends at its next
look at the database, in every process. The row is written before anything is erased, so that the next gateway finishes an
interrupted erasure. If gateways work with the database, one of them erases when all of them have ended their live streams and
operations with the actor. Otherwise the process that was asked erases.
"""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from google.rpc import status_pb2  # type: ignore[import-untyped]
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from gateway.actors.actor_id import not_enrolled
from gateway.actors.job_blobs import counted, erased_meanwhile, is_open
from gateway.actors.receipts import ErasureReceipt, now, signed
from gateway.database.database import Database
from gateway.database.tables import ActorRow, EnrolmentRow, ErasureRow, JobBlobRow, JobFolderRow, JobRow, LineageRow
from gateway.operations.store import OperationRow
from gateway.pipeline.journal import journalled
from gateway.pipeline.workspace import JOURNAL, is_running, lock_folder
from services.common.chassis import error_status
from services.common.errors import BackendUnavailable, DubstageError, InvalidRequest
from services.common.store.artefacts import ArtefactRef, ArtefactStore

JOB_SECONDS: Final = 30.0
"""Most seconds that an erasure waits for jobs of other processes to notice the erasure of their actor."""
GATEWAY_SECONDS: Final = 90.0
"""Most seconds that the command line waits for the gateway to erase."""
_LOOK_S: Final = 0.1
_CLAIM_EVERY_S: Final = 2.0
_KEPT_FOR: Final = datetime.timedelta(hours=1)
"""How long the answer to an erasure is kept for the process that asked. A killed process never fetches its answer."""


class Erasures:
    """Erasures of one installation. All methods block.

    Args:
        database: database of the actors.
        artefacts: the store that the stages share.
        key_file: file of the key that receipts are signed with.
    """

    def __init__(self, database: Database, artefacts: ArtefactStore, key_file: Path) -> None:
        self._database = database
        self._artefacts = artefacts
        self._key_file = key_file

    def ask(self, actor_id: str) -> int:
        """Ask for the erasure of a person, and return the number of the erasure.

        Raises:
            ActorNotReady: there is no such actor, and no operation or job names the person.
        """
        with self._database.writing() as session:
            if session.get(ActorRow, actor_id) is None and not _is_named(session, actor_id):
                raise not_enrolled(actor_id)
            row = ErasureRow(actor_id=actor_id, asked_at=now())
            session.add(row)
            session.flush()
            return row.number

    def open(self) -> Sequence[tuple[int, str]]:
        """Return number and actor of every erasure that was asked for and has not ended, in the order of asking."""
        with self._database.reading() as session:
            rows = session.scalars(
                select(ErasureRow).where(ErasureRow.receipt.is_(None), ErasureRow.error.is_(None)).order_by(ErasureRow.number)
            )
            return [(row.number, row.actor_id) for row in rows]

    def answer(self, number: int) -> ErasureReceipt | None:
        """Return the receipt of an erasure that has ended, and forget the erasure. Return None while the erasure is open.

        Raises:
            DubstageError: the erasure failed.
        """
        # The row is read without a lock: the gateway may be in the middle of a long transaction.
        with self._database.reading() as session:
            row = session.get(ErasureRow, number)
            if row is None:
                raise BackendUnavailable("the erasure is gone from the database: erase the actor again")
            receipt, error = row.receipt, row.error
        if receipt is None and error is None:
            return None
        self.withdraw(number)
        if receipt is not None:
            return ErasureReceipt.from_json(receipt)
        found = error_status.from_status(status_pb2.Status.FromString(error or b""))
        raise found or BackendUnavailable("the gateway could not erase the actor: see its log")

    @property
    def shared(self) -> bool:
        """Whether several gateways may use the database, and each must end its own work before a person is erased."""
        return self._database.shared

    def turn(self, number: int) -> AbstractContextManager[bool]:
        """Give True if no other process carries out an erasure. The turn ends with the context, or with this process."""
        return self._database.turn(number)

    def fail(self, number: int, error: DubstageError) -> None:
        """Store the reason why nothing was erased, for the process that asked."""
        status = error_status.to_status(error, stage="gateway").SerializeToString()
        with self._database.writing() as session:
            mine = update(ErasureRow).where(ErasureRow.number == number, ErasureRow.receipt.is_(None))
            session.execute(mine.values(error=status))

    def withdraw(self, number: int) -> None:
        """Forget an erasure, and all answers that no process fetched within an hour."""
        old = (datetime.datetime.now(datetime.UTC) - _KEPT_FOR).replace(microsecond=0).isoformat()
        ended = ErasureRow.receipt.is_not(None) | ErasureRow.error.is_not(None)
        with self._database.writing() as session:
            session.execute(delete(ErasureRow).where((ErasureRow.number == number) | (ended & (ErasureRow.asked_at < old))))

    def gone(self, actor_ids: AbstractSet[str]) -> AbstractSet[str]:
        """Return the actors among `actor_ids` that are no longer enrolled."""
        if not actor_ids:
            return frozenset()
        with self._database.reading() as session:
            found = set(session.scalars(select(ActorRow.actor_id).where(ActorRow.actor_id.in_(sorted(actor_ids)))))
        return frozenset(actor_ids - found)

    def check(self, actor_id: str) -> None:
        """Check that an actor is still enrolled.

        Raises:
            ActorNotReady: the actor was erased, or is being erased now.
        """
        with self._database.reading() as session:
            if session.get(ActorRow, actor_id) is None or is_open(session, actor_id):
                raise erased_meanwhile(actor_id)

    def erase(self, actor_id: str) -> ErasureReceipt:
        """Erase a person in this process, as `carry_out` does, and return the receipt."""
        number = self.ask(actor_id)
        try:
            return self.carry_out(actor_id)
        finally:
            self.withdraw(number)

    def carry_out(self, actor_id: str, *, jobs_s: float = JOB_SECONDS) -> ErasureReceipt:
        """Erase a person whose erasure was asked for, and return the receipt.

        Jobs of other processes that use the actor notice the erasure and end. The folder of a job that does not end in time is
        deleted all the same, and the job fails at its next step. Blobs that another actor or job counts are kept.

        Args:
            actor_id: id of the person.
            jobs_s: most seconds to wait for jobs of other processes.

        Raises:
            ActorNotReady: there is no such actor, and no operation or job names the person.
        """
        self._wait_for_jobs(actor_id, jobs_s)
        return self._perform(actor_id)

    def erase_or_ask(self, actor_id: str) -> ErasureReceipt:
        """Erase a person: through the gateway that works with this database, or in this process if no gateway does.

        Raises:
            ActorNotReady: there is no such actor, and no operation or job names the person.
            BackendUnavailable: the gateway has not answered within GATEWAY_SECONDS. The erasure stays open.
        """
        number = self.ask(actor_id)
        deadline = time.monotonic() + GATEWAY_SECONDS
        while True:
            # The gateway may end while this process waits.
            next_claim = time.monotonic() + _CLAIM_EVERY_S
            if self._database.try_claim():
                try:
                    found = self.answer(number)
                    if found is None:
                        found = self.carry_out(actor_id)
                    return found
                finally:
                    self.withdraw(number)
                    self._database.release_claim()
            while time.monotonic() < next_claim:
                found = self.answer(number)
                if found is not None:
                    return found
                time.sleep(_LOOK_S)
            if time.monotonic() > deadline:
                raise BackendUnavailable(
                    f"the gateway that works with {self._database.where} has not erased actor {actor_id!r} in "
                    f"{GATEWAY_SECONDS:g} s, and goes on trying: see the gateway's log and `dubstage actor list`"
                )

    def _wait_for_jobs(self, actor_id: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._database.reading() as session:
            folders = _folders(session, actor_id)
        while any(is_running(folder) for folder in folders) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def _perform(self, actor_id: str) -> ErasureReceipt:
        with self._database.writing() as session:
            # With the row locked, a job that another process begins either comes first and is seen here, or finds no actor.
            actor = session.get(ActorRow, actor_id, with_for_update=True)
            folders = _folders(session, actor_id)
            if actor is None and not _is_named(session, actor_id):
                raise not_enrolled(actor_id)
            names = [str(folder) for folder in folders]
            # With the rows locked, a blob that a job counts now is either counted first and seen here, or not counted at all.
            session.scalars(select(JobFolderRow).where(JobFolderRow.folder.in_(names)).with_for_update()).all()
            blobs = [
                *session.scalars(select(LineageRow).where(LineageRow.actor_id == actor_id)),
                *session.scalars(select(JobBlobRow).where(JobBlobRow.folder.in_(names))),
            ]
            refs = [ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in blobs]
            own = f"{self._artefacts.url}/"
            refs += [ref for folder in folders for ref in journalled(folder / JOURNAL) if ref.uri.startswith(own)]
            for table in (LineageRow, JobRow, EnrolmentRow, OperationRow):
                session.execute(delete(table).where(table.actor_id == actor_id))
            for jobs in (JobBlobRow, JobFolderRow):
                session.execute(delete(jobs).where(jobs.folder.in_(names)))
            if actor is not None:
                session.delete(actor)
            session.flush()
            kept = counted(session, {ref.sha256 for ref in refs})
            for ref in refs:
                if ref.sha256 not in kept:
                    self._artefacts.delete(ref)
            for folder in folders:
                _remove(folder)
            receipt = signed(self._key_file, actor_id, {ref.sha256 for ref in refs} - kept, kept)
            mine = update(ErasureRow).where(
                ErasureRow.actor_id == actor_id, ErasureRow.receipt.is_(None), ErasureRow.error.is_(None)
            )
            session.execute(mine.values(receipt=receipt.to_json()))
        return receipt


def _is_named(session: Session, actor_id: str) -> bool:
    """Return whether operations or jobs name a person, as after an enrolment that failed or was killed."""
    operation = session.scalar(select(OperationRow.name).where(OperationRow.actor_id == actor_id).limit(1))
    return operation is not None or bool(_folders(session, actor_id))


def _folders(session: Session, actor_id: str) -> list[Path]:
    """Return the folders of all jobs that use an actor, and of the operations that enrol the person."""
    mine = select(JobRow.folder).where(JobRow.actor_id == actor_id)
    enrolments = (
        select(JobFolderRow.folder)
        .join(OperationRow, OperationRow.name == JobFolderRow.belongs_to)
        .where(OperationRow.actor_id == actor_id)
    )
    others = select(JobFolderRow.folder).where(JobFolderRow.belongs_to == f"actors/{actor_id}")
    return [Path(name) for name in sorted({name for query in (mine, enrolments, others) for name in session.scalars(query)})]


def _remove(folder: Path) -> None:
    """Remove a job's folder, under the folder's lock if the job has ended."""
    try:
        handle: int | None = lock_folder(folder, make=False)
    except (InvalidRequest, OSError):
        handle = None
    shutil.rmtree(folder, ignore_errors=True)
    if handle is not None:
        os.close(handle)
