"""The folder of one job: its record files and its finished passes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog

from gateway.async_utilities import in_thread
from gateway.dub.state.disk import MAX_JOB_BYTES, Allowance, job_folder
from gateway.dub.state.journal import step_key
from gateway.dub.state.native_boxes import KeptLuma
from gateway.dub.state.records import (
    EXPRESSION_RECORD,
    FACE_RECORD,
    FEATURE_RECORD,
    MOTION_RECORD,
    Checksum,
    RecordFile,
    link_file,
    read_note,
    write_note,
)
from gateway.times import now
from services.common.errors import InvalidRequestError
from services.common.locks import try_lock

JOBS: Final = "jobs"
"""Folder of the data folder that holds the folders of all jobs."""
LOCK: Final = "lock"
"""File that is locked by the process that works in a job's folder."""
FACTS: Final = "job.json"
"""File that describes the job: kind, footage, speech, method, actor."""
ANALYSIS: Final = "analysis"
"""Kind of a folder that finished dubs leave for further dubs of the same footage (gateway.dub.job.kept_analysis)."""
_NOTE: Final = ".done"
_FACES, _SOUND, _WHOLE_SOUND = "faces", "sound", "whole_sound"
FOOTAGE_PASSES: Final = frozenset({_FACES, _SOUND, _WHOLE_SOUND})
"""Names of the passes over footage that no speech changes."""
_LOCK_TRIES: Final = 5
_ASKED_TRIES: Final = 500
"""Tries while other processes only ask for the lock: on a busy machine, such a process may be stopped between two steps."""
_LOCK_WAIT_S: Final = 0.02
CHECKPOINT: Final = "faces.part"
"""File that tells how far the footage is tracked (gateway.dub.analyse.tracking_point)."""
JOURNAL: Final = "journal"
"""Folder of finished steps (gateway.dub.state.journal)."""

_log = structlog.stdlib.get_logger("dubstage.jobs")


