"""Scores of predicted mouths against the true mouths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Bool, Float32, Floating
from services.common.face.landmarks import NUM_LIPS, lip_width, mouth_opening
from services.common.wire.mouth_curves import MOTION_FRAME_S, quick_part, runs


@dataclass(frozen=True, slots=True)
class MotionScores:
    """Scores of one stretch of footage; lengths in crop pixels.

    Attributes:
        frames: number of frames that count.
        opening_correlation: Pearson's r of the mouth opening.
        width_correlation: Pearson's r of the lip width.
        lip_distance: mean distance of the 40 lip points in the picture plane (LMD).
        mean_mouth_distance: mean distance of the person's mean mouth.
        spread_ratio: standard deviation of the opening, relative to the true opening's.
        width_spread_ratio: standard deviation of the lip width without its slow part, relative to the true lips'.
        fastest_step_ratio: largest change of the opening from frame to frame, relative to the true opening's.
        step_ratio: mean change of the lips from frame to frame, relative to the true lips'.
        closure_hits: number of p, b, m on which the true and the predicted lips close.
        closure_events: number of p, b, m on which the true lips close.
    """

    frames: int
    opening_correlation: float
    width_correlation: float
    lip_distance: float
    mean_mouth_distance: float
    spread_ratio: float
    width_spread_ratio: float
    fastest_step_ratio: float
    step_ratio: float
    closure_hits: int
    closure_events: int


def pearson(a: Floating, b: Floating) -> float:
    """Return Pearson's r of two sequences, or 0 if a sequence is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


def score_motion(
    predicted: Float32, truth: Float32, mean_mouth: Float32, usable: Bool, bilabial: Float32, threshold: float
) -> MotionScores:
    """Return the scores of predicted mouths.

    Args:
        predicted: float32 [T, 59, 3], predicted mouths.
        truth: float32 [T, 59, 3], tracked mouths.
        mean_mouth: float32 [T, 59, 3] or [59, 3], mean mouth of the enrolment footage.
        usable: bool [T].
        bilabial: float32 [T], probability of p, b, m.
        threshold: opening in crop pixels below which predicted and tracked lips count as closed.
    """
    lips = slice(0, NUM_LIPS)
    opening, true_opening = mouth_opening(predicted), mouth_opening(truth)
    keep = usable
    steps = keep[1:] & keep[:-1]

    def change(mouths: Float32) -> float:
        return float(np.linalg.norm(np.diff(mouths[:, lips, :2], axis=0), axis=-1)[steps].mean())

    def distance(mouths: Float32) -> float:
        return float(np.linalg.norm((mouths - truth)[keep][:, lips, :2], axis=-1).mean())

    widths = [quick_part(np.where(keep, lip_width(mouths), np.nan), MOTION_FRAME_S)[keep] for mouths in (predicted, truth)]
    fastest_steps = [np.abs(np.diff(curve))[steps].max(initial=0.0) for curve in (opening, true_opening)]
    hits = events = 0
    for begin, end in runs(bilabial > 0.5):
        around = slice(max(0, begin - 1), end + 1)
        if keep[around].any() and true_opening[around][keep[around]].min() < threshold:
            events += 1
            hits += int(opening[around].min() < threshold)
    return MotionScores(
        frames=int(keep.sum()),
        opening_correlation=pearson(opening[keep], true_opening[keep]),
        width_correlation=pearson(lip_width(predicted)[keep], lip_width(truth)[keep]),
        lip_distance=distance(predicted),
        mean_mouth_distance=distance(np.broadcast_to(mean_mouth, truth.shape)),
        spread_ratio=float(opening[keep].std() / max(float(true_opening[keep].std()), 1e-6)),
        width_spread_ratio=float(widths[0].std() / max(float(widths[1].std()), 1e-6)),
        fastest_step_ratio=float(fastest_steps[0] / max(float(fastest_steps[1]), 1e-6)),
        step_ratio=change(predicted) / max(change(truth), 1e-6),
        closure_hits=hits,
        closure_events=events,
    )
