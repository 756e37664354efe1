"""Scores of the head motion of a method over the folds of a clip, and of the two controls (head_motion.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.evaluation.head_motion import HeadMotionScore, head_motion_score, shuffled_head, still_head
from gateway.evaluation.types import HeadMotion, HeadMotionResult
from services.common.array_types import Float64

HEAD_ROWS: Final = ("output", "predicted", "still", "shuffled")
"""Head motions that are scored against the real motion.

    output     motion that the film shows: poses of the chosen backgrounds
    predicted  motion that the motion stage predicted
    still      control: the mean pose of the enrolment part in every frame
    shuffled   control: the poses of the enrolment part in random order
"""
HEAD_FIGURES: Final = ("hs", "hs_own_range", "hs_velocity", "hs_velocity_own_range")
"""HS of angles and of angular velocities, normalised by the range of the binning and by the real motion's own range."""


def score_heads(motions: Sequence[HeadMotion], frame_rate: float, first_frame: int) -> HeadMotionResult:
    """Return HEAD_FIGURES of HEAD_ROWS: means over folds, weighted by frames.

    Args:
        motions: one per fold, at least one.
        frame_rate: frames per second.
        first_frame: first frame of the first fold's test part.

    Raises:
        InvalidRequest: too few frames of a fold show the face.
    """
    weights = np.array([len(motion.real) for motion in motions], np.float64)
    per_fold = [_rows(motion, frame_rate) for motion in motions]
    scores = {
        row: {name: float(np.average([figures[row][name] for figures in per_fold], weights=weights)) for name in HEAD_FIGURES}
        for row in HEAD_ROWS
    }
    return HeadMotionResult(scores, motions[0], first_frame)


def _rows(motion: HeadMotion, frame_rate: float) -> dict[str, dict[str, float]]:
    seen = np.asarray(np.isfinite(motion.real).all(axis=1), np.bool_)
    real = np.where(seen[:, None], motion.real, 0.0)

    def figures(poses: Float64) -> dict[str, float]:
        found: HeadMotionScore = head_motion_score(poses, real, frame_rate=frame_rate, real_usable=seen)
        values = (found.pose.score, found.pose.own_range, found.velocity.score, found.velocity.own_range)
        return dict(zip(HEAD_FIGURES, values, strict=True))

    made = {
        "output": motion.output,
        "predicted": motion.predicted,
        "still": still_head(motion.known),
        "shuffled": shuffled_head(motion.known),
    }
    return {row: figures(made[row]) for row in HEAD_ROWS}
