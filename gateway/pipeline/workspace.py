"""The folder of one job: its record files, and which passes are finished."""

from __future__ import annotations

import datetime
import fcntl
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog

from gateway.pipeline.allowance import MAX_JOB_BYTES, Allowance
from gateway.pipeline.disk import job_folder
from gateway.pipeline.records import FACE_RECORD, FEATURE_RECORD, MOTION_RECORD, RecordFile
from gateway.pipeline.seals import Seal, read_note, write_note
from services.common.errors import InvalidRequest

LOCK: Final = "lock"
"""Locked by the process that works in a job's folder."""
FACTS: Final = "job.json"
"""File in a job's folder that says what the job is: kind, footage, speech, method, actor."""
_NOTE: Final = ".done"
_LOCK_TRIES: Final = 5
_LOCK_WAIT_S: Final = 0.02
JOURNAL: Final = "journal"
"""Folder of the finished steps (gateway.pipeline.journal)."""

_log = structlog.stdlib.get_logger("dubstage.jobs")


class Workspace:
    """Record files of a job, by subject. One process at a time works in a folder; its lock ends with it, however it ends.

    Attributes:
        folder: of the job.
        faces: FACE_RECORDs of the footage.
        speech: FEATURE_RECORDs of the new speech.
        sound: FEATURE_RECORDs of the footage's own sound.
        motion: MOTION_RECORDs of the new speech.
        backgrounds: FACE_RECORDs of the background film, where the dub has a timeline of its own.
        allowance: what all of them may take on disk.
        redone: what an earlier run left that did not fit its length and digest, for the user.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_JOB_BYTES) -> None:
        """Opens the folder, or makes it. What a killed run was in the middle of writing is removed.

        Raises:
            InvalidRequest: another job works there.
            StorageFull: no space is left.
        """
        with job_folder(folder):
            self._lock: int | None = lock_folder(folder)
        self.folder = folder
        self.redone: list[str] = []
        self.allowance = Allowance(folder, max_bytes)
        _sweep(folder)
        self.faces = self._records("faces.bin", FACE_RECORD)
        self.speech = self._records("speech.bin", FEATURE_RECORD)
        self.sound = self._records("sound.bin", FEATURE_RECORD)
        self.motion = self._records("motion.bin", MOTION_RECORD)
        self.backgrounds = self._records("backgrounds.bin", FACE_RECORD)

    def finished(self, name: str, *files: RecordFile | Path) -> dict[str, Any] | None:
        """What a finished pass noted, or None where it has to be done.

        A note that is damaged, and a file of the pass that does not have the length and the digest of its note, count as not
        finished.

        Args:
            name: of the pass.
            files: that it wrote and that are read now.
        """
        path = self.folder / f"{name}{_NOTE}"
        found = read_note(path)
        match found:
            case {"said": dict(said), "files": dict(seals)}:
                damaged = [file for file in files if _seal(file) != Seal.parsed(seals.get(_path(file).name))]
                if not damaged:
                    return said
                what = ", ".join(_path(file).name for file in damaged)
            case _:
                if not path.exists():
                    return None
                what = path.name
        self.redo(name, what)
        return None

    def redo(self, name: str, what: str) -> None:
        """Forget that a pass is finished, because `what` of it cannot be used; the user is told."""
        (self.folder / f"{name}{_NOTE}").unlink(missing_ok=True)
        _log.warning("job_records_damaged", job=self.folder.name, done_anew=name, damaged=what)
        self.redone.append(f"what an earlier run left of this job was damaged ({what}): it was made anew")

    def finish(self, name: str, said: Mapping[str, Any], *files: RecordFile | Path) -> None:
        """Mark a pass as finished: a restart does not do it again.

        Args:
            name: of the pass.
            said: JSON values that `finished` gives back.
            files: that it wrote, all of them brought to the disk.
        """
        seals: dict[str, list[object]] = {}
        for file in files:
            seal = file.seal() if isinstance(file, RecordFile) else Seal.of(file)
            assert seal is not None, f"{file} is not there"
            seals[_path(file).name] = [seal.size_bytes, seal.blake2b]
        write_note(self.folder / f"{name}{_NOTE}", {"said": dict(said), "files": seals})

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write down what the job is and that it began now, for `dubstage jobs`."""
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_note(self.folder / FACTS, {**facts, "started": started})

    def resumable(self) -> bool:
        """Whether another run could go on from what lies here: a finished pass, or a journalled step."""
        journal = self.folder / JOURNAL
        return any(self.folder.glob(f"*{_NOTE}")) or (journal.is_dir() and any(journal.iterdir()))

    def close(self) -> None:
        """Close the files, all of them even where one can't be written to its end; they stay."""
        with ExitStack() as files:
            files.callback(self._unlock)
            for file in (self.faces, self.speech, self.sound, self.motion, self.backgrounds):
                files.callback(file.close)

    def _records(self, name: str, dtype: Any) -> RecordFile:
        return RecordFile(self.folder / name, dtype, self.allowance)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def lock_folder(folder: Path, *, make: bool = True) -> int:
    """Lock a job's folder; returns the lock's descriptor, which holds the lock until it is closed.

    Args:
        folder: of the job.
        make: make the folder where it is missing. A caller that only looks at a job must not bring back one that has just ended.

    Raises:
        InvalidRequest: another process, or another job of this one, works in the folder.
        FileNotFoundError: the folder is missing, and is not to be made.
        OSError: the folder cannot be made.
    """
    tries = _LOCK_TRIES
    while True:
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if not make:
                raise
            continue  # removed by another process since it was made
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            tries -= 1
            if tries:
                # A process that asks whether a job is running holds the lock for a moment, too.
                time.sleep(_LOCK_WAIT_S)
                continue
            raise InvalidRequest("the very same job is running already: wait for it", field="footage") from None
        except OSError:
            return handle  # a file system without locks
        if _still_there(handle, folder / LOCK):
            return handle
        os.close(handle)


def _still_there(handle: int, path: Path) -> bool:
    # A process that removes a folder holds the folder's lock: a lock that was waited for may belong to a removed folder.
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove what a killed run was in the middle of writing: hidden files, and decoded frames."""
    for part in (folder, folder / JOURNAL):
        for left in (*part.glob(".*"), *part.glob("*.frames")):
            if left.is_file() or left.is_symlink():
                left.unlink(missing_ok=True)


def _path(file: RecordFile | Path) -> Path:
    return file.path if isinstance(file, RecordFile) else file


def _seal(file: RecordFile | Path) -> Seal | None:
    return file.seal_on_disk() if isinstance(file, RecordFile) else Seal.of(file)
