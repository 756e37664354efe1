"""The finished output of a dub, by which an identical request is answered at once: nothing is computed.

A dub leaves a note in the kept analysis of its footage: the key of everything that the output depends on (`result_key`), and the
digests of the files that it wrote. The note expires with the analysis, and an erasure deletes both. As with a shot of a batch, a
file is the result if its SHA-256 is the one that was noted.

All functions block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gateway.dub.request.dub_request import sha256_of
from gateway.dub.state.records import read_note, write_note
from gateway.dub.state.workspace import is_analysis, lock_folder
from gateway.provenance.binding import embedded_type, sidecar_of
from gateway.provenance.claim import Claim
from services.common.errors import DubstageError

RESULTS: Final = "results"
"""Folder of the notes in a kept analysis."""
_log = structlog.stdlib.get_logger("dubstage.jobs")


@dataclass(frozen=True, slots=True)
class KeptResult:
    """The result of one request.

    Attributes:
        folder: kept analysis of the footage.
        key: key of the result (`result_key`).
        digests: SHA-256 of the files of the request, hexadecimal, that the key was made of.
    """

    folder: Path
    key: str
    digests: Mapping[Path, str]

    def is_there(self, output: Path, report: Path | None) -> bool:
        """Return whether the files are those that a dub of the same request wrote. If they are, the note lives longer.

        Args:
            output: the video.
            report: folder of the report; None: no report is wanted.
        """
        try:
            note = read_note(self._note)
            if note is None or note.get("video") != video_sha256(output):
                return False
            if report is not None and note.get("report") != _folder_sha256(report):
                return False
            os.utime(self.folder)
        except (DubstageError, OSError):
            return False
        return True

    def keep(self, video: Sequence[str], report: Path | None, claim: Claim | None) -> None:
        """Note the files that a dub has written, unless the analysis is gone, or files of the request were changed before the dub
        read them. A note that cannot be written goes to the log.

        Args:
            video: what `video_sha256` returned as soon as the dub had written the video: another dub may replace the video.
            report: folder of the report; None: none was written.
            claim: what the manifest of the video says.
        """
        if claim is None or any(self.digests.get(source.path) != source.sha256 for source in claim.sources):
            return
        try:
            handle = lock_folder(self.folder, make=False)
            try:
                if is_analysis(self.folder):
                    self._note.parent.mkdir(mode=0o700, exist_ok=True)
                    written = _folder_sha256(report) if report is not None else None
                    write_note(self._note, {"video": list(video), "report": written})
            finally:
                os.close(handle)
        except (DubstageError, OSError) as problem:
            _log.warning("result_not_kept", job=self.folder.name, problem=str(problem))

    @property
    def _note(self) -> Path:
        return self.folder / RESULTS / self.key


def video_sha256(output: Path) -> list[str]:
    """Return the digests of a video and of the manifest beside the video, hexadecimal.

    Raises:
        MediaUnsupportedError: a file is missing, no regular file, empty, or may not be read.
    """
    files = [output] if embedded_type(output) is not None else [output, sidecar_of(output)]
    return [sha256_of(file) for file in files]


def _folder_sha256(folder: Path) -> str:
    """Return the digest of the names and contents of all files below a folder, hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()
