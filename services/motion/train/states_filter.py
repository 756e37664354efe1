"""The closed-form filter from states of the speech encoder to motion: the mean of two ridge regressions, one for each block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from services.common.array_types import Float32, Floating
from services.motion.basis import LandmarkBasis
from services.motion.speech_states import BLOCKS, NUM_STATES, STATES, neighbours, states_of
from services.motion.style import measure_mouth
from services.motion.train.clips import Clips, TrainingClip
from services.motion.train.ridge import Filter, Fitted, RidgeSums
from services.motion.train.sampling import frame_weights

STRENGTH: Final = 0.3
"""Strength of the ridge, in units of the mean variance of an input."""
SPEAKER_EXPONENT: Final = 0.45
"""A speaker with m frames counts m to this power."""


def mouth_target(clip: TrainingClip, basis: LandmarkBasis) -> Float32:
    """Return the coefficients of all mouths of a clip from the person's rest mouth, float32 [T, K] in units of the spread."""
    mouth = measure_mouth(clip.mouth_landmarks[clip.usable], basis)
    return np.asarray(basis.project(clip.mouth_landmarks - mouth.rest_mouth) / mouth.spread, np.float32)


def fit_states_filter(
    clips: Clips,
    target: Callable[[TrainingClip], Floating],
    num_outputs: int,
    *,
    past: int,
    ahead: int,
    feature: str = STATES,
) -> Fitted:
    """Fit the filter. All clips are read. What holds in a narrow corpus alone is learned apart (RidgeSums).

    Args:
        clips: training clips with the states.
        target: returns what is predicted for all frames of a clip, [T, K]. Frames that are not usable do not count.
        num_outputs: K.
        past: frames of states before the predicted frame that the filter hears.
        ahead: frames of states after the predicted frame that the filter hears.
        feature: tensor with the states.

    Returns:
        Filters with weight float32 [K, (past + 1 + ahead) * 192], the first frame first, and bias float32 [K].
    """
    width = past + 1 + ahead
    parts = []
    for block in BLOCKS:
        inputs = width * (block.stop - block.start)
        sums = RidgeSums(inputs, num_outputs)
        for clip, share in zip(clips, frame_weights(clips.rows, SPEAKER_EXPONENT), strict=True):
            heard = neighbours(states_of(clip.features, feature), past, ahead)[clip.usable, :, block]
            sums.add(heard.reshape(len(heard), -1).astype(np.float64), target(clip)[clip.usable], float(share), clip.apart)
        parts.append(sums.solve(np.full(inputs, STRENGTH * sums.input_variance())))
    apart = {name: _mean([part.apart[name] for part in parts], width) for name in parts[0].apart}
    return Fitted(_mean([part.shared for part in parts], width), apart)


def _mean(filters: list[Filter], width: int) -> Filter:
    """Return the mean of the filters of the blocks as one filter of all states."""
    num_outputs = len(filters[0].bias)
    weight = np.zeros((num_outputs, width, NUM_STATES), np.float32)
    for block, each in zip(BLOCKS, filters, strict=True):
        weight[:, :, block] = each.weight.reshape(num_outputs, width, -1) / len(BLOCKS)
    bias = np.asarray(np.mean([each.bias for each in filters], axis=0), np.float32)
    return Filter(weight.reshape(num_outputs, -1), bias)


def range_of_states(clips: Clips) -> tuple[Float32, Float32]:
    """Return mean and standard deviation of each component over usable frames of clips, float32 [192] each."""
    states = np.concatenate([states_of(clip.features)[clip.usable] for clip in clips])
    return states.mean(axis=0, dtype=np.float64).astype(np.float32), states.std(axis=0, dtype=np.float64).astype(np.float32)
