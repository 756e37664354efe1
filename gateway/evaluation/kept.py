"""Pictures and curves of a run that are kept for reports. All other pictures are measured and dropped."""

from __future__ import annotations

import numpy as np

from gateway.evaluation.mouth_metrics import mouth_track
from gateway.evaluation.types import FrameRange, Rendered, Variant, VariantSample
from services.common.array_types import Float32, UInt8
from services.common.face.crops import CROP_SIZE


def sample_frames(test: FrameRange, count: int) -> tuple[int, ...]:
    """Return `count` frames spread evenly over a test part, or all frames of a shorter part."""
    count = min(count, len(test))
    return tuple(int(test.start + (2 * k + 1) * len(test) // (2 * count)) for k in range(count))


class Keeper:
    """Collector of what reports show of the truth and of each variant on one fold."""

    def __init__(self, test: FrameRange, sample_count: int, video_frames: int) -> None:
        self.frames = sample_frames(test, sample_count)
        self._video_stop = test.start + video_frames
        self._crops: dict[str, list[UInt8]] = {}
        self._opening: dict[str, list[Float32]] = {}
        self._commanded: dict[str, list[Float32]] = {}
        self._left: list[UInt8] = []
        self._right: list[UInt8] = []

    def add(self, name: Variant | None, frames: FrameRange, rendered: Rendered, landmarks: Float32) -> None:
        """Add one piece of a variant, or of the truth if `name` is None."""
        if not self.frames:
            return
        key = name or ""
        wanted = [frame - frames.start for frame in self.frames if frames.start <= frame < frames.stop]
        self._crops.setdefault(key, []).append(rendered.crops[wanted].copy())
        self._opening.setdefault(key, []).append(mouth_track(landmarks).opening)
        if rendered.commanded is not None:
            self._commanded.setdefault(key, []).append(rendered.commanded.astype(np.float32))
        if name in {None, "full"} and frames.start < self._video_stop:
            shown = rendered.crops[: self._video_stop - frames.start].copy()
            (self._left if name is None else self._right).append(shown)

    def sample(self, name: Variant | None) -> VariantSample | None:
        """Return what reports show of a variant, or of the truth if `name` is None."""
        key = name or ""
        if key not in self._crops:
            return None
        commanded = self._commanded.get(key)
        return VariantSample(
            crops=np.concatenate(self._crops[key]),
            opening=np.concatenate(self._opening[key]),
            commanded=None if commanded is None else np.concatenate(commanded),
        )

    def video(self) -> UInt8:
        """Return truth beside `full`, uint8 [V, 256, 512, 3]; V is 0 if `full` was not rendered."""
        if not self._left or not self._right:
            return np.zeros((0, CROP_SIZE, 2 * CROP_SIZE, 3), np.uint8)
        return np.concatenate([np.concatenate(self._left), np.concatenate(self._right)], axis=2)
