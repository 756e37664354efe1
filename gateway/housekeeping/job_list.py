"""The jobs that lie in the folder of jobs, as far as their files tell."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.actors.private_files import cannot_use
from gateway.pipeline.journal import journalled
from gateway.pipeline.removal import folder_bytes
from gateway.pipeline.seals import read_note
from gateway.pipeline.workspace import FACTS, JOURNAL, LOCK
from services.common.artefacts import ArtefactRef
from services.common.errors import InvalidRequest

_KEY: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class JobFolder:
    """A job that has not ended: it runs, was interrupted, or failed.

    Attributes:
        folder: of the job.
        facts: what the job wrote down about itself (kind, footage, speech, method, actor, started); empty where nothing is there.
        folder_bytes: bytes of all files in the folder.
        steps: blobs of its finished steps: the enrolment and the windows of the film.
        last_used: when the job last began or finished a pass or a step, Unix time, seconds.
        running: a process works in the folder now.
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
        """A fact as text; empty where the job did not write it down."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


def list_jobs(jobs: Path) -> list[JobFolder]:
    """All jobs below a folder, those that were used last at the end. Anything that is no job is left out.

    Raises:
        StorageRefused: the data folder cannot be used; the message names the path and DUBSTAGE_DATA_DIR.
    """
    found = []
    try:
        names = sorted(os.listdir(jobs))
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise cannot_use(jobs.parent, problem) from problem
    for name in names:
        folder = jobs / name
        if _KEY.fullmatch(name) and folder.is_dir() and not folder.is_symlink():
            try:
                found.append(_job(folder))
            except FileNotFoundError:
                continue  # ended while it was looked at
    return sorted(found, key=lambda job: job.last_used)


def find_job(jobs: Path, key: str) -> JobFolder:
    """The job of a key, or of the beginning of one.

    Raises:
        InvalidRequest: there is none, or there are several.
    """
    found = [job for job in list_jobs(jobs) if key and job.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} jobs begin with" if found else "there is no job"
    raise InvalidRequest(f"{what} {key[:80]!r}: see `dubstage jobs list`", field="key")


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


def is_running(folder: Path) -> bool:
    """Whether a process works in a job's folder, by its lock."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(handle)
    return False
