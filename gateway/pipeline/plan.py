"""What happens to every frame: dubbed or passed through, why, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from gateway.pipeline.footage import FaceIndex
from gateway.pipeline.messages import reason_name

DUBBED: Final = common_pb2.FRAME_REASON_DUBBED
SILENT: Final = common_pb2.FRAME_REASON_SILENT
RENDERED: Final = (DUBBED, SILENT)
"""Reasons of frames whose mouth is rendered."""
FADE_FRAMES: Final = 2
"""Frames over which a dubbed stretch fades in and out next to frames that pass through."""
SILENT_BELOW: Final = 0.5
"""Speech probability under which a frame counts as silent."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One entry a frame.

    Attributes:
        reason: int32 [T], FrameReason.
        row: int64 [T], face record of the target, -1 without one.
        strength: float32 [T], weight of the rendered mouth: 1 inside a dubbed stretch, falling towards its ends, 0 elsewhere.
    """

    reason: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    strength: npt.NDArray[np.float32]

    @property
    def num_frames(self) -> int:
        """Frames of the film."""
        return len(self.reason)

    def rendered(self) -> npt.NDArray[np.bool_]:
        """bool [T]: frames whose mouth is rendered."""
        return np.isin(self.reason, RENDERED)

    def counts(self) -> dict[str, int]:
        """Frames by reason name without its prefix, such as {'DUBBED': 100}."""
        numbers, counts = np.unique(self.reason, return_counts=True)
        names = [reason_name(number) for number in numbers]
        return dict(zip(names, counts.tolist(), strict=True))


def make_plan(index: FaceIndex, face_id: int | None, speech_probability: npt.NDArray[np.float32]) -> Plan:
    """The plan of a film.

    Args:
        index: of the footage's faces.
        face_id: whose mouth; None where the footage has no face.
        speech_probability: float32 [T], of the new speech.
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


def _strength(dubbed: npt.NDArray[Any], shot_cuts: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Distance to the nearest frame of the same shot that passes through, over FADE_FRAMES + 1, at most 1."""
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
