"""The closed-form filter of `everyone`: ridge regression from the speech around a frame to the frame's expression.

A linear filter cannot learn a corpus by heart, and the network learns the rest. GRID and other narrow corpora have a filter of
their own beside the shared filter (services.motion.train.ridge), so the shared filter does not learn what holds there alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from services.common.array_types import Float32, Float64
from services.motion.features import NUM_CONTENT, content_before
from services.motion.predictors.everyone.network import FILTER_AHEAD, FILTER_PAST, FILTER_ROWS, FILTER_WINDOW
from services.motion.train.clips import Clips, TrainingClip
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.ridge import Fitted, RidgeSums
from services.motion.train.sampling import frame_weights
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Settings of the filter. They were chosen by leaving people of the web videos of the training out."""

    strength: Annotated[float, Field(gt=0.0)] = 0.03
    """Strength of the penalty at the predicted frame, in units of the mean variance of an input."""
    reach: Annotated[float, Field(gt=0.0)] = 2.5
    """Frames from the predicted frame to the frames at which the penalty is four times as strong."""
    speaker_exponent: float = 0.45
    """A speaker with m frames counts m to this power."""


def filter_inputs(content: Float32) -> Float32:
    """Return the filter's inputs for each frame of a clip: content rows [T, 4, 44] -> float32 [T, 11 * 88].

    Two neighbouring rows count as one. The clip is surrounded by silence.
    """
    around = np.concatenate([content_before(FILTER_PAST), content, content_before(FILTER_AHEAD)])
    halves = around.reshape(len(around), FILTER_ROWS, ROWS_PER_FRAME // FILTER_ROWS, NUM_CONTENT).mean(axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(halves.reshape(len(around), -1), FILTER_WINDOW, axis=0)
    return np.ascontiguousarray(windows.transpose(0, 2, 1), np.float32).reshape(len(content), -1)


def fit_filter(clips: Clips, space: ExpressionSpace, config: FilterConfig) -> Fitted:
    """Fit the filter. All clips are read.

    Args:
        clips: training clips.
        space: bases of mouths and of expression.
        config: settings.

    Returns:
        Filters with weight float32 [E, 11 * 88] and bias float32 [E].
    """
    sums = RidgeSums(FILTER_WINDOW * FILTER_ROWS * NUM_CONTENT, len(space.expression.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        target = space.target(clip.mouth_landmarks, clip.usable).coefficients[clip.usable]
        sums.add(filter_inputs(clip.content)[clip.usable].astype(np.float64), target, float(weight), clip.apart)
    return sums.solve(np.repeat(_penalty(config, sums.input_variance()), FILTER_ROWS * NUM_CONTENT))


def alone(clip: TrainingClip, fitted: Fitted) -> Float32:
    """Return the coefficients of a clip that hold in its corpus alone, float32 [T, E]: 0 outside of narrow corpora."""
    own = fitted.apart.get(clip.apart)
    return np.zeros((len(clip), len(fitted.shared.bias)), np.float32) if own is None else own(filter_inputs(clip.content))


def _penalty(config: FilterConfig, variance: float) -> Float64:
    """Return the penalty of each frame, float64 [11]: the penalty grows with the distance from the predicted frame."""
    distance = np.arange(-FILTER_PAST, FILTER_AHEAD + 1) / config.reach
    return np.asarray(config.strength * variance * (1.0 + distance**2) ** 2)
