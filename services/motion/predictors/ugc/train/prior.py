"""The dominance prior: what each phone does to the mouth over time, fitted in closed form.

Coarticulation by dominance functions (Cohen and Massaro 1993): every phone pulls the mouth towards its target with a time course
that overlaps the neighbours' time courses. Here the time courses are free: a linear filter of nine frames per channel, from a
ridge regression over the training clips with balanced speakers. Unlike a network, the filter cannot learn a corpus by heart. The
network corrects the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.inputs import WINDOW_AHEAD
from services.motion.style import measure_mouth
from services.motion.train.clips import Clips, TrainingClip
from services.motion.train.ridge import Filter, RidgeSums
from services.motion.train.sampling import frame_weights
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig:
    """Settings of the prior."""

    width: int = 9
    """Frames that the filter spans. The last two lie ahead."""
    strength: float = 0.2
    """Strength of the ridge, in units of the mean variance of an input."""
    speaker_exponent: float = 0.45
    """A speaker with m frames counts m to this power."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Filter of all footage, and what holds in narrow corpora alone.

    Attributes:
        weight: float32 [K, 176, width] (channel = row * 44 + content channel).
        bias: float32 [K].
        apart: by narrow corpus, the filter to add, see RidgeSums.
        config: settings.
    """

    weight: Float32
    bias: Float32
    apart: Mapping[str, Filter]
    config: PriorConfig

    def alone(self, clip: TrainingClip) -> Float32:
        """Return the coefficients of a clip that hold in its corpus alone, float32 [T, K]: 0 outside of narrow corpora."""
        found = self.apart.get(clip.apart)
        return np.zeros((len(clip), len(self.bias)), np.float32) if found is None else found(_rows(clip, self.config))


def fit_prior(clips: Clips, basis: LandmarkBasis, config: PriorConfig) -> Prior:
    """Fit the prior: ridge regression from content rows to coefficients in units of the person's spread. All clips are read."""
    channels = NUM_CONTENT * ROWS_PER_FRAME
    sums = RidgeSums(channels * config.width, len(basis.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        sums.add(_rows(clip, config)[clip.usable], _targets(clip, basis), float(weight), clip.apart)
    fitted = sums.solve(np.full(channels * config.width, config.strength * sums.input_variance()))
    filters = fitted.shared.weight.reshape(-1, config.width, channels).transpose(0, 2, 1)
    return Prior(np.ascontiguousarray(filters), fitted.shared.bias, fitted.apart, config)


def _rows(clip: TrainingClip, config: PriorConfig) -> Float32:
    """Return the neighbouring content of each frame: float32 [T, 176 * width]."""
    content = clip.content.reshape(len(clip), -1)
    past = config.width - 1 - WINDOW_AHEAD
    padded = np.pad(content, ((past, WINDOW_AHEAD), (0, 0)), mode="edge")
    return np.concatenate([padded[step : step + len(clip)] for step in range(config.width)], axis=1)


def _targets(clip: TrainingClip, basis: LandmarkBasis) -> Float32:
    mouths = clip.mouth_landmarks[clip.usable]
    mouth = measure_mouth(mouths, basis)
    return np.asarray(basis.project(mouths - mouth.rest_mouth) / mouth.spread, np.float32)
