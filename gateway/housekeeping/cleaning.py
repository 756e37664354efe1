"""Removal of old and large jobs, and of blobs that no actor and no job counts. A gateway does it once an hour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.async_utilities import in_thread
from gateway.dub.journal import journalled
from gateway.dub.removal import RemovalReport, remove_job
from gateway.dub.workspace import JOURNAL
from gateway.housekeeping.jobs import JobFolder, list_jobs
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, StorageRefused
from services.common.store.artefacts import ArtefactStore, StoredBlob

HOUR_S: Final = 3600.0

_chores_log = structlog.stdlib.get_logger("dubstage.chores")


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


DAY_S: Final = 86400.0
LEAST_BLOB_AGE_S: Final = DAY_S
"""Least age of an uncounted blob that is removed, seconds. Work that made a younger blob may be about to count the blob.

In a folder, a blob that is made again is young again. Other stores keep the time when the blob was made first.
"""

_log = structlog.stdlib.get_logger("dubstage.jobs")


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
    are removed too. A job that cannot be read or removed is logged, and keeps no other job.

    Raises:
        DubstageError: the database or the artefact store cannot be used.
    """
    remove_unknown(actors, store, jobs)
    now = time.time()
    found = list_jobs(jobs, _tell)
    chosen = []
    if settings.job_max_age_days:
        chosen = [job for job in found if JobLimits(older_than_s=settings.job_max_age_days * DAY_S).meets(job, now)]
    if settings.jobs_max_bytes:
        chosen += over_total([job for job in found if job not in chosen], settings.jobs_max_bytes)
    total = RemovalReport()
    for job in chosen:
        with _going_on(job.folder):
            freed = remove_job(job.folder, JobLedger(actors), store)
            if freed is not None:
                _log.info("job_expired", job=job.key, freed_bytes=freed.folder_bytes + freed.blob_bytes)
                total += freed
    store.remove_partials(now - DAY_S)
    return total


def _tell(problem: StorageRefused) -> None:
    _log.warning("job_unreadable", message=problem.message)


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Log that a job cannot be removed, and go on."""
    try:
        yield
    except OSError as problem:
        _log.warning("job_not_removed", job=folder.name, problem=str(problem))
