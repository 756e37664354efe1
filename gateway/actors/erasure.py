"""Erasing a person: everything made from the person's footage, in the database, in the artefact store and in the jobs' folders.

An erasure is a row of the table `erasures`. While the row is open, no work with the actor begins, and running work ends at its next
look at the database, in every process. The row is written before anything is erased, so that the next gateway finishes an
interrupted erasure. If gateways work with the database, one of them erases when all of them have ended their live streams and
operations with the actor. Otherwise the process that was asked erases. One transaction removes the rows.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from gateway.actors.job_blobs import counted, erased_meanwhile, is_open, of_footage
from gateway.actors.receipts import Digests, ErasureReceipt, signed
from gateway.actors.stored import FILES, SUPERSEDED, artefacts_of, is_actor_id, not_enrolled
from gateway.actors.sweep import OtherStore, Sweep, digest_of_file, regular_files, sweep_artefacts, sweep_database, sweep_folder
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog, AuditPersonRow
from gateway.database.session import Database
from gateway.database.tables import ActorRow, EnrolmentRow, ErasureRow, JobBlobRow, JobFolderRow, JobRow, LineageRow, of_actor
from gateway.dub.state.journal import journalled
from gateway.dub.state.records import read_note
from gateway.dub.state.workspace import FACTS, JOBS, JOURNAL, is_running, lock_folder
from gateway.operations.store import OperationRow, shows_footage
from gateway.safe_paths import entry_of
from gateway.signatures import InstallationKey, signing_key
from gateway.times import now
from services.common.errors import (
    ActorError,
    ArtefactCorruptError,
    ArtefactNotFoundError,
    BackendUnavailableError,
    DubstageError,
    InvalidRequestError,
)
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.texts import Command, Text

JOB_BLOB: Final = "job"
"""Kind of the blobs that jobs counted."""
JOB_FILE: Final = "job file"
"""Kind of the files in folders of jobs."""
_BLOBS_AT_ONCE: Final = 50

_log = structlog.stdlib.get_logger("dubstage.erasures")
JOB_SECONDS: Final = 30.0
"""Most seconds that an erasure waits for jobs of other processes to notice the erasure of their actor."""
GATEWAY_SECONDS: Final = 90.0
"""Most seconds that the command line waits for the gateway to erase."""
_POLL_S: Final = 0.1
_CLAIM_EVERY_S: Final = 2.0
_KEPT_FOR: Final = datetime.timedelta(hours=1)
"""How long the answer to an erasure is kept. A process that is killed, or whose caller leaves, never fetches its answer."""


@dataclass(frozen=True, slots=True)
class JobFolders:
    """The folders of a person's jobs, as the database names them.

    Attributes:
        names: the paths as the database has them.
        own: the folders in the folder of jobs. Only these are read and removed.
        elsewhere: other paths that exist on this machine. A path of the database is no reason to remove what lies there.
        analyses: folders of `own` with analyses of the person's footage that other dubs or enrolments have kept. The erasure does
            not end this other work, which may make the folder again.
        footage: SHA-256 of the files that the person was enrolled from, as far as they are known.
        knows_files: whether the digest of each enrolled file is known. False: the store has lost the list, and analyses may remain.
    """

    names: Sequence[str]
    own: Sequence[Path]
    elsewhere: Sequence[str]
    analyses: frozenset[Path]
    footage: frozenset[str]
    knows_files: bool

    @property
    def jobs(self) -> list[Path]:
        """Folders of jobs that use the actor, or enrol the person."""
        return [folder for folder in self.own if folder not in self.analyses]


@dataclass(frozen=True, slots=True)
class Removed:
    """Result of the removal of a person.

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
        """The blobs that were deleted, but for `last`."""
        return [ref for ref in self.refs if ref.sha256 not in self.kept and self.refs[ref] != FILES]

    @property
    def last(self) -> list[ArtefactRef]:
        """The list of the files, which the caller deletes when all else is gone: a repeated erasure looks for analyses by it."""
        return [ref for ref in self.refs if ref.sha256 not in self.kept and self.refs[ref] == FILES]

    def by_kind(self, *, kept: bool) -> dict[str, set[str]]:
        """Return the SHA-256 of the deleted or of the kept blobs, by kind."""
        digests: defaultdict[str, set[str]] = defaultdict(set)
        for ref, kind in self.refs.items():
            if (ref.sha256 in self.kept) is kept:
                digests[SUPERSEDED if kind.startswith(SUPERSEDED) else kind].add(ref.sha256)
        return dict(digests)


