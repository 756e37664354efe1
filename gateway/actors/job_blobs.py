"""The database's record of jobs that have begun, and of the blobs that each job counts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from gateway.actors.stored import not_enrolled
from gateway.database.session import Database
from gateway.database.tables import ActorRow, ErasureRow, JobBlobRow, JobFolderRow, JobRow, LineageRow
from services.common.errors import ActorNotReadyError, InvalidRequestError, WorkCancelledError
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.texts import Command, Text

_TURN_S: Final = 0.12
"""Seconds in which each writer that waits for an SQLite database looks at it once."""


class JobBlobs:
    """Jobs by their folders. All methods block.

    Args:
        database: database of the actors.
        artefacts: the store that the stages share.
    """

    def __init__(self, database: Database, artefacts: ArtefactStore) -> None:
        self._database = database
        self._artefacts = artefacts

    def begin(self, folder: Path, *, actor_id: str = "", belongs_to: str = "") -> None:
        """Store that a job begins, or goes on, in a folder.

        Args:
            folder: folder of the job.
            actor_id: actor that is dubbed. An erasure of the actor deletes the job. Empty: the job enrols the person for itself.
            belongs_to: name of the gateway's operation, `of_actor` for an enrolment of the command line, `of_footage` for a
                kept analysis; empty: none of these.

        Raises:
            ActorError: the actor was erased, or is being erased now.
        """
        with self._database.writing() as session:
            if actor_id:
                _check_there(session, actor_id)
                session.merge(JobRow(actor_id=actor_id, folder=str(folder)))
            session.merge(JobFolderRow(folder=str(folder), belongs_to=belongs_to))

    def is_begun(self, folder: Path) -> bool:
        """Return whether the job of a folder has begun, and has neither ended nor been given up."""
        with self._database.reading() as session:
            return session.get(JobFolderRow, str(folder)) is not None

    def check(self, folder: Path, actor_id: str) -> None:
        """Check that the actor of a job that has begun is still enrolled.

        Raises:
            ActorError: the actor was erased, or is being erased now.
        """
        with self._database.reading() as session:
            if _is_over(session, folder, actor_id):
                raise erased_meanwhile(actor_id)

    def hold(self, folder: Path, ref: ArtefactRef, *, actor_ids: Sequence[str] = ()) -> bool:
        """Count a blob that a job has stored, and return whether the blob is there.

        The end of another job that had the same blob may have deleted the blob before it was counted. From now on the end of no job
        deletes the blob, so the job can store it again.

        If the job may not go on, the blob is deleted, unless another job or actor counts the blob.

        Args:
            folder: folder of the job.
            ref: the blob.
            actor_ids: actors that are dubbed; none: the job enrols the people for itself.

        Raises:
            ActorError: one of the actors was erased, or is being erased now.
            WorkCancelledError: the job was given up.
        """
        with self._database.writing() as session:
            # With the row locked, an erasure in another process either comes first, or sees this blob.
            begun = session.get(JobFolderRow, str(folder), with_for_update=True)
            self._database.count_blobs(session, {ref.sha256})
            erased = next((actor_id for actor_id in actor_ids if _is_over(session, folder, actor_id)), "")
            over = begun is None or bool(erased)
            if over:
                if ref.sha256 not in counted(session, {ref.sha256}):
                    self._artefacts.delete(ref)
            else:
                session.merge(JobBlobRow(folder=str(folder), sha256=ref.sha256, uri=ref.uri, size_bytes=ref.size_bytes))
        if over:
            raise erased_meanwhile(erased) if erased else WorkCancelledError("the job was given up while the job ran")
        return self._is_there(ref)

    def release(self, folder: Path) -> Sequence[ArtefactRef]:
        """Forget a job, and return the blobs that were counted for the job."""
        with self._database.writing() as session:
            mine = session.scalars(select(JobBlobRow).where(JobBlobRow.folder == str(folder)))
            refs = [ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in mine]
            for table in (JobBlobRow, JobRow, JobFolderRow):
                session.execute(delete(table).where(table.folder == str(folder)))
        return refs

    def only_of(self, folder: Path, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Return the blobs among `refs`, and among those counted for the job, that no actor and no other job counts."""
        with self._database.reading() as session:
            mine = session.scalars(select(JobBlobRow).where(JobBlobRow.folder == str(folder)))
            held = [ArtefactRef(blob.uri, blob.sha256, blob.size_bytes) for blob in mine]
            blobs = list(dict.fromkeys((*refs, *held)))
            in_use = counted(session, {ref.sha256 for ref in blobs}, but=str(folder))
        return [ref for ref in blobs if ref.sha256 not in in_use]

    @contextmanager
    def unused(self, refs: Sequence[ArtefactRef], *, but: Path | None = None) -> Iterator[Sequence[ArtefactRef]]:
        """Give the blobs among `refs` that no actor and no job counts, so that the caller can delete them.

        No job counts one of the blobs before the context ends. With SQLite, no other process writes anything until then, and has
        time to write afterwards.

        Args:
            refs: a few blobs.
            but: folder of a job. The job's own count keeps no blob, and is removed when the context ends, so that another job that
                stores the blob again deletes the blob at its end. None: all jobs count.
        """
        began = time.monotonic()
        with self._database.writing() as session:
            digests = {ref.sha256 for ref in refs}
            self._database.count_blobs(session, digests)
            in_use = counted(session, digests, but=str(but) if but is not None else "")
            yield [ref for ref in refs if ref.sha256 not in in_use]
            if but is not None:
                mine = delete(JobBlobRow).where(JobBlobRow.folder == str(but), JobBlobRow.sha256.in_(digests - in_use))
                session.execute(mine)
        if not self._database.shared:
            time.sleep(min(time.monotonic() - began, _TURN_S))

    def delete_unused(self, refs: Sequence[ArtefactRef]) -> None:
        """Delete the blobs among `refs`, a few, that no actor and no job counts."""
        with self.unused(refs) as unused:
            for ref in unused:
                self._artefacts.delete(ref)

    def folders_of(self, operation: str) -> Sequence[str]:
        """Return the folders of the jobs that an operation began and has not ended, one per gateway that began one, as stored."""
        with self._database.reading() as session:
            return sorted(session.scalars(select(JobFolderRow.folder).where(JobFolderRow.belongs_to == operation)))

    def unknown(self, folders: Sequence[Path]) -> Sequence[Path]:
        """Return the folders whose jobs have ended or never begun: no row of any gateway has a folder of that name."""
        with self._database.reading() as session:
            names = {Path(folder).name for folder in session.scalars(select(JobFolderRow.folder))}
        return [folder for folder in folders if folder.name not in names]

    def uncounted(self, refs: Sequence[ArtefactRef]) -> Sequence[ArtefactRef]:
        """Return the blobs among `refs` that no actor and no job counts."""
        with self._database.reading() as session:
            in_use = counted(session, {ref.sha256 for ref in refs})
        return [ref for ref in refs if ref.sha256 not in in_use]

    def _is_there(self, ref: ArtefactRef) -> bool:
        try:
            return self._artefacts.exists(ref)
        except InvalidRequestError:
            # The stages have another store, from which this process deletes nothing.
            return True


