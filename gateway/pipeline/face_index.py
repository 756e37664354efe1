"""Index of the face records of a film: where the records of each face and each frame are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gateway.consent.subject import Face
from gateway.pipeline.records import RecordFile
from services.common.array_types import Float32, Float64, Int32, Int64
from services.common.errors import ContractBroken


@dataclass(frozen=True, slots=True)
class FaceIndex:
    """Index of the face records of a film.

    Attributes:
        frame, face_id, reason: int32 [R], one entry per record.
        area: float32 [R], box area in frame pixels.
        centre: float32 [R, 2], box centre in frame pixels.
        shot_cuts: frames that begin a shot.
        num_frames: number of frames of the film.
        embeddings: mean embedding of each face by face id, if the faces were measured.
    """

    frame: Int32
    face_id: Int32
    reason: Int32
    area: Float32
    centre: Float32
    shot_cuts: tuple[int, ...]
    num_frames: int
    embeddings: Mapping[int, Face] = field(default_factory=dict)

    def rows_of(self, face_id: int) -> Int64:
        """Return the record row of a face in each frame, int64 [num_frames]; -1: the frame does not show the face."""
        rows = np.full(self.num_frames, -1, dtype=np.int64)
        (mine,) = np.nonzero(self.face_id == face_id)
        rows[self.frame[mine]] = mine
        return rows


def read_index(faces: RecordFile, shot_cuts: object, num_frames: int) -> FaceIndex:
    """Return the index of a finished first pass. The file is read in pieces.

    Args:
        faces: FACE_RECORDs in the order of their frames.
        shot_cuts: list of the frames that begin a shot, in order.
        num_frames: number of frames of the footage.

    Raises:
        ContractBroken: the records or the shot cuts do not fit such footage.
    """
    columns: list[Float64] = []
    for begin in range(0, faces.num_rows, 64):
        rows = faces.read(begin, begin + 64)
        box = rows["box"].astype(np.float64)
        centre = box[:, :2] + box[:, 2:] / 2
        area = box[:, 2] * box[:, 3]
        parts = [rows["frame"], rows["face_id"], rows["reason"], area, centre[:, 0], centre[:, 1]]
        columns.append(np.stack([np.asarray(part, np.float64) for part in parts], axis=1))
    table = np.concatenate(columns) if columns else np.empty((0, 6))
    _check_index(table, shot_cuts, num_frames)
    assert isinstance(shot_cuts, list)
    return FaceIndex(
        frame=table[:, 0].astype(np.int32),
        face_id=table[:, 1].astype(np.int32),
        reason=table[:, 2].astype(np.int32),
        area=table[:, 3].astype(np.float32),
        centre=table[:, 4:6].astype(np.float32),
        shot_cuts=tuple(shot_cuts),
        num_frames=num_frames,
    )


def _check_index(table: Float64, shot_cuts: object, num_frames: int) -> None:
    frame, face_id = table[:, 0], table[:, 1]
    if not isinstance(shot_cuts, list) or not all(type(cut) is int and 0 <= cut < num_frames for cut in shot_cuts):
        raise ContractBroken("the shot cuts are no frames of the footage")
    if sorted(set(shot_cuts)) != shot_cuts:
        raise ContractBroken("the shot cuts are out of order")
    if not np.isfinite(table).all() or (len(table) and (frame.min() < 0 or frame.max() >= num_frames or face_id.min() < 0)):
        raise ContractBroken("face records of frames that the footage does not have")
    order = np.diff(frame)
    if (order < 0).any() or len(np.unique(table[:, :2], axis=0)) != len(table):
        raise ContractBroken("face records out of order, or a face twice in one frame")
