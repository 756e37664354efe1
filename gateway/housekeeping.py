"""The folder of all jobs below the data folder: lists of its jobs, which are read from their files, and removal of jobs and blobs.

A command removes jobs by age, size or name. Once an hour a gateway removes old and large jobs, and blobs that no actor and no job
counts.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.async_utilities import in_thread
from gateway.dub.sound.speech_command import remove_old_speech
from gateway.dub.state.disk import fillable_bytes, job_folder
from gateway.dub.state.journal import journalled
from gateway.dub.state.records import read_note
from gateway.dub.state.removal import RemovalReport, folder_bytes, remove_job
from gateway.dub.state.workspace import ANALYSIS, FACTS, JOBS, JOURNAL, is_analysis, is_running
from gateway.private_files import data_folder, folder_error
from gateway.settings import GatewaySettings
from gateway.times import DAY_S
from services.common.errors import DubstageError, InvalidRequestError, StorageRefusedError
from services.common.store.artefacts import ArtefactRef, ArtefactStore, StoredBlob

HOUR_S: Final = 3600.0
LEAST_BLOB_AGE_S: Final = DAY_S
"""Least age of an uncounted blob that is removed, seconds. Work that made a younger blob may be about to count the blob.

In a folder, a blob that is made again is young again. Other stores keep the time when the blob was made first.
"""
_chores_log = structlog.stdlib.get_logger("dubstage.chores")
_log = structlog.stdlib.get_logger("dubstage.jobs")


def open_jobs_folder(data_dir: Path) -> Path:
    """Make the folder of jobs (mode 0700) if it is missing, check that files can be written there, and return its path.

    Raises:
        StorageRefusedError: the data folder cannot be used; the message names the path and DUBSTAGE_DATA_DIR.
        StorageFullError: no space is left there.
    """
    data_folder(data_dir)
    jobs = data_dir / JOBS
    try:
        with job_folder(jobs):
            jobs.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=jobs, prefix=".check-") as probe:
                probe.write(b"x")
                probe.flush()
    except OSError as problem:
        raise folder_error(data_dir, problem) from problem
    return jobs


OnUnreadable = Callable[[StorageRefusedError], None]
"""Called with the error for a job that cannot be read, because another user made it or the disk is damaged."""
_KEY: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class JobFolder:
    """A job that has not ended (the job runs, was interrupted, or failed), or a kept analysis of footage.

    Attributes:
        folder: folder of the job.
        facts: facts that the job wrote down: kind, footage, speech, method, actor, started; empty: the job wrote none.
        folder_bytes: bytes of all files in the folder.
        steps: blobs of the finished steps: the enrolment and the windows of the video.
        last_used: time when the job last began or finished a pass or a step, Unix time in seconds.
        running: whether a process works in the folder now.
    """

    folder: Path
    facts: Mapping[str, Any]
    folder_bytes: int
    steps: Sequence[ArtefactRef]
    last_used: float
    running: bool

    @property
    def key(self) -> str:
        """Name of the folder, 32 hexadecimal digits."""
        return self.folder.name

    @property
    def step_bytes(self) -> int:
        """Bytes of the finished steps' blobs in the artefact store."""
        return sum(ref.size_bytes for ref in self.steps)

    @property
    def is_analysis(self) -> bool:
        """Whether the folder is the kept analysis of footage, which finished dubs leave for further ones."""
        return self.fact("kind") == ANALYSIS

    def fact(self, name: str) -> str:
        """Return a fact as text; empty: the job did not write the fact down."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


def list_jobs(jobs: Path, on_unreadable: OnUnreadable | None = None) -> list[JobFolder]:
    """Return all jobs below a folder, the last used at the end. Files and folders that are no jobs are left out.

    Args:
        jobs: folder of all jobs.
        on_unreadable: called with the error for each job that cannot be read, which is left out; None: the error is raised.

    Raises:
        StorageRefusedError: the data folder cannot be used; the message names the path and DUBSTAGE_DATA_DIR. Or a job cannot be
            read.
    """
    folders = []
    try:
        names = sorted(os.listdir(jobs))
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise folder_error(jobs.parent, problem) from problem
    for name in names:
        folder = jobs / name
        if _KEY.fullmatch(name) and folder.is_dir() and not folder.is_symlink():
            try:
                folders.append(_job(folder))
            except FileNotFoundError:
                continue  # the job ended in the meantime
            except OSError as problem:
                refused = _unreadable(folder, problem)
                if on_unreadable is None:
                    raise refused from problem
                on_unreadable(refused)
    return sorted(folders, key=lambda job: job.last_used)


def find_job(jobs: Path, key: str) -> JobFolder:
    """Return the job whose key begins with a text. Jobs that cannot be read are left out.

    Raises:
        InvalidRequestError: there is no such job, or there are several.
    """
    matches = [job for job in list_jobs(jobs, lambda _: None) if key and job.key.startswith(key)]
    if len(matches) == 1:
        return matches[0]
    what = f"{len(matches)} jobs begin with" if matches else "there is no job"
    raise InvalidRequestError(f"{what} {key[:80]!r}: see `dubstage jobs list`", field="key")


def _unreadable(folder: Path, problem: OSError) -> StorageRefusedError:
    return StorageRefusedError(
        f"the job {folder} cannot be read: {problem.strerror or problem}: give its files to the user who runs dubstage, or remove "
        "the folder",
        subject=str(folder),
    )


def _job(folder: Path) -> JobFolder:
    journal = folder / JOURNAL
    times = [part.stat().st_mtime for part in (folder, journal, folder / FACTS) if part.exists()]
    return JobFolder(
        folder=folder,
        facts=read_note(folder / FACTS) or {},
        folder_bytes=folder_bytes(folder),
        steps=tuple(journalled(journal)),
        last_used=max(times),
        running=is_running(folder),
    )


async def run_hourly(*chores: Callable[[], object]) -> None:
    """Do chores one after the other, now and once per hour, until cancelled.

    A chore that fails, for whatever reason, is logged, and is tried again an hour later.

    Args:
        chores: functions that block.
    """
    while True:
        for chore in chores:
            try:
                await in_thread(chore)
            except (DubstageError, OSError) as problem:
                _chores_log.warning("chore_failed", problem=str(problem))
            except Exception:
                # Without this, a bug would end all chores for as long as the gateway runs, and the disk would fill.
                _chores_log.exception("chore_failed")
        await asyncio.sleep(HOUR_S)


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Limits that jobs to be removed exceed.

    Attributes:
        older_than_s: seconds since a job was used; None: jobs of any age.
        larger_than: bytes of a job's files and blobs; None: jobs of any size.
    """

    older_than_s: float | None = None
    larger_than: int | None = None

    def meets(self, job: JobFolder, now: float) -> bool:
        """Return whether a job exceeds all limits. A running job never does.

        Args:
            now: present time, Unix time in seconds.
        """
        old = self.older_than_s is None or now - job.last_used >= self.older_than_s
        large = self.larger_than is None or job.folder_bytes + job.step_bytes > self.larger_than
        return old and large and not job.running


