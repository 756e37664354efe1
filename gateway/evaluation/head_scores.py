"""Scores of a method's head motion over the folds of a clip, beside those of what it knew (head_motion.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.evaluation.head_motion import HeadMotionScore, head_motion_score, shuffled_head, still_head
from gateway.evaluation.types import Float64, HeadMotion, HeadMotionResult

HEAD_ROWS: Final = ("output", "predicted", "still", "shuffled")
"""What is scored against the footage's own motion.

    output     what the film shows: poses of the chosen backgrounds
    predicted  what the motion stage wanted
    still      control: the mean pose of the enrolment part in every frame
    shuffled   control: the poses of the enrolment part in random order
"""
HEAD_FIGURES: Final = ("hs", "hs_own_range", "hs_velocity", "hs_velocity_own_range")
"""HS of angles and of angular velocities: over the range that is published with them, and over the real motion's own range."""


def score_heads(motions: Sequence[HeadMotion], frame_rate: float, first_frame: int) -> HeadMotionResult:
    """HEAD_FIGURES of HEAD_ROWS: means over folds, weighted by frames.

    Args:
        motions: one a fold, at least one.
        frame_rate: frames a second.
        first_frame: of the first fold's test part.

    Raises:
        InvalidRequest: a fold shows too little of the face.
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
