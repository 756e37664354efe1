"""The dominance prior: what each phone does to the mouth over time, fitted in closed form.

Coarticulation by dominance functions (Cohen and Massaro 1993): every phone pulls the mouth towards its target with a time course
that overlaps its neighbours'. Here the time courses are free: a linear filter of nine frames a channel, by ridge regression
over the training clips, speakers balanced. It can't learn a corpus by heart as a network does, and is what the network corrects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.types import ROWS_PER_FRAME, WINDOW_AHEAD, Float32


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig:
    """How the prior is fitted."""

    width: int = 9
    """Frames that the filter spans; the last two lie ahead."""
    strength: float = 0.2
    """Of the ridge, in units of the mean variance of an input."""
    speaker_exponent: float = 0.45
    max_clips: int = 200
    """Clips a speaker that are looked at."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Filter: weight float32 [K, 176, width] (channel = row * 44 + content channel), bias float32 [K]."""

    weight: Float32
    bias: Float32


def fit_prior(clips: list[TrainingClip], basis: LandmarkBasis, config: PriorConfig) -> Prior:
    """Ridge regression from content rows to coefficients in units of the person's spread."""
    channels = NUM_CONTENT * ROWS_PER_FRAME
    size = channels * config.width + 1
    gram: npt.NDArray[np.float64] = np.zeros((size, size))
    moment: npt.NDArray[np.float64] = np.zeros((size, len(basis.typical_spread)))
    for group in by_speaker(clips).values():
        chosen = group[: config.max_clips]
        weight = float(len(chosen)) ** (config.speaker_exponent - 1.0)
        for clip in chosen:
            inputs, targets = _rows(clip, config), _targets(clip, basis)
            gram += weight * (inputs.T @ inputs)
            moment += weight * (inputs.T @ targets)
    mean = gram[-1, :-1] / gram[-1, -1]
    variance = (np.diag(gram)[:-1] / gram[-1, -1] - mean**2).mean() * gram[-1, -1]
    penalty = np.full(size, config.strength * variance)
    penalty[-1] = 0.0
    solution = np.linalg.solve(gram + np.diag(penalty), moment).T
    filters = solution[:, :-1].reshape(-1, config.width, channels).transpose(0, 2, 1)
    return Prior(np.ascontiguousarray(filters, np.float32), solution[:, -1].astype(np.float32))


def _rows(clip: TrainingClip, config: PriorConfig) -> Float32:
    """Neighbouring content of each usable frame and 1: float32 [T', 176 * width + 1]."""
    content = clip.content.reshape(len(clip), -1)
    past = config.width - 1 - WINDOW_AHEAD
    padded = np.pad(content, ((past, WINDOW_AHEAD), (0, 0)), mode="edge")
    stacked = np.concatenate([padded[step : step + len(clip)] for step in range(config.width)], axis=1)
    ones = np.ones((len(clip), 1), np.float32)
    return np.concatenate([stacked, ones], axis=1)[clip.usable]


def _targets(clip: TrainingClip, basis: LandmarkBasis) -> Float32:
    mouths = clip.mouth_landmarks[clip.usable]
    mouth = measure_mouth(mouths, basis)
    return np.asarray(basis.project(mouths - mouth.rest_mouth) / mouth.spread, np.float32)
