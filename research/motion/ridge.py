"""Ridge regression over clips in closed form, from windows of speech to motion.

The filter from states of the speech encoder to motion is the mean of two ridge regressions, one for each block of the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from research.motion.clips import Clips, TrainingClip, frame_weights
from services.common.array_types import Float32, Float64, Floating
from services.motion.basis import LandmarkBasis
from services.motion.speech_states import BLOCKS, NUM_STATES, STATES, neighbours, states_of
from services.motion.style import measure_mouth

CENTRE: Final = 2
"""Frames from the predicted frame back to the frame at which the penalty is least."""
REACH: Final = 3.0
"""Frames from there to the frames at which the penalty is four times the least penalty."""
STRENGTH: Final = 0.3
"""Strength of the ridge, in units of the mean variance of an input."""
SPEAKER_EXPONENT: Final = 0.45
"""A speaker with m frames counts m to this power."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Linear filter from I inputs to K outputs: weight float32 [K, I], bias float32 [K]."""

    weight: Float32
    bias: Float32

    def __call__(self, inputs: Floating) -> Float32:
        """Return the answers to inputs [T, I]: float32 [T, K]."""
        return np.asarray(inputs @ self.weight.T + self.bias, np.float32)


@dataclass(frozen=True, slots=True)
class RidgeFit:
    """Result of a regression.

    Attributes:
        shared: filter of all footage.
        apart: by narrow corpus, the filter to add for this corpus alone.
    """

    shared: Filter
    apart: Mapping[str, Filter]


class RidgeSums:
    """Normal equations of a ridge regression with a bias, which has no penalty.

    A narrow corpus s has a filter b_s of its own beside the shared filter a ("frustratingly easy domain adaptation", Daume 2007):

        minimise  sum |Y - X (a + b_s)|^2 + a' P a + sum_s b_s' P b_s

    So the shared filter learns from all footage, and does not learn what holds in a narrow corpus alone.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        """Start with no data.

        Args:
            num_inputs: I.
            num_outputs: K.
        """
        self._shape = num_inputs + 1, num_outputs
        self._sums: dict[str, tuple[Float64, Float64]] = {}

    def add(self, inputs: Floating, targets: Floating, weight: float, apart: str = "") -> None:
        """Add rows.

        Args:
            inputs: [T, I].
            targets: [T, K].
            weight: weight of each row.
            apart: name of the narrow corpus that the rows come from; empty: none.
        """
        size, outputs = self._shape
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1), inputs.dtype)], axis=1)
        gram, moment = self._sums.setdefault(apart, (np.zeros((size, size)), np.zeros((size, outputs))))
        gram += weight * (inputs.T @ inputs)
        moment += weight * (inputs.T @ targets)

    def input_variance(self) -> float:
        """Return the mean variance of an input times the weight of all rows: the unit of a penalty."""
        gram = np.sum([gram for gram, _ in self._sums.values()], axis=0)
        mean = gram[-1, :-1] / gram[-1, -1]
        return float((np.diag(gram)[:-1] / gram[-1, -1] - mean**2).mean() * gram[-1, -1])

    def solve(self, penalty: Float64) -> RidgeFit:
        """Return the filters for a penalty of each input, float64 [I]. The own bias of a corpus has the mean penalty."""
        own = np.diag(np.append(penalty, penalty.mean()))
        gram, moment = np.diag(np.append(penalty, 0.0)), np.zeros(self._shape)
        for name, (g, m) in self._sums.items():
            # b_s = (G + P)^-1 (M - G a): what the corpus explains by itself leaves the equations of the shared filter.
            kept = g @ np.linalg.solve(g + own, np.hstack([g, m])) if name else np.zeros((len(g), sum(self._shape)))
            gram, moment = gram + g - kept[:, : len(g)], moment + m - kept[:, len(g) :]
        shared = np.linalg.solve(gram, moment)
        apart = {name: _filter(np.linalg.solve(g + own, m - g @ shared)) for name, (g, m) in sorted(self._sums.items()) if name}
        return RidgeFit(_filter(shared), apart)


def _filter(solution: Floating) -> Filter:
    weights = np.asarray(solution.T, np.float32)
    return Filter(weights[:, :-1], weights[:, -1])


def distance_penalty(window: int, past: int, scale: float) -> Float64:
    """Return the penalty of each frame of a window, float64 [W].

    The penalty grows with the square of the distance from the predicted frame: far frames can tell the sentence of a closed
    grammar, and little else.

    Args:
        window: W, frames of the window.
        past: frames before the predicted frame.
        scale: least penalty.
    """
    distance = np.abs(np.arange(window) - past + CENTRE) / REACH
    return np.asarray(scale * (1.0 + distance**2) ** 2)


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
) -> RidgeFit:
    """Fit the filter. All clips are read. What holds in a narrow corpus alone is learned apart (RidgeSums).

    Args:
        target: returns what is predicted for all frames of a clip, [T, K]. Frames that are not usable do not count.
        num_outputs: K.
        past: frames of states before the predicted frame that the filter reads.
        ahead: frames of states after the predicted frame that the filter reads.
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
            windows = neighbours(states_of(clip.features, feature), past, ahead)[clip.usable, :, block]
            sums.add(windows.reshape(len(windows), -1).astype(np.float64), target(clip)[clip.usable], float(share), clip.apart)
        parts.append(sums.solve(np.full(inputs, STRENGTH * sums.input_variance())))
    apart = {name: _mean([part.apart[name] for part in parts], width) for name in parts[0].apart}
    return RidgeFit(_mean([part.shared for part in parts], width), apart)


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