def over_total(jobs: Sequence[JobFolder], max_bytes: int) -> list[JobFolder]:
    """Return the jobs to remove so that all folders together take at most `max_bytes`. Jobs that were unused longest come first."""
    over = sum(job.folder_bytes for job in jobs) - max_bytes
    chosen = []
    for job in sorted(jobs, key=lambda one: one.last_used):
        if over <= 0:
            break
        if not job.running:
            chosen.append(job)
            over -= job.folder_bytes
    return chosen


def remove_jobs(
    jobs: Iterable[JobFolder], actors: ActorStore, store: ArtefactStore
) -> Iterator[tuple[JobFolder, RemovalReport | None]]:
    """Remove jobs one after the other, and yield each with what the removal freed; None: the job began to run, or ended, meanwhile.

    Raises:
        DubstageError: the database or the artefact store cannot be used.
    """
    for job in jobs:
        yield job, remove_job(job.folder, JobLedger(actors), store)


def uncounted_blobs(jobs: Path, actors: ActorStore, store: ArtefactStore, *, older_than_s: float) -> Iterator[StoredBlob]:
    """Yield the blobs of the store that no actor and no job counts.

    Blobs that other services made through the stages are yielded too, even if these services still use them.

    Args:
        jobs: folder of all jobs.
        actors: store of actors.
        store: the artefact store.
        older_than_s: least age of the blobs, seconds; at least LEAST_BLOB_AGE_S.

    Raises:
        DubstageError: the database or the artefact store cannot be used.
    """
    before = time.time() - max(older_than_s, LEAST_BLOB_AGE_S)
    old = [blob for blob in store.stored() if blob.put_at < before]
    # The counts are read after the list of blobs, so that a blob that is counted meanwhile stays.
    journals = {ref.sha256 for job in list_jobs(jobs) for ref in journalled(job.folder / JOURNAL)}
    unknown = {ref.sha256 for ref in actors.jobs.uncounted([blob.ref for blob in old])} - journals
    yield from (blob for blob in old if blob.ref.sha256 in unknown)


