"""Removal of one person from the database, the artefact store and the folders of jobs, in one transaction."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from gateway.actors.actor_id import not_enrolled
from gateway.actors.job_blobs import counted
from gateway.actors.stored import SUPERSEDED
from gateway.actors.sweep import digest_of_file, regular_files
from gateway.audit.tables import AuditPersonRow
from gateway.confinement import entry_of
from gateway.database.database import Database
from gateway.database.tables import ActorRow, EnrolmentRow, JobBlobRow, JobFolderRow, JobRow, LineageRow
from gateway.operations.store import OperationRow
from gateway.pipeline.journal import journalled
from gateway.pipeline.workspace import JOURNAL, lock_folder
from services.common.errors import InvalidRequest
from services.common.store.artefacts import ArtefactRef, ArtefactStore

JOB_BLOB: Final = "job"
"""Kind of the blobs that jobs counted."""
JOB_FILE: Final = "job file"
"""Kind of the files in folders of jobs."""
_BLOBS_AT_ONCE: Final = 50

_log = structlog.stdlib.get_logger("dubstage.erasures")


@dataclass(frozen=True, slots=True)
class JobFolders:
    """The folders of a person's jobs, as the database names them.

    Attributes:
        names: the paths as the database has them.
        own: the folders in the folder of jobs. Only these are read and removed.
        elsewhere: other paths that exist on this machine. A path of the database is no reason to remove what lies there.
    """

    names: Sequence[str]
    own: Sequence[Path]
    elsewhere: Sequence[str]


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed of a person.

    Attributes:
        refs: every blob that came from the person's footage, by reference, with its kind.
        kept: SHA-256 of the blobs that other actors or jobs count.
        folders: the person's folders of jobs.
    """

    refs: dict[ArtefactRef, str]
    kept: AbstractSet[str]
    folders: JobFolders

    @property
    def gone(self) -> list[ArtefactRef]:
        """The blobs that were deleted."""
        return [ref for ref in self.refs if ref.sha256 not in self.kept]

    def by_kind(self, *, kept: bool) -> dict[str, set[str]]:
        """Return the SHA-256 of the deleted or of the kept blobs, by kind."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for ref, kind in self.refs.items():
            if (ref.sha256 in self.kept) is kept:
                found[SUPERSEDED if kind.startswith(SUPERSEDED) else kind].add(ref.sha256)
        return dict(found)


def files_of_jobs(folders: Sequence[Path]) -> dict[str, int]:
    """Return SHA-256, hexadecimal, and size in bytes of all files of the person's jobs. Empty files are left out."""
    found = (file for folder in folders for file in regular_files(folder))
    return {digest: size for file, size in found if size and (digest := digest_of_file(file))}


def remove_person(
    database: Database, session: Session, actor_id: str, artefacts: ArtefactStore, jobs: Path, beat: Callable[[], None]
) -> Removed:
    """Delete a person's rows and blobs, and the person's folders in the folder of jobs.

    Args:
        database: database of the actors.
        session: the transaction of the erasure.
        actor_id: id of the person.
        artefacts: the store that the stages share.
        jobs: folder of all jobs.
        beat: called often: keeps the transaction open.

    Raises:
        ActorNotReady: there is no such actor, and no operation or job names the person.
    """
    # With the row locked, a job that another process begins either comes first and is seen here, or finds no actor.
    actor = session.get(ActorRow, actor_id, with_for_update=True)
    folders = folders_of(session, actor_id, jobs)
    check_known(session, actor_id)
    for path in folders.elsewhere:
        _log.warning("folder_outside_of_jobs_kept", folder=path, jobs=str(jobs))
    # With the rows locked, a blob that a job counts now is either counted first and seen here, or not counted at all.
    session.scalars(select(JobFolderRow).where(JobFolderRow.folder.in_(folders.names)).with_for_update()).all()
    # From here to the end of the transaction, no job and no enrolment counts a blob that this erasure may delete.
    database.delete_blobs(session)
    own = f"{artefacts.url}/"
    refs = {ref: JOB_BLOB for folder in folders.own for ref in journalled(folder / JOURNAL) if ref.uri.startswith(own)}
    for job in session.scalars(select(JobBlobRow).where(JobBlobRow.folder.in_(folders.names))):
        refs[ArtefactRef(job.uri, job.sha256, job.size_bytes)] = JOB_BLOB
    for blob in session.scalars(select(LineageRow).where(LineageRow.actor_id == actor_id)):
        refs[ArtefactRef(blob.uri, blob.sha256, blob.size_bytes)] = blob.kind
    for table in (LineageRow, JobRow, EnrolmentRow, OperationRow):
        session.execute(delete(table).where(table.actor_id == actor_id))
    for counts in (JobBlobRow, JobFolderRow):
        session.execute(delete(counts).where(counts.folder.in_(folders.names)))
    if actor is not None:
        session.delete(actor)
    session.flush()
    removed = Removed(refs, counted(session, {ref.sha256 for ref in refs}), folders)
    for number, ref in enumerate(removed.gone):
        if number % _BLOBS_AT_ONCE == 0:
            beat()
        artefacts.delete(ref)
    for folder in folders.own:
        beat()
        _remove(folder)
    return removed


def check_known(session: Session, actor_id: str) -> None:
    """Check that there is something to erase: an actor, or operations, jobs or entries of the audit log that name the person.

    Raises:
        ActorNotReady: nothing names the person.
    """
    for table in (ActorRow, OperationRow, AuditPersonRow):
        if session.scalar(select(table.actor_id).where(table.actor_id == actor_id).limit(1)) is not None:
            return
    if not _folder_names(session, actor_id):
        raise not_enrolled(actor_id)


def folders_of(session: Session, actor_id: str, jobs: Path) -> JobFolders:
    """Return the folders of all jobs that use an actor, and of the operations that enrol the person.

    Args:
        session: a transaction.
        actor_id: id of the person.
        jobs: folder of all jobs.
    """
    entries = {name: entry_of(jobs, name) for name in _folder_names(session, actor_id)}
    return JobFolders(
        names=list(entries),
        own=[entry for entry in entries.values() if entry is not None],
        elsewhere=[name for name, entry in entries.items() if entry is None and _exists(name)],
    )


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL byte
        return False


def _folder_names(session: Session, actor_id: str) -> list[str]:
    mine = select(JobRow.folder).where(JobRow.actor_id == actor_id)
    enrolments = (
        select(JobFolderRow.folder)
        .join(OperationRow, OperationRow.name == JobFolderRow.belongs_to)
        .where(OperationRow.actor_id == actor_id)
    )
    others = select(JobFolderRow.folder).where(JobFolderRow.belongs_to == f"actors/{actor_id}")
    return sorted({name for query in (mine, enrolments, others) for name in session.scalars(query)})


def _remove(folder: Path) -> None:
    """Remove a job's folder, under the folder's lock if the job has ended."""
    try:
        handle: int | None = lock_folder(folder, make=False)
    except (InvalidRequest, OSError):
        handle = None
    shutil.rmtree(folder, ignore_errors=True)
    if handle is not None:
        os.close(handle)