def files_of_jobs(folders: Sequence[Path]) -> dict[str, int]:
    """Return SHA-256, hexadecimal, and size in bytes of all files of the person's jobs. Empty files are left out."""
    files = (file for folder in folders for file in regular_files(folder))
    return {digest: size for file, size in files if size and (digest := digest_of_file(file))}


def remove_person(
    database: Database, session: Session, actor_id: str, artefacts: ArtefactStore, jobs: Path, beat: Callable[[], None]
) -> Removed:
    """Delete a person's rows, the person's blobs but for `Removed.last`, and the person's folders in the folder of jobs.

    Args:
        database: database of the actors.
        session: the transaction of the erasure.
        actor_id: id of the person.
        artefacts: the store that the stages share.
        jobs: folder of all jobs.
        beat: called often: keeps the transaction open.

    Raises:
        ActorError: there is no such actor, and no operation or job names the person.
    """
    # With the row locked, a job that another process begins either comes first and is seen here, or finds no actor.
    actor = session.get(ActorRow, actor_id, with_for_update=True)
    folders = folders_of(session, actor_id, jobs, artefacts)
    check_erasable(session, actor_id)
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
    session.execute(delete(OperationRow).where(shows_footage(folders.footage)))
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


def check_erasable(session: Session, actor_id: str) -> None:
    """Check that there is something to erase: an actor, or operations, jobs or entries of the audit log that name the person.

    Raises:
        ActorError: nothing names the person.
    """
    # A database may not even take such a text as a value.
    if not is_actor_id(actor_id):
        raise not_enrolled(actor_id)
    for table in (ActorRow, OperationRow, AuditPersonRow):
        if session.scalar(select(table.actor_id).where(table.actor_id == actor_id).limit(1)) is not None:
            return
    if not _folder_names(session, actor_id):
        raise not_enrolled(actor_id)


def folders_of(session: Session, actor_id: str, jobs: Path, artefacts: ArtefactStore) -> JobFolders:
    """Return the folders of all jobs that use an actor, of the operations that enrol the person, and of kept analyses of the same
    footage.

    Args:
        session: a transaction.
        actor_id: id of the person.
        jobs: folder of all jobs.
        artefacts: the store that the stages share.
    """
    names, files = _folder_names(session, actor_id), _files_of(session, actor_id, artefacts)
    footage = _footage_of(session, actor_id, {*(files or ()), *_files_of_jobs(jobs, names)})
    analyses = set(session.scalars(select(JobFolderRow.folder).where(JobFolderRow.belongs_to.in_(map(of_footage, footage)))))
    entries = {name: entry_of(jobs, name) for name in sorted({*names, *analyses})}
    return JobFolders(
        names=list(entries),
        own=[entry for entry in entries.values() if entry is not None],
        elsewhere=[name for name, entry in entries.items() if entry is None and _exists(name)],
        analyses=frozenset(entry for name in analyses - names if (entry := entries[name]) is not None),
        footage=frozenset(footage),
        knows_files=files is not None,
    )


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL byte
        return False


def _footage_of(session: Session, actor_id: str, files: set[str]) -> list[str]:
    """Return the SHA-256 of the footage that an actor was enrolled from, and of its files, sorted."""
    actor = session.get(ActorRow, actor_id)
    return sorted({*files, *((actor.footage_sha256,) if actor is not None else ())})


def _files_of(session: Session, actor_id: str, artefacts: ArtefactStore) -> list[str] | None:
    """Return the SHA-256 of the files that an actor was enrolled from, if there were several; None: the store has lost them."""
    ref = artefacts_of(session, actor_id).get(FILES)
    if ref is None:
        return []
    try:
        digests = json.loads(artefacts.get_bytes(ref))
    except (ArtefactNotFoundError, ArtefactCorruptError, InvalidRequestError, ValueError) as problem:
        _log.warning("files_of_actor_unknown", actor=actor_id, problem=str(problem))
        return None
    return [digest for digest in digests if isinstance(digest, str)] if isinstance(digests, list) else None


def _files_of_jobs(jobs: Path, names: set[str]) -> set[str]:
    """Return the SHA-256 of the files of enrolments that were stopped, as their folders tell."""
    folders = [entry for name in names if (entry := entry_of(jobs, name)) is not None]
    lists = [(read_note(folder / FACTS) or {}).get(FILES) for folder in folders]
    return {digest for digests in lists if isinstance(digests, list) for digest in digests if isinstance(digest, str)}