def remove_unknown(actors: ActorStore, store: ArtefactStore, jobs: Path) -> None:
    """Remove the jobs on this disk that the database does not know, if several gateways share the database.

    Another gateway has ended or erased such a job while this gateway did not run, and could not reach this disk.

    Raises:
        DubstageError: the database or the artefact store cannot be used.
    """
    if actors.database.shared:
        for folder in actors.jobs.unknown([job.folder for job in list_jobs(jobs, _tell)]):
            with _going_on(folder):
                if remove_job(folder, JobLedger(actors), store) is not None:
                    _log.info("unknown_job_removed", job=folder.name)


def expire(settings: GatewaySettings, actors: ActorStore, store: ArtefactStore, jobs: Path) -> RemovalReport:
    """Remove the jobs that are older, or together larger, than the settings allow, and return what the removal freed.

    Jobs that the database does not know (`remove_unknown`), and half-written files of the artefact store that are older than a day,
    are removed too, and so is old speech of commands. A job that cannot be read or removed is logged, and keeps no other job.

    Raises:
        DubstageError: the database or the artefact store cannot be used.
    """
    remove_unknown(actors, store, jobs)
    now = time.time()
    folders = list_jobs(jobs, _tell)
    chosen = []
    if settings.job_max_age_days:
        chosen = [job for job in folders if JobLimits(older_than_s=settings.job_max_age_days * DAY_S).meets(job, now)]
        remove_old_speech(settings.data_dir, now - settings.job_max_age_days * DAY_S)
    unused = JobLimits(older_than_s=settings.analysis_max_age_days * DAY_S)
    chosen += [job for job in folders if job.is_analysis and job not in chosen and unused.meets(job, now)]
    chosen += _excess_analyses([job for job in folders if job not in chosen], settings.analyses_max_bytes)
    if settings.jobs_max_bytes:
        chosen += over_total([job for job in folders if job not in chosen], settings.jobs_max_bytes)
    total = _expired(chosen, actors, store)
    store.remove_partials(now - DAY_S)
    return total


def kept_bytes(settings: GatewaySettings) -> int:
    """Return the most bytes of all kept analyses together; 0: none is kept."""
    return settings.analyses_max_bytes if settings.analysis_max_age_days else 0


def bound_analyses(jobs: Path, max_bytes: int, actors: ActorStore, store: ArtefactStore) -> None:
    """Remove the kept analyses that were unused longest, so that all together take at most `max_bytes`.

    Raises:
        DubstageError: the database or the artefact store cannot be used.
    """
    folders: list[JobFolder] = []
    for name in sorted(os.listdir(jobs)):
        folder = jobs / name
        # Journals of other jobs may have many entries.
        with suppress(OSError):
            if _KEY.fullmatch(name) and is_analysis(folder):
                folders.append(_job(folder))
    _expired(_excess_analyses(folders, max_bytes), actors, store)


def _excess_analyses(folders: Sequence[JobFolder], max_bytes: int) -> list[JobFolder]:
    analyses = [job for job in folders if job.is_analysis]
    if analyses:
        # On a small disk, dubs need the space more.
        max_bytes = min(max_bytes, fillable_bytes(analyses[0].folder.parent))
    return over_total(analyses, max_bytes)


def _expired(chosen: Sequence[JobFolder], actors: ActorStore, store: ArtefactStore) -> RemovalReport:
    """Remove jobs. A job that cannot be removed is logged, and keeps no other job."""
    total = RemovalReport()
    for job in chosen:
        with _going_on(job.folder):
            freed = remove_job(job.folder, JobLedger(actors), store)
            if freed is not None:
                _log.info("job_expired", job=job.key, freed_bytes=freed.folder_bytes + freed.blob_bytes)
                total += freed
    return total


def _tell(problem: StorageRefusedError) -> None:
    _log.warning("job_unreadable", message=problem.message)


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Log that a job cannot be removed, and go on."""
    try:
        yield
    except OSError as problem:
        _log.warning("job_not_removed", job=folder.name, problem=str(problem))