class JobRunningError(InvalidRequestError):
    """Another process works in the folder of the very same job.

    Attributes:
        folder: the folder, which `is_running` tells about.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("the very same job is running already: wait for it", field="footage")
        self.folder = folder


class Workspace:
    """Record files of a job. One process at a time works in a folder. The lock is released when the process ends, for any reason.

    Attributes:
        folder: the job's folder.
        faces: FACE_RECORDs of the footage.
        speech: FEATURE_RECORDs of the new speech.
        sound: FEATURE_RECORDs of the footage's own sound.
        motion: MOTION_RECORDs of the new speech.
        expression: EXPRESSION_RECORDs of the footage, if the dub keeps the expression.
        backgrounds: FACE_RECORDs of the background video, if the dub has its own timeline.
        luma: luma around the faces of the footage, if this process has tracked the footage.
        allowance: disk space of all records.
        redone: warnings for the user about damaged files of an earlier run.
        redone_passes: names of the passes that these files were of.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_JOB_BYTES) -> None:
        """Open the folder, or create it, and remove files that a killed run did not finish writing.

        Raises:
            InvalidRequestError: another job works in the folder.
            StorageFullError: no space is left.
        """
        self.folder = folder
        self.redone: list[str] = []
        self.redone_passes: set[str] = set()
        self.allowance = Allowance(folder, max_bytes)
        with job_folder(folder), ExitStack() as files:
            files.callback(os.close, lock_folder(folder))
            _sweep(folder)

            self._further: dict[str, RecordFile] = {}

            def records(name: str, dtype: Any) -> RecordFile:
                return files.enter_context(RecordFile(folder / name, dtype, self.allowance))

            self.faces = records("faces.bin", FACE_RECORD)
            self.speech = records("speech.bin", FEATURE_RECORD)
            self.sound = records("sound.bin", FEATURE_RECORD)
            self.motion = records("motion.bin", MOTION_RECORD)
            self.expression = records("expression.bin", EXPRESSION_RECORD)
            self.backgrounds = records("backgrounds.bin", FACE_RECORD)
            self.luma = KeptLuma(folder)
            files.callback(self.luma.close)
            self._files = files.pop_all()

    def further(self, name: str, dtype: Any) -> RecordFile:
        """Return the record file of a name, which stays open as long as the folder.

        Args:
            name: name of the file.
            dtype: dtype of the records; the same in every call.
        """
        if name not in self._further:
            with job_folder(self.folder):
                self._further[name] = self._files.enter_context(RecordFile(self.folder / name, dtype, self.allowance))
        return self._further[name]

    @contextmanager
    def passing(self, name: str, dtype: Any) -> Iterator[RecordFile]:
        """Open a file of records, which is removed when the context ends.

        The name of the file is hidden. If the run is killed, the next run removes hidden files when it opens the workspace.
        """
        path = self.folder / f".{name}"
        try:
            with RecordFile(path, dtype, self.allowance) as records:
                try:
                    yield records
                finally:
                    records.clear()
        finally:
            path.unlink(missing_ok=True)

    def finished(self, name: str, *files: RecordFile | Path) -> dict[str, Any] | None:
        """Return the note of a finished pass; None: the pass has to be done.

        A pass does not count as finished if its note is damaged, or if a file does not match its checksum in the note.

        Args:
            files: files of the pass that the caller will read.
        """
        path = self.folder / f"{name}{_NOTE}"
        note = read_note(path)
        match note:
            case {"said": dict(said), "files": dict(checksums)}:
                damaged = [file for file in files if _checksum_of(file) != Checksum.parsed(checksums.get(_path(file).name))]
                if not damaged:
                    return said
                what = ", ".join(_path(file).name for file in damaged)
            case _:
                if not path.exists():
                    return None
                what = path.name
        self.redo(name, what)
        return None

    def forget(self, name: str) -> None:
        """Forget that a pass is finished."""
        (self.folder / f"{name}{_NOTE}").unlink(missing_ok=True)

    def redo(self, name: str, what: str) -> None:
        """Forget that a pass is finished, and warn the user that its file `what` cannot be used."""
        self.forget(name)
        self.redone_passes.add(name)
        _log.warning("job_records_damaged", job=self.folder.name, done_anew=name, damaged=what)
        self.redone.append(f"what an earlier run left of this job was damaged ({what}): it was made anew")

    def finish(self, name: str, said: Mapping[str, Any], *files: RecordFile | Path) -> None:
        """Mark a pass as finished, so that a restart does not do the pass again.

        Args:
            said: note, JSON values that `finished` returns.
            files: files of the pass, synced to the disk.
        """
        checksums: dict[str, list[object]] = {}
        for file in files:
            checksum = file.checksum() if isinstance(file, RecordFile) else Checksum.of(file)
            assert checksum is not None, f"{file} is not there"
            checksums[_path(file).name] = [checksum.size_bytes, checksum.blake2b]
        write_note(self.folder / f"{name}{_NOTE}", {"said": dict(said), "files": checksums})

    def adopt_analysis(self, folder: Path) -> bool:
        """Take over what another dub of the same footage has left in `folder`, and return whether the faces are there now.

        A pass that this job has finished stays.

        Raises:
            InvalidRequestError, StorageFullError: the records would take more disk space than they may.
            OSError: a file cannot be read or linked.
        """
        for name, records in self._footage_passes():
            note, kept = self.folder / f"{name}{_NOTE}", folder / records.path.name
            if not note.exists() and (folder / note.name).exists() and kept.exists():
                if records is self.faces:
                    # The checkpoint tells how far this job had come.
                    (self.folder / CHECKPOINT).unlink(missing_ok=True)
                records.take_over(kept)
                link_file(folder / note.name, note)
        return is_whole(folder) and is_whole(self.folder)

    def lend_analysis(self, folder: Path) -> None:
        """Put the finished passes over the footage that `folder` lacks into it, for other dubs. The files are the same ones.

        Raises:
            StorageFullError: no space is left.
            OSError: a file cannot be linked.
        """
        with job_folder(folder):
            for name, records in self._footage_passes():
                note = self.folder / f"{name}{_NOTE}"
                if note.exists() and not (folder / note.name).exists():
                    records.sync()
                    link_file(records.path, folder / records.path.name)
                    link_file(note, folder / note.name)

    def _footage_passes(self) -> Iterator[tuple[str, RecordFile]]:
        """Yield names and records of the passes that no speech changes."""
        yield _FACES, self.faces
        yield _SOUND, self.sound
        yield _WHOLE_SOUND, self.further("whole_sound.bin", FEATURE_RECORD)

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write the description of the job and its starting time, for `dubstage jobs`."""
        describe_job(self.folder, facts)

    def resumable(self) -> bool:
        """Return whether another run could continue from here: there is a finished pass, a checkpoint or a journalled step."""
        journal = self.folder / JOURNAL
        noted = any(self.folder.glob(f"*{_NOTE}")) or (self.folder / CHECKPOINT).exists()
        return noted or (journal.is_dir() and any(journal.iterdir()))

    def close(self) -> None:
        """Close all files, even if one of them cannot be written to its end. The files stay."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def is_whole(folder: Path) -> bool:
    """Return whether the pass over the faces of a footage is finished in a folder."""
    return (folder / f"{_FACES}{_NOTE}").exists()


