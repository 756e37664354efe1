"""The folder of all jobs, below the data folder, and the jobs in it, read from their files."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.dub.disk import job_folder
from gateway.dub.journal import journalled
from gateway.dub.records import read_note
from gateway.dub.removal import folder_bytes
from gateway.dub.workspace import FACTS, JOBS, JOURNAL, is_running
from gateway.private_files import data_folder, folder_error
from services.common.errors import InvalidRequest, StorageRefused
from services.common.store.artefacts import ArtefactRef


def open_jobs_folder(data_dir: Path) -> Path:
    """Make the folder of jobs (mode 0700) if it is missing, check that files can be written there, and return its path.

    Raises:
        StorageRefused: the data folder cannot be used; the message names the path and DUBSTAGE_DATA_DIR.
        StorageFull: no space is left there.
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


OnUnreadable = Callable[[StorageRefused], None]
"""Called with the error for a job that cannot be read, because another user made it or the disk is damaged."""
_KEY: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class JobFolder:
    """A job that has not ended: the job runs, was interrupted, or failed.

    Attributes:
        folder: folder of the job.
        facts: facts that the job wrote down: kind, footage, speech, method, actor, started; empty: the job wrote none.
        folder_bytes: bytes of all files in the folder.
        steps: blobs of the finished steps: the enrolment and the windows of the film.
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
        StorageRefused: the data folder cannot be used; the message names the path and DUBSTAGE_DATA_DIR. Or a job cannot be read.
    """
    found = []
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
                found.append(_job(folder))
            except FileNotFoundError:
                continue  # the job ended in the meantime
            except OSError as problem:
                refused = _unreadable(folder, problem)
                if on_unreadable is None:
                    raise refused from problem
                on_unreadable(refused)
    return sorted(found, key=lambda job: job.last_used)


def find_job(jobs: Path, key: str) -> JobFolder:
    """Return the job whose key begins with a text. Jobs that cannot be read are left out.

    Raises:
        InvalidRequest: there is no such job, or there are several.
    """
    found = [job for job in list_jobs(jobs, lambda _: None) if key and job.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} jobs begin with" if found else "there is no job"
    raise InvalidRequest(f"{what} {key[:80]!r}: see `dubstage jobs list`", field="key")


def _unreadable(folder: Path, problem: OSError) -> StorageRefused:
    return StorageRefused(
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