def _receipt_of(session: Session, actor_id: str) -> str | None:
    """Return the last receipt of a person that a process has not fetched; None: there is none."""
    if not is_actor_id(actor_id):  # a database may not even take such a text as a value
        return None
    mine = select(ErasureRow.receipt).where(ErasureRow.actor_id == actor_id, ErasureRow.receipt.is_not(None))
    return session.scalar(mine.order_by(ErasureRow.number.desc()).limit(1))


def _folder_names(session: Session, actor_id: str) -> set[str]:
    mine = select(JobRow.folder).where(JobRow.actor_id == actor_id)
    enrolments = (
        select(JobFolderRow.folder)
        .join(OperationRow, OperationRow.name == JobFolderRow.belongs_to)
        .where(OperationRow.actor_id == actor_id)
    )
    others = select(JobFolderRow.folder).where(JobFolderRow.belongs_to == of_actor(actor_id))
    return {name for query in (mine, enrolments, others) for name in session.scalars(query)}


def _remove(folder: Path) -> None:
    """Remove a job's folder, under the folder's lock if the job has ended."""
    try:
        handle: int | None = lock_folder(folder, make=False)
    except (InvalidRequestError, OSError):
        handle = None
    shutil.rmtree(folder, ignore_errors=True)
    if handle is not None:
        os.close(handle)