def is_analysis(folder: Path) -> bool:
    """Return whether a folder of jobs is a kept analysis of footage.

    Raises:
        OSError: the folder cannot be read.
    """
    return (read_note(folder / FACTS) or {}).get("kind") == ANALYSIS


def describe_job(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the description of a job and its starting time, for `dubstage jobs`.

    Args:
        folder: folder of the job.
        facts: what is shown of the job.

    Raises:
        StorageFullError: no space is left.
    """
    write_note(folder / FACTS, {**facts, "started": now()})


def open_workspace(folder: Path, operation: str = "", *, max_bytes: int = MAX_JOB_BYTES) -> Workspace:
    """Open a job's folder, or a second folder for a gateway's operation while another process works in the job's folder.

    The other process does the same job for another operation, or it is a paused gateway that has lost this operation.

    Args:
        folder: the job's folder.
        operation: name of the gateway's operation; empty: none, the job has one folder.
        max_bytes: most bytes of the folder.

    Raises:
        InvalidRequestError: another job works in the folder.
        StorageFullError: no space is left.
    """
    try:
        return Workspace(folder, max_bytes=max_bytes)
    except InvalidRequestError:
        if not operation or not is_running(folder):
            raise
    second = step_key("second folder", job=folder.name, operation=operation)
    return Workspace(folder.with_name(second[: len(folder.name)]), max_bytes=max_bytes)


def lock_folder(folder: Path, *, make: bool = True) -> int:
    """Lock a job's folder, and return the descriptor of the lock. Closing the descriptor releases the lock.

    Args:
        folder: the job's folder.
        make: create a missing folder. A caller that removes a job gives False, because the job may just have ended.

    Raises:
        InvalidRequestError: another process, or another job of this one, works in the folder.
        FileNotFoundError: the folder is missing, and `make` is False.
        OSError: the folder cannot be created.
    """
    tries = 0
    while True:
        if make:
            _make(folder)
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if not make:
                raise
            # Another process removed the folder after this process created it.
            continue
        locked = try_lock(handle)
        if locked is None or (locked and _still_there(handle, folder / LOCK)):
            return handle
        works = not locked and not try_lock(handle, shared=True)
        os.close(handle)
        if not locked:
            # A process that only asks for the lock, as `is_running` does, holds a shared lock until it closes the handle.
            tries += 1
            if tries >= (_LOCK_TRIES if works else _ASKED_TRIES):
                raise JobRunningError(folder)
            time.sleep(_LOCK_WAIT_S)


async def locked_in_thread(folder: Path) -> int:
    """Lock a folder as `lock_folder` does, in a thread. A task that is cancelled meanwhile leaves no lock.

    Raises:
        InvalidRequestError: another process, or another job of this one, works in the folder.
        OSError: the folder cannot be created.
    """
    held: list[int] = []
    try:
        await in_thread(lambda: held.append(lock_folder(folder)))
    except asyncio.CancelledError:
        for handle in held:
            os.close(handle)
        raise
    return held[0]


def _make(folder: Path) -> None:
    """Create a job's folder, unless the folder is there.

    Raises:
        OSError: the folder cannot be created, or a file is in its place.
    """
    for left in reversed(range(_LOCK_TRIES)):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            # `mkdir` looks twice. Another process may remove the folder in between.
            if not left:
                raise
        else:
            return


def is_running(folder: Path) -> bool:
    """Return whether a process works in a job's folder and holds its lock.

    No lock file is created, because a new file would keep a folder that another process is removing.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return try_lock(handle, shared=True) is False
    finally:
        os.close(handle)


def _still_there(handle: int, path: Path) -> bool:
    # A process that removes a folder holds the folder's lock, so the new lock may belong to a removed folder.
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove files that a killed run did not finish writing: hidden files and decoded frames."""
    for part in (folder, folder / JOURNAL):
        for left in (*part.glob(".*"), *part.glob("*.frames")):
            if left.is_file() or left.is_symlink():
                left.unlink(missing_ok=True)


def _path(file: RecordFile | Path) -> Path:
    return file.path if isinstance(file, RecordFile) else file


def _checksum_of(file: RecordFile | Path) -> Checksum | None:
    return file.checksum_on_disk() if isinstance(file, RecordFile) else Checksum.of(file)
