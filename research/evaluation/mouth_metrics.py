"""Metrics of mouth motion: landmark distance, spread, style overlap, closure.

Curves are float [T] over the frames of one test part, in crop pixels, NaN where the tracker lost the face. Only frames that are
known in both curves count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float32
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, MOUTH_AREA, lip_width, lower_face, mouth_opening, pose_landmarks

CLOSED_OPENING_PX: Final = 2.0
"""Opening below which lips count as closed, in truth and result (inner-lip landmarks, crop pixels; the face is 185 px wide). The
tracker measures 0.05 to 0.6 px on shut lips and 4 to 12 px on speech."""

_LIPS: Final = list(LIPS_OUTER + LIPS_INNER)
Curve = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class MouthTrack:
    """Mouth of T frames in crop pixels; NaN rows where no face was found.

    Attributes:
        lips: float32 [T, 40, 2].
        opening: float32 [T].
        width: float32 [T].
    """

    lips: Float32
    opening: Float32
    width: Float32

    @property
    def tracked(self) -> Bool:
        """Frames on which the mouth was found, bool [T]."""
        return np.isfinite(self.opening)


def mouth_track(landmarks: Float32) -> MouthTrack:
    """Return the mouth of face-mesh landmarks in crop pixels, float32 [T, 478, 3]."""
    area = landmarks[:, list(MOUTH_AREA)]
    return MouthTrack(lips=np.asarray(landmarks[:, _LIPS, :2], np.float32), opening=mouth_opening(area), width=lip_width(area))


def landmark_distance(truth: MouthTrack, result: MouthTrack) -> Float32:
    """Return LMD of each frame: mean Euclidean distance over the 40 lip points, float32 [T], crop pixels."""
    return np.asarray(np.linalg.norm(truth.lips - result.lips, axis=-1).mean(axis=-1), dtype=np.float32)


def layout_points(landmarks: Float32) -> Float32:
    """Return all points of the layout of 216 points, float32 [..., 478, D] -> [..., 216, D]: upper part, then lower part."""
    lower = lower_face(landmarks[..., list(MOUTH_AREA), :])
    return np.concatenate([pose_landmarks(landmarks), lower], axis=-2)


def normalised_mean_error(truth: Float32, result: Float32) -> Float32:
    """Return NME of each frame, float32 [T]: mean distance of the 216 layout points over the diagonal of their bounding box.

    Xie et al. 2021, Sec. 4.1.2. The box is that of the truth. NaN where one of the meshes is not tracked.

    Args:
        truth, result: face-mesh landmarks, float32 [T, 478, 3], crop pixels, NaN rows where not tracked.
    """
    before, after = layout_points(truth)[..., :2], layout_points(result)[..., :2]
    diagonal = np.linalg.norm(before.max(axis=1) - before.min(axis=1), axis=-1)
    return np.asarray(np.linalg.norm(before - after, axis=-1).mean(axis=-1) / diagonal, np.float32)


def spread_ratio(truth: Curve, result: Curve) -> float:
    """Return the standard deviation of the result divided by that of the truth; NaN if the truth is constant."""
    both = np.isfinite(truth) & np.isfinite(result)
    if int(both.sum()) < 3:
        return float("nan")
    reference = float(truth[both].std(dtype=np.float64))
    return float(result[both].std(dtype=np.float64)) / reference if reference > 1e-9 else float("nan")


def speaking_style_iou(truth: Curve, result: Curve) -> float:
    """Return SSIOU (Song et al. 2023, Sec. IV): intersection over union of the areas under two opening curves."""
    both = np.isfinite(truth) & np.isfinite(result)
    a, b = truth[both].astype(np.float64), result[both].astype(np.float64)
    union = float(np.maximum(a, b).sum())
    return float(np.minimum(a, b).sum()) / union if union > 0.0 else float("nan")


@dataclass(frozen=True, slots=True)
class Closures:
    """Closures of the lips on the p, b and m of one test part.

    Attributes:
        truth: bool [E], whether the lips of the truth close on event e.
        result: bool [E], whether the lips of the result close on event e.
    """

    truth: Bool
    result: Bool

    @property
    def share(self) -> float:
        """Share of the events with a closure of the truth on which the result closes too; NaN if the truth never closes."""
        return float(self.result[self.truth].mean()) if bool(self.truth.any()) else float("nan")


def closures(truth: Curve, result: Curve, frame_times_s: npt.NDArray[np.floating], events_s: npt.NDArray[np.floating]) -> Closures:
    """Return whether the lips close on each bilabial.

    A mouth closes on an event if its opening falls below CLOSED_OPENING_PX on a frame shown during the event, or on the frame
    before or after the event, because alignment and lag are known to one frame. Events without a frame are left out. On an event
    without a frame that is known in both curves, both mouths count as open: all results of one truth have the same events.

    Args:
        truth: opening float [T], crop pixels.
        result: opening float [T].
        frame_times_s: float [T], presentation times on the clock of the speech, seconds.
        events_s: float [E, 2], start and end of each p, b, m, seconds.
    """
    truth_closes, result_closes = [], []
    step = float(np.median(np.diff(frame_times_s))) if len(frame_times_s) > 1 else 0.04
    finite = np.isfinite(truth) & np.isfinite(result)
    for start, end in events_s:
        shown = (frame_times_s > start - 2.0 * step) & (frame_times_s < end + step)
        if shown.any():
            truth_closes.append(bool((truth[shown & finite] < CLOSED_OPENING_PX).any()))
            result_closes.append(bool((result[shown & finite] < CLOSED_OPENING_PX).any()))
    return Closures(np.array(truth_closes, dtype=np.bool_), np.array(result_closes, dtype=np.bool_))
