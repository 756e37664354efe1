"""The mouth of a dub in some frames, for players that enlarge the mouth and draw its opening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.dub.analyse.frame_plan import FramePlan
from gateway.dub.state.records import RecordFile
from services.common.array_types import Float32
from services.common.face.landmarks import LIPS_OUTER, mouth_opening

MOST_SAMPLES: Final = 300
"""Most samples of a dub, so that the result of a long dub stays small."""
_AT_ONCE: Final = 32
_WIDER: Final = 2.2
"""Width of the box over the width of the lips."""
_SHAPE: Final = 1.6
"""Width over height of the box."""


@dataclass(frozen=True, slots=True)
class MouthSample:
    """The mouth in one frame.

    Attributes:
        frame: number of the frame.
        box: left, top, width and height of the area around the lips, pixels of the upright picture of the dub.
        opening: opening of the target mouth, head-space pixels; None: no mouth is rendered in the frame, or the dub is of lines.
    """

    frame: int
    box: tuple[float, float, float, float]
    opening: float | None


def mouth_samples(
    plan: FramePlan, faces: RecordFile, mouths: Callable[[int, int], Float32] | None, reduction: int
) -> tuple[MouthSample, ...]:
    """Return the mouth in the frames of a video that show the target: in all, or in MOST_SAMPLES that are spread evenly.

    Args:
        plan: what happened to each frame.
        faces: FACE_RECORDs of the video.
        mouths: returns the target mouths of frames begin to end - 1, float32 [N, 59, 3]; None: the openings are left out.
        reduction: pixels of the footage per pixel of the frames that are written (VideoInfo).
    """
    (shown,) = np.nonzero(plan.row >= 0)
    if len(shown) > MOST_SAMPLES:
        shown = shown[np.linspace(0, len(shown) - 1, MOST_SAMPLES).round().astype(int)]
    rendered = plan.rendered()
    samples = []
    for begin in range(0, len(shown), _AT_ONCE):
        frames = [int(frame) for frame in shown[begin : begin + _AT_ONCE]]
        records = faces.read_rows([int(plan.row[frame]) for frame in frames])
        for frame, landmarks in zip(frames, records["landmarks"], strict=True):
            target = mouths(frame, frame + 1) if mouths is not None and rendered[frame] else None
            opening = float(mouth_opening(target)[0]) if target is not None and len(target) else None
            samples.append(MouthSample(frame, _box_around(landmarks[list(LIPS_OUTER), :2] / reduction), opening))
    return tuple(samples)


def _box_around(lips: Float32) -> tuple[float, float, float, float]:
    low, high = lips.min(axis=0), lips.max(axis=0)
    width = _WIDER * max(float(high[0] - low[0]), _SHAPE * float(high[1] - low[1]))
    height = width / _SHAPE
    centre = (low + high) / 2
    return float(centre[0]) - width / 2, float(centre[1]) - height / 2, width, height