class Erasures:
    """Erasures of one installation. All methods block.

    Attributes:
        audit: the audit log of the database.

    Args:
        database: database of the actors.
        artefacts: the store that the stages share.
        data_dir: the data folder, with the folders of jobs.
        signing_key_file: as for `signing_key`.
    """

    def __init__(self, database: Database, artefacts: ArtefactStore, data_dir: Path, signing_key_file: Path | None) -> None:
        self._database = database
        self._artefacts = artefacts
        self._data_dir = data_dir
        self._jobs = data_dir / JOBS
        self._signing_key_file = signing_key_file
        self.audit = AuditLog(database)

    def signing_key(self) -> InstallationKey:
        """Return the key that receipts and audit logs are signed with.

        Raises:
            InvalidRequestError: the file of the settings cannot be used.
            StorageRefusedError: the key of the data folder cannot be made or read.
        """
        return signing_key(self._data_dir, self._signing_key_file)

    def ask(self, actor_id: str) -> int:
        """Ask for the erasure of a person, and return the number of the erasure.

        If the person is erased already, and the process that asked never fetched the receipt, `answer` returns this receipt.

        Raises:
            ActorError: there is no such actor, and no operation, job or receipt names the person.
        """
        with self._database.writing() as session:
            receipt = None
            try:
                check_erasable(session, actor_id)
            except ActorError:
                receipt = _receipt_of(session, actor_id)
                if receipt is None:
                    raise
            # Other callers may wait for the receipt of their own row.
            row = ErasureRow(actor_id=actor_id, asked_at=now(), receipt=receipt)
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
        """Return the receipt of an erasure that has ended. Return None while the erasure is open.

        Raises:
            DubstageError: the erasure failed.
        """
        # The row is read without a lock: the gateway may be in the middle of a long transaction.
        with self._database.reading() as session:
            row = session.get(ErasureRow, number)
            if row is None:
                raise BackendUnavailableError("the erasure is gone from the database: erase the actor again")
            receipt, error = row.receipt, row.error
        if receipt is None and error is None:
            return None
        if receipt is not None:
            return ErasureReceipt.from_json(receipt)
        # Imported here and in `fail`: commands that list actors need no gRPC.
        from google.rpc import status_pb2  # type: ignore[import-untyped]

        from services.common.server import error_status

        problem = error_status.from_status(status_pb2.Status.FromString(error or b""))
        raise problem or BackendUnavailableError("the gateway could not erase the actor: see its log")

    @property
    def shared(self) -> bool:
        """Whether several gateways may use the database, and each must end its own work before a person is erased."""
        return self._database.shared

    def turn(self, number: int) -> AbstractContextManager[bool]:
        """Give True if no other process carries out an erasure. The turn ends with the context, or with this process."""
        return self._database.turn(number)

    def fail(self, number: int, error: DubstageError) -> None:
        """Store the reason why nothing was erased, for the process that asked."""
        from services.common.server import error_status

        status = error_status.to_status(error, stage="gateway").SerializeToString()
        with self._database.writing() as session:
            mine = update(ErasureRow).where(ErasureRow.number == number, ErasureRow.receipt.is_(None))
            session.execute(mine.values(error=status, asked_at=now()))

    def withdraw(self, number: int) -> None:
        """Forget an erasure that has no receipt. A receipt stays for the next caller who erases the person."""
        with self._database.writing() as session:
            session.execute(delete(ErasureRow).where(ErasureRow.number == number, ErasureRow.receipt.is_(None)))

    def received(self, number: int) -> None:
        """Forget an erasure whose answer has reached the process that asked."""
        with self._database.writing() as session:
            session.execute(delete(ErasureRow).where(ErasureRow.number == number))

    def forget_old_answers(self) -> None:
        """Forget the answers that no process fetched within an hour."""
        old = (datetime.datetime.now(datetime.UTC) - _KEPT_FOR).replace(microsecond=0).isoformat()
        ended = ErasureRow.receipt.is_not(None) | ErasureRow.error.is_not(None)
        with self._database.writing() as session:
            session.execute(delete(ErasureRow).where(ended, ErasureRow.asked_at < old))

    def gone(self, actor_ids: AbstractSet[str]) -> AbstractSet[str]:
        """Return the actors among `actor_ids` that are no longer enrolled."""
        if not actor_ids:
            return frozenset()
        with self._database.reading() as session:
            enrolled = set(session.scalars(select(ActorRow.actor_id).where(ActorRow.actor_id.in_(sorted(actor_ids)))))
        return frozenset(actor_ids - enrolled)

    def check(self, actor_id: str) -> None:
        """Check that an actor is still enrolled.

        Raises:
            ActorError: the actor was erased, or is being erased now.
        """
        with self._database.reading() as session:
            if session.get(ActorRow, actor_id) is None or is_open(session, actor_id):
                raise erased_meanwhile(actor_id)

    def carry_out(self, actor_id: str, *, others: Sequence[OtherStore] = ()) -> ErasureReceipt:
        """Erase a person whose erasure was asked for, look through all stores afterwards, and return the receipt.

        Jobs of other processes that use the actor notice the erasure and end. The folder of a job that does not end in time is
        deleted all the same, and the job fails at its next step. Blobs that another actor or job counts are kept.

        Nothing outside of the folder of jobs is removed, whatever path the database names. Log and receipt name what stays.

        Args:
            actor_id: id of the person.
            others: further stores that hold something of people.

        Raises:
            ActorError: there is no such actor, and no operation or job names the person.
            StorageRefusedError: something is left. The person's rows stay, so that the person can be erased again.
        """
        self._wait_for_jobs(actor_id)
        # First, so that an erasure whose other store does not answer fails as a whole, and can be asked for again.
        elsewhere: dict[str, Collection[str]] = {}
        sweep = Sweep()
        for other in others:
            elsewhere.update(other.forget(actor_id))
            # Not in the transaction: this process may have one connection to the database.
            sweep.note(other.place, *other.left(actor_id))
        sweep.check(actor_id)
        with self._database.reading() as session:
            folders = folders_of(session, actor_id, self._jobs, self._artefacts).own
        return self._perform(actor_id, files_of_jobs(folders), elsewhere, sweep)

    def erase_or_ask(
        self, actor_id: str, others: Sequence[OtherStore] = (), *, announce: Callable[[], None] = lambda: None
    ) -> ErasureReceipt:
        """Erase a person: through the gateway that works with this database, or in this process if no gateway does.

        Args:
            actor_id: id of the person.
            others: further stores that hold something of people.
            announce: called before the wait for a gateway: lets a gateway serve the tenant.

        Raises:
            ActorError: there is no such actor, and no operation or job names the person.
            StorageRefusedError: something is left.
            BackendUnavailableError: the gateway has not answered within GATEWAY_SECONDS. The erasure stays open.
        """
        number = self.ask(actor_id)
        deadline = time.monotonic() + GATEWAY_SECONDS
        announced = False
        while True:
            # The gateway may end while this process waits.
            next_claim = time.monotonic() + _CLAIM_EVERY_S
            if self._database.try_claim():
                try:
                    receipt = self.answer(number) or self.carry_out(actor_id, others=others)
                    self.received(number)
                    return receipt
                finally:
                    self.withdraw(number)
                    self._database.release_claim()
            if not announced:
                announce()
                announced = True
            while time.monotonic() < next_claim:
                answer = self._answer_of_gateway(number)
                if answer is not None:
                    return answer
                time.sleep(_POLL_S)
            if time.monotonic() > deadline:
                raise BackendUnavailableError(
                    Text(
                        "the gateway that works with {database} has not erased actor {actor!r} in {seconds:g} s, and goes on "
                        "trying: see the gateway's log and {actors}",
                        database=self._database.where,
                        actor=actor_id,
                        seconds=GATEWAY_SECONDS,
                        actors=Command("actor list"),
                    )
                )

    def _answer_of_gateway(self, number: int) -> ErasureReceipt | None:
        """Return what `answer` returns, and forget an erasure that has ended."""
        try:
            receipt = self.answer(number)
        except DubstageError:
            self.withdraw(number)
            raise
        if receipt is not None:
            self.received(number)
        return receipt

    def _wait_for_jobs(self, actor_id: str) -> None:
        deadline = time.monotonic() + JOB_SECONDS
        with self._database.reading() as session:
            folders = folders_of(session, actor_id, self._jobs, self._artefacts).jobs
        while any(is_running(folder) for folder in folders) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _perform(self, actor_id: str, files: Mapping[str, int], elsewhere: Digests, sweep: Sweep) -> ErasureReceipt:
        key = self.signing_key()
        with self._database.writing() as session:

            def beat() -> None:
                # PostgreSQL ends a transaction that pauses, and the stores may take long.
                session.execute(select(1))

            removed = remove_person(self._database, session, actor_id, self._artefacts, self._jobs, beat)
            blobs = {ref.sha256 for ref in removed.gone}
            sizes = frozenset(ref.size_bytes for ref in removed.gone) | frozenset(files.values())
            sweep_database(session, actor_id, blobs, sweep)
            sweep_artefacts(self._artefacts, removed.gone, beat, sweep)
            sweep_folder(self._data_dir, self._artefacts, removed.folders.jobs, blobs | files.keys(), sizes, beat=beat, sweep=sweep)
            sweep.check(actor_id)
            if removed.last:
                for ref in removed.last:
                    self._artefacts.delete(ref)
                sweep_artefacts(self._artefacts, removed.last, beat, sweep)
                sweep.check(actor_id)
            receipt = signed(
                key,
                actor_id,
                erased={**removed.by_kind(kept=False), JOB_FILE: files.keys() - sweep.in_use, **elsewhere},
                kept={**removed.by_kind(kept=True), "file of other work": sweep.in_use},
                looked_at=sweep.looked,
                out_of_reach=self._out_of_reach(removed.folders),
            )
            mine = update(ErasureRow).where(
                ErasureRow.actor_id == actor_id, ErasureRow.receipt.is_(None), ErasureRow.error.is_(None)
            )
            session.execute(mine.values(receipt=receipt.to_json(), asked_at=now()))
            self._record(session, receipt)
        return receipt

    def _record(self, session: Session, receipt: ErasureReceipt) -> None:
        """Write the erasure to the audit log, and forget which entries are about the person."""
        digest = hashlib.sha256(receipt.to_json().encode()).hexdigest()
        counts: dict[str, str | int | bool] = {"erased": len(receipt.erased_sha256), "kept": len(receipt.kept_sha256)}
        event = AuditEvent(event=EventKind.ACTOR_ERASED, actor_ids=(receipt.actor_id,), outputs=(digest,), details=counts)
        self.audit.append(session, event)
        self.audit.forget(session, receipt.actor_id)

    def _out_of_reach(self, folders: JobFolders) -> list[str]:
        """Return the places that may hold something of an erased person, and that this installation cannot look through.

        Args:
            folders: the person's folders of jobs.
        """
        texts = [
            "backups that were written before: delete them, or write them anew",
            "footage, uploads, videos and other files that users keep outside of the data folder",
            "memory of running stages: a stage asks the artefact store before each use, and the blobs are gone there",
        ]
        if self._database.shared:
            texts.append("folders of jobs on the disks of other gateways: each gateway removes them at its next look")
        texts += [
            f"{path}, which the database names as the folder of a job, and which is no folder in {self._jobs}: it was left as it is"
            for path in folders.elsewhere
        ]
        if not folders.knows_files:
            texts.append(
                "kept analyses of the single files of the enrolment: the artefact store has lost the list of the files, so that "
                "these analyses were not looked for"
            )
        if self._artefacts.keeps_old_versions():
            texts.append("old versions in the bucket of the artefact store, whose versioning is on: delete them there")
        return texts
