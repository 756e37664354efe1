"""Ridge regression over clips in closed form, from windows of speech to motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64, Floating

CENTRE: Final = 2
"""Frames from the predicted frame back to the frame about which a filter hears most."""
REACH: Final = 3.0
"""Frames from there to the frames at which the penalty is four times the least penalty."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Linear filter from I inputs to K outputs: weight float32 [K, I], bias float32 [K]."""

    weight: Float32
    bias: Float32


class RidgeSums:
    """Normal equations of a ridge regression. The last input is always 1, for the bias, and has no penalty."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        """Start with no data.

        Args:
            num_inputs: I, without the 1 for the bias.
            num_outputs: K.
        """
        self._gram: Float64 = np.zeros((num_inputs + 1, num_inputs + 1))
        self._moment: Float64 = np.zeros((num_inputs + 1, num_outputs))

    def add(self, inputs: Floating, targets: Floating, weight: float) -> None:
        """Add rows: inputs [T, I + 1] with 1 in the last column, targets [T, K], and the weight of each row."""
        self._gram += weight * (inputs.T @ inputs)
        self._moment += weight * (inputs.T @ targets)

    def input_variance(self) -> float:
        """Return the mean variance of an input times the weight of all rows: the unit of a penalty."""
        mean = self._gram[-1, :-1] / self._gram[-1, -1]
        return float((np.diag(self._gram)[:-1] / self._gram[-1, -1] - mean**2).mean() * self._gram[-1, -1])

    def solve(self, penalty: Float64) -> Filter:
        """Return the filter for a penalty of each input, float64 [I]."""
        solution = np.linalg.solve(self._gram + np.diag(np.append(penalty, 0.0)), self._moment).T
        return Filter(solution[:, :-1].astype(np.float32), solution[:, -1].astype(np.float32))


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
