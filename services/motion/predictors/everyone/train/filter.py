"""The closed-form filter of `everyone`: ridge regression from the speech around a frame to the frame's expression.

A linear filter cannot learn a corpus by heart, and the network learns the rest. GRID and other narrow corpora have a filter of
their own beside the shared filter (services.motion.train.ridge), so the shared filter does not learn what holds there alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from pydantic import Field

from services.common.array_types import Float32, Float64
from services.motion.features import NUM_CONTENT, content_before
from services.motion.predictors.everyone.network import FILTER_AHEAD, FILTER_PAST, FILTER_ROWS, STATES_REACH
from services.motion.speech_states import Heard, neighbours, states_of
from services.motion.train.clips import Clips, TrainingClip
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.ridge import Fitted, RidgeSums
from services.motion.train.sampling import frame_weights
from services.motion.train.states_filter import fit_states_filter
from services.motion.types import ROWS_PER_FRAME

_WINDOW: Final = FILTER_PAST + 1 + FILTER_AHEAD


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Settings of the filter of content rows. They were chosen by leaving people of the web videos of the training out."""

    strength: Annotated[float, Field(gt=0.0)] = 0.03
    """Strength of the penalty at the predicted frame, in units of the mean variance of an input."""
    reach: Annotated[float, Field(gt=0.0)] = 2.5
    """Frames from the predicted frame to the frames at which the penalty is four times as strong."""
    speaker_exponent: float = 0.45
    """A speaker with m frames counts m to this power."""


def filter_inputs(clip: TrainingClip, heard: Heard) -> Float32:
    """Return the filter's inputs for each frame of a clip in silence, float32 [T, I]."""
    if heard == "paper":
        return _content_inputs(clip.content)
    return neighbours(states_of(clip.features), STATES_REACH, STATES_REACH).reshape(len(clip), -1)


def _content_inputs(content: Float32) -> Float32:
    """Return content rows [T, 4, 44] of 11 frames, float32 [T, 11 * 88]. Two neighbouring rows count as one."""
    around = np.concatenate([content_before(FILTER_PAST), content, content_before(FILTER_AHEAD)])
    halves = around.reshape(len(around), FILTER_ROWS, ROWS_PER_FRAME // FILTER_ROWS, NUM_CONTENT).mean(axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(halves.reshape(len(around), -1), _WINDOW, axis=0)
    return np.ascontiguousarray(windows.transpose(0, 2, 1), np.float32).reshape(len(content), -1)


def fit_filter(clips: Clips, space: ExpressionSpace, config: FilterConfig, heard: Heard) -> Fitted:
    """Fit the filter: of states if they are heard, otherwise of content rows. All clips are read.

    Args:
        clips: training clips.
        space: bases of mouths and of expression.
        config: settings of the filter of content rows; the filter of states has those of states_filter.
        heard: input of the network.

    Returns:
        Filters with weight float32 [E, I] and bias float32 [E].
    """
    num_expression = len(space.expression.typical_spread)

    def target(clip: TrainingClip) -> Float32:
        return space.target(clip.mouth_landmarks, clip.usable).coefficients

    if heard != "paper":
        return fit_states_filter(clips, target, num_expression, past=STATES_REACH, ahead=STATES_REACH)
    sums = RidgeSums(_WINDOW * FILTER_ROWS * NUM_CONTENT, num_expression)
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        inputs = filter_inputs(clip, heard)[clip.usable].astype(np.float64)
        sums.add(inputs, target(clip)[clip.usable], float(weight), clip.apart)
    return sums.solve(np.repeat(_penalty(config, sums.input_variance()), FILTER_ROWS * NUM_CONTENT))


def alone(clip: TrainingClip, fitted: Fitted, heard: Heard) -> Float32:
    """Return the coefficients of a clip that hold in its corpus alone, float32 [T, E]: 0 outside of narrow corpora."""
    own = fitted.apart.get(clip.apart)
    return np.zeros((len(clip), len(fitted.shared.bias)), np.float32) if own is None else own(filter_inputs(clip, heard))


def _penalty(config: FilterConfig, variance: float) -> Float64:
    """Return the penalty of each frame, float64 [11]: the penalty grows with the distance from the predicted frame."""
    distance = np.arange(-FILTER_PAST, FILTER_AHEAD + 1) / config.reach
    return np.asarray(config.strength * variance * (1.0 + distance**2) ** 2)
