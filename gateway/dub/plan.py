"""Plan of a video: whether each frame is dubbed or passes through, the reason, and the strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.dub.face_records import FaceIndex
from gateway.dub.messages import reason_name
from services.common.array_types import Array, Bool, Float32, Int32, Int64

DUBBED: Final = common_pb2.FRAME_REASON_DUBBED
SILENT: Final = common_pb2.FRAME_REASON_SILENT
RENDERED: Final = (DUBBED, SILENT)
"""Reasons of the frames whose mouth is rendered."""
FADE_FRAMES: Final = 2
"""Number of frames over which a dubbed stretch fades in and out beside frames that pass through."""
SILENT_BELOW: Final = 0.5
"""Speech probability below which a frame counts as silent."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of every frame of a video.

    Attributes:
        reason: int32 [T], FrameReason.
        row: int64 [T], face record of the target; -1: the frame does not show the target.
        strength: float32 [T], weight of the rendered mouth: 1 inside a dubbed stretch, falling towards its ends, 0 elsewhere.
    """

    reason: Int32
    row: Int64
    strength: Float32

    @property
    def num_frames(self) -> int:
        """Number of frames of the video."""
        return len(self.reason)

    def rendered(self) -> Bool:
        """Return the frames whose mouth is rendered, bool [T]."""
        return np.isin(self.reason, RENDERED)

    def counts(self) -> dict[str, int]:
        """Return the number of frames by reason, such as {'DUBBED': 100}."""
        numbers, counts = np.unique(self.reason, return_counts=True)
        names = [reason_name(number) for number in numbers]
        return dict(zip(names, counts.tolist(), strict=True))


def make_plan(index: FaceIndex, face_id: int | None, speech_probability: Float32) -> Plan:
    """Return the plan of a video.

    Args:
        index: faces of the video.
        face_id: face to dub; None: the video shows no face.
        speech_probability: float32 [T], speech probability of the new speech.
    """
    total = index.num_frames
    row = np.full(total, -1, dtype=np.int64) if face_id is None else index.rows_of(face_id)
    anyone = np.zeros(total, dtype=bool)
    anyone[index.frame] = True
    reason = np.where(anyone, common_pb2.FRAME_REASON_TARGET_NOT_PRESENT, common_pb2.FRAME_REASON_NO_FACE)
    present = row >= 0
    reason[present] = index.reason[row[present]]
    strength = _strength(reason == DUBBED, index.shot_cuts)
    reason[(reason == DUBBED) & (speech_probability < SILENT_BELOW)] = SILENT
    return Plan(reason.astype(np.int32), row, strength)


def _strength(dubbed: Array, shot_cuts: tuple[int, ...]) -> Float32:
    """Return the distance to the nearest frame of the same shot that passes through, divided by FADE_FRAMES + 1, at most 1."""
    strength = np.where(dubbed, 1.0, 0.0).astype(np.float32)
    edges = [0, *(cut for cut in shot_cuts if cut > 0), len(dubbed)]
    for begin, end in zip(edges, edges[1:], strict=False):
        (holes,) = np.nonzero(~dubbed[begin:end])
        for hole in holes:
            for offset in range(1, FADE_FRAMES + 1):
                for frame in (begin + hole - offset, begin + hole + offset):
                    if begin <= frame < end and dubbed[frame]:
                        strength[frame] = min(strength[frame], offset / (FADE_FRAMES + 1))
    return strength
