"""The folder of one job: its record files, and which passes are finished."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.pipeline.disk import job_folder
from gateway.pipeline.records import FACE_RECORD, FEATURE_RECORD, MOTION_RECORD, RecordFile
from services.common.errors import InvalidRequest


class Workspace:
    """Record files of a job, by subject. One process at a time works in a folder; its lock ends with it, however it ends.

    Attributes:
        folder: of the job.
        faces: FACE_RECORDs of the footage.
        speech: FEATURE_RECORDs of the new speech.
        sound: FEATURE_RECORDs of the footage's own sound.
        motion: MOTION_RECORDs of the new speech.
        backgrounds: FACE_RECORDs of the background film, where the dub has a timeline of its own.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the folder, or makes it.

        Raises:
            InvalidRequest: another job works there.
            StorageFull: no space is left.
        """
        with job_folder(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = _locked(folder)
        self.folder = folder
        self.faces = RecordFile(folder / "faces.bin", FACE_RECORD)
        self.speech = RecordFile(folder / "speech.bin", FEATURE_RECORD)
        self.sound = RecordFile(folder / "sound.bin", FEATURE_RECORD)
        self.motion = RecordFile(folder / "motion.bin", MOTION_RECORD)
        self.backgrounds = RecordFile(folder / "backgrounds.bin", FACE_RECORD)

    def finished(self, name: str) -> dict[str, Any] | None:
        """What a finished pass noted, or None where it has to be done."""
        try:
            note: dict[str, Any] = json.loads((self.folder / f"{name}.done").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return note

    def finish(self, name: str, note: Mapping[str, Any]) -> None:
        """Mark a pass as finished: a restart does not do it again."""
        partial = self.folder / f".{name}.partial"
        with job_folder(self.folder):
            partial.write_text(json.dumps(dict(note)))
            os.replace(partial, self.folder / f"{name}.done")

    def close(self) -> None:
        """Close the files, all of them even where one can't be written to its end; they stay."""
        with ExitStack() as files:
            files.callback(self._unlock)
            for file in (self.faces, self.speech, self.sound, self.motion, self.backgrounds):
                files.callback(file.close)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _locked(folder: Path) -> int:
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InvalidRequest("the very same job is running already: wait for it", field="footage") from None
    except OSError:
        pass  # a file system without locks
    return handle
