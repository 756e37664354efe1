"""The dominance prior: what each phone does to the mouth over time, fitted in closed form.

Coarticulation by dominance functions (Cohen and Massaro 1993): every phone pulls the mouth towards its target with a time course
that overlaps the neighbours' time courses. Here the time courses are free: a linear filter of nine frames per channel, from a
ridge regression over the training clips with balanced speakers. Unlike a network, the filter cannot learn a corpus by heart. The
network corrects the prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.inputs import WINDOW_AHEAD
from services.motion.style import measure_mouth
from services.motion.train.clips import Clips, TrainingClip
from services.motion.train.ridge import RidgeSums
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig:
    """Settings of the prior."""

    width: int = 9
    """Frames that the filter spans. The last two lie ahead."""
    strength: float = 0.2
    """Strength of the ridge, in units of the mean variance of an input."""
    speaker_exponent: float = 0.45
    max_clips: int = 200
    """Most clips per speaker."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Filter: weight float32 [K, 176, width] (channel = row * 44 + content channel), bias float32 [K]."""

    weight: Float32
    bias: Float32


def fit_prior(clips: Clips, basis: LandmarkBasis, config: PriorConfig) -> Prior:
    """Fit the prior: ridge regression from content rows to coefficients in units of the person's spread. All clips are read."""
    channels = NUM_CONTENT * ROWS_PER_FRAME
    sums = RidgeSums(channels * config.width, len(basis.typical_spread))
    for group in clips.by_speaker().values():
        chosen = group[: config.max_clips]
        weight = float(len(chosen)) ** (config.speaker_exponent - 1.0)
        for clip in chosen:
            sums.add(_rows(clip, config), _targets(clip, basis), weight)
    fitted = sums.solve(np.full(channels * config.width, config.strength * sums.input_variance()))
    filters = fitted.weight.reshape(-1, config.width, channels).transpose(0, 2, 1)
    return Prior(np.ascontiguousarray(filters), fitted.bias)


def _rows(clip: TrainingClip, config: PriorConfig) -> Float32:
    """Return the neighbouring content of each usable frame, and 1: float32 [T', 176 * width + 1]."""
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