def of_footage(sha256: str) -> str:
    """Return what a kept analysis of footage belongs to."""
    return f"footage/{sha256}"


def erased_meanwhile(actor_id: str) -> ActorNotReadyError:
    """Return the error for work with an actor that was erased while the work ran."""
    return ActorNotReadyError(
        f"actor {actor_id!r} was erased: this work with the actor ends, and nothing of the work is kept", subject=actor_id
    )


def counted(session: Session, digests: AbstractSet[str], *, but: str = "") -> set[str]:
    """Return the digests that an actor or a job counts. The job of the folder `but` does not count."""
    in_use: set[str] = set()
    wanted = sorted(digests)
    for begin in range(0, len(wanted), 500):  # databases limit the length of a list
        part = wanted[begin : begin + 500]
        in_use.update(session.scalars(select(LineageRow.sha256).where(LineageRow.sha256.in_(part))))
        in_use.update(session.scalars(select(JobBlobRow.sha256).where(JobBlobRow.sha256.in_(part), JobBlobRow.folder != but)))
    return in_use


def check_enrolment(session: Session, folder: Path, actor_id: str) -> None:
    """Check that the job of an enrolment may store its actor.

    Raises:
        ActorError: an erasure has ended the job, or is about to.
    """
    # With the row locked, an erasure in another process either comes first, or finds the actor.
    if session.get(JobFolderRow, str(folder), with_for_update=True) is None or is_open(session, actor_id):
        raise erased_meanwhile(actor_id)


def _check_there(session: Session, actor_id: str) -> None:
    # With the row locked, an erasure in another process either comes first, or sees this job.
    if session.get(ActorRow, actor_id, with_for_update={"read": True}) is None:
        raise not_enrolled(actor_id)
    if is_open(session, actor_id):
        raise ActorNotReadyError(
            Text(
                "actor {actor!r} is being erased: {erase} finishes an interrupted erasure",
                actor=actor_id,
                erase=Command("actor erase", actor_id),
            ),
            subject=actor_id,
        )


def _is_over(session: Session, folder: Path, actor_id: str) -> bool:
    """Return whether the actor of a job was erased, or is being erased."""
    return bool(actor_id) and (session.get(JobRow, (actor_id, str(folder))) is None or is_open(session, actor_id))


def is_open(session: Session, actor_id: str) -> bool:
    """Return whether an erasure of an actor was asked for and has not ended."""
    mine = select(ErasureRow.number).where(
        ErasureRow.actor_id == actor_id, ErasureRow.receipt.is_(None), ErasureRow.error.is_(None)
    )
    return session.scalar(mine.limit(1)) is not None
