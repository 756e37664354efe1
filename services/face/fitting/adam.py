"""Adam (Kingma and Ba 2015) on named numpy arrays, with one step size per name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from services.common.array_types import Float64

_MEAN_DECAY: Final = 0.9
_SQUARE_DECAY: Final = 0.99
"""Decay of the mean square. The usual .999 averages over more steps than a fit has."""
_FLOOR: Final = 1e-8


class Adam:
    """State of one minimisation.

    Args:
        sizes: first step size of each array, by name.
        steps: number of steps; the step size falls to a tenth over them, along half a cosine.
    """

    def __init__(self, sizes: Mapping[str, float], steps: int) -> None:
        self._sizes, self._steps = sizes, steps
        self._done = 0
        self._means: dict[str, Float64] = {}
        self._squares: dict[str, Float64] = {}

    def step(self, gradients: Mapping[str, Float64]) -> dict[str, Float64]:
        """Return what to add to each array, for the gradients at the present place."""
        self._done += 1
        share = 0.1 + 0.45 * (1.0 + np.cos(np.pi * (self._done - 1) / self._steps))
        change = {}
        for name, gradient in gradients.items():
            mean = _MEAN_DECAY * self._means.get(name, np.zeros_like(gradient)) + (1.0 - _MEAN_DECAY) * gradient
            square = _SQUARE_DECAY * self._squares.get(name, np.zeros_like(gradient)) + (1.0 - _SQUARE_DECAY) * gradient**2
            self._means[name], self._squares[name] = mean, square
            mean, square = mean / (1.0 - _MEAN_DECAY**self._done), square / (1.0 - _SQUARE_DECAY**self._done)
            change[name] = -self._sizes[name] * share * mean / (np.sqrt(square) + _FLOOR)
        return change
