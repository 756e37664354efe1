"""Correlations of head poses: with the sound, and of predicted with true angles."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float64
from services.motion.predictors.headpose.inputs import cepstra
from services.motion.train.clips import TrainingClip
from services.motion.train.metrics import pearson

POSE_AXES: Final = ("r_pitch", "r_yaw", "r_roll")
_RADIUS: Final = 0.5


def audio_pose_correlation(clip: TrainingClip) -> float:
    """Return the correlation of Appendix A: MFCC distances and pose distances of frames with near MFCC, |s - s'| <= .5 |s|.

    Without such frames the correlation is 0.
    """
    heard = cepstra(clip.features.mel).mean(axis=1)[clip.usable].astype(np.float64)
    angles = np.degrees(clip.poses[clip.usable, :3])
    sounds = np.linalg.norm(heard[:, None] - heard[None], axis=-1)
    turns = np.linalg.norm(angles[:, None] - angles[None], axis=-1)
    near = sounds <= _RADIUS * np.linalg.norm(heard, axis=-1)[:, None]
    np.fill_diagonal(near, val=False)
    return pearson(sounds[near], turns[near]) if near.any() else 0.0


def angle_correlation(poses: Float64, clip: TrainingClip, part: slice) -> dict[str, float]:
    """Return r of predicted and true pitch, yaw and roll, over the usable frames of a part of a clip.

    Args:
        poses: float64 [T, 6], predicted head poses of the whole clip.
        clip: the clip.
        part: frames that count.
    """
    seen = clip.usable[part]
    return {name: pearson(poses[part, axis][seen], clip.poses[part, axis][seen]) for axis, name in enumerate(POSE_AXES)}
