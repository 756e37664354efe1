"""The face of a film, in pieces of a minute on the motion grid."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np

from gateway.media.types import MediaInfo
from gateway.pipeline.face_index import read_index
from gateway.pipeline.faces import FaceChoice, choose_face
from gateway.pipeline.footage import analyse_footage
from gateway.pipeline.records import FACE_RECORD, RecordFile
from gateway.stages.interface import Stages
from gateway.trainset.grid import LONGEST_GAP_S, GridTrack, on_grid
from gateway.trainset.listen import PIECE_FRAMES
from gateway.trainset.output_folder import in_output
from services.common.array_types import Float64, Int64
from services.common.errors import NoUsableFootage
from services.common.wire.timeline import MOTION_RATE

FEWEST_LAST_FRAMES: Final = 25
"""Fewest frames of the last of several pieces. A shorter rest is left out."""


class TrackedFilm:
    """The largest face of a film whose records lie on disk.

    Args:
        faces: FACE_RECORDs of the film.
        rows: int64 [frames of the film], row of the face's record in each frame; -1: no face.
        seconds: float64 [frames of the film], times from the first frame.
        num_frames: length of the film, grid frames.
    """

    def __init__(self, faces: RecordFile, rows: Int64, seconds: Float64, num_frames: int) -> None:
        self._faces, self._rows, self._seconds = faces, rows, seconds
        self.num_frames = num_frames

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield first frame and number of frames of each piece."""
        for first in range(0, self.num_frames, PIECE_FRAMES):
            count = min(PIECE_FRAMES, self.num_frames - first)
            if first == 0 or count >= FEWEST_LAST_FRAMES:
                yield first, count

    def track(self, first: int, count: int) -> GridTrack | None:
        """Return the track of a piece; None: the piece shows no face. The records of this piece alone are read."""
        begin = float(first / MOTION_RATE) - LONGEST_GAP_S
        end = float((first + count) / MOTION_RATE) + LONGEST_GAP_S
        near = self._rows[(self._seconds >= begin) & (self._seconds <= end)]
        near = near[near >= 0]
        if not len(near):
            return None
        return on_grid(self._faces.read_rows(near.tolist()), self._seconds, count, first)


@asynccontextmanager
async def tracked(stages: Stages, info: MediaInfo, working: Path) -> AsyncIterator[TrackedFilm]:
    """Track a film, and yield its largest face.

    Args:
        stages: the stages.
        info: the film.
        working: file that holds the records meanwhile, about 83 kB a frame and face.

    Raises:
        MediaUnsupported: the film cannot be read to its end.
        NoUsableFootage: the film shows no face.
        StorageFull: no space is left for the records.
        DubstageError: from the face stage.
    """
    working.unlink(missing_ok=True)
    try:
        with RecordFile(working, FACE_RECORD, in_folder=in_output) as faces:
            cuts = await analyse_footage(stages, info, faces, threads=1, on_progress=lambda _: None)
            index = read_index(faces, cuts, info.video.num_frames)
            face_id = await choose_face(index, FaceChoice("largest"), None)
            if face_id is None:
                raise NoUsableFootage("no face in the film", subject=str(info.path))
            seconds = np.asarray((info.video.pts - info.video.pts[0]) * float(info.video.time_base), np.float64)
            yield TrackedFilm(faces, index.rows_of(face_id), seconds, max(1, round(info.video.duration * MOTION_RATE)))
    finally:
        working.unlink(missing_ok=True)
