"""How strong the mark of a frame is: weak on a large face that rests, where it could be seen, and strong on all others.

Two things take the mark away, and each asks for strength:

    strength = max(LEAST, change / FULL_CHANGE, 1 / scale^2), at most 1

A face whose light changes disturbs the search, and hides the mark from the eye: `change` is the change of the luma of a typical
cell of the grid within the last second, without what is slower than the mark. Encoders disturb small faces, because a cell has few
samples there: `scale` is the number of pixels of the frame per box pixel.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np

from gateway.provenance.watermark.layout import BOTTOM, COLUMNS, LEFT, RIGHT, ROWS, TOP
from services.common.array_types import Float64, UInt8

LEAST: Final = 0.5
FULL_CHANGE: Final = 6.0
"""Change of the luma, of 255, from which on the mark has its full strength."""
_SLOW_S: Final = 0.2
"""Time constant of the mean that is subtracted from the luma of a cell, seconds."""
_MEMORY_S: Final = 1.0
"""Time constant of the mean of the squared changes, seconds."""
_LARGEST_CHANGE: Final = 8.0
"""Larger changes of a cell count as this, of 255, so that a cut does not outweigh what follows."""
_STEPS: Final = 128
"""Steps of the strength from 0 to 1, so that processors that round differently give the same mark."""
_DOWN: Final = np.linspace(TOP, BOTTOM, ROWS + 1).astype(int)
_ACROSS: Final = np.linspace(LEFT, RIGHT, COLUMNS + 1).astype(int)


class Strength:
    """Strength of the mark of one film, frame by frame in the order of the film."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._slow: Float64 | None = None
        self._squares = np.zeros((ROWS, COLUMNS))
        self._weight = 0.0

    def of_frame(self, seconds: float, pixels: UInt8, scale: float) -> float:
        """Return the strength of the mark in the next frame, LEAST to 1.

        Args:
            seconds: time of the frame since the first frame of the film.
            pixels: render box of the footage, uint8 RGB [160, 160, 3].
            scale: pixels of the frame per box pixel.
        """
        cells = _cells(pixels)
        slow = self._slow if self._slow is not None else cells
        passed = max(0.0, seconds - self._seconds)
        self._seconds = seconds
        self._slow = slow + (1.0 - math.exp(-passed / _SLOW_S)) * (cells - slow)
        changed = np.clip(cells - self._slow, -_LARGEST_CHANGE, _LARGEST_CHANGE)
        # The weight corrects the mean for its start at 0.
        share = 1.0 - math.exp(-passed / _MEMORY_S)
        self._squares += share * (changed**2 - self._squares)
        self._weight += share * (1.0 - self._weight)
        change = math.sqrt(float(np.median(self._squares)) / self._weight) if self._weight > 0.0 else 0.0
        wanted = max(LEAST, change / FULL_CHANGE, 1.0 / scale**2)
        return round(_STEPS * min(1.0, wanted)) / _STEPS


def _cells(pixels: UInt8) -> Float64:
    """Return the mean luma of every cell of the grid, float64 [ROWS, COLUMNS]."""
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[: _DOWN[-1], : _ACROSS[-1]].astype(np.int64)
    sums = np.add.reduceat(np.add.reduceat(luma, _DOWN[:-1], axis=0), _ACROSS[:-1], axis=1)
    return np.asarray(sums / (np.diff(_DOWN)[:, None] * np.diff(_ACROSS)), np.float64)
