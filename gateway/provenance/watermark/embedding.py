"""The mark of one video as pictures that are added to the luma of render boxes, and the strength of the mark in each frame.

The mark is weak on a large face that rests, where it could be seen, and strong on all others. Two things take the mark away, and
each asks for strength:

    strength = max(LEAST, change / FULL_CHANGE, 1 / scale^2), at most 1

A face whose light changes disturbs the search, and hides the mark from the eye: `change` is the change of the luma of a typical
cell of the grid within the last second, without what is slower than the mark. Encoders disturb small faces, because a cell has few
samples there: `scale` is the number of pixels of the frame per box pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import cv2
import numpy as np

from gateway.provenance.watermark.pattern import (
    AMPLITUDE,
    BOTTOM,
    CHIP_S,
    COLUMNS,
    LEFT,
    PERIOD,
    RIGHT,
    ROWS,
    TOP,
    ContentSigns,
    RecentMean,
    Spreading,
    bump,
    bumps,
    confirming_chips,
    public_content,
    public_spreading,
    reduced,
)
from gateway.provenance.watermark.payload import PUBLIC, Payload
from services.common.array_types import Float32, Float64, UInt8

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
    """Strength of the mark of one video, frame by frame in the order of the video."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._slow: Float64 | None = None
        self._squares = np.zeros((ROWS, COLUMNS))
        self._weight = 0.0

    def of_frame(self, seconds: float, pixels: UInt8, scale: float) -> float:
        """Return the strength of the mark in the next frame, LEAST to 1.

        Args:
            seconds: time of the frame since the first frame of the video.
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


class Mark:
    """The mark of one video, of the version that the payload names.

    Args:
        key: secret of the installation, 32 bytes.
        payload: what the mark says.
    """

    def __init__(self, key: bytes, payload: Payload) -> None:
        self.payload = payload
        secret = ContentSigns.of_key(key)
        if payload.version(key) == PUBLIC:
            self._layers = [
                (public_spreading().chips(payload.word), public_content()),
                (confirming_chips(key, payload.word), secret),
            ]
        else:
            self._layers = [(Spreading.of_key(key).chips(payload.word), secret)]

    def signs(self, picture: UInt8, step: int) -> Float64:
        """Return the signs of the chips of one step, float64 [CELLS], 1 or -1.

        Args:
            picture: mean of the last pictures, uint8 [PIXELS], from `RecentMean`.
            step: number of the step.
        """
        return np.asarray(
            sum(chips[step % PERIOD] * content.of_chips(picture, step) for chips, content in self._layers), np.float64
        )


@dataclass(frozen=True, slots=True)
class FrameMark:
    """The mark of one frame.

    Attributes:
        heights: float32 [ROWS, COLUMNS], of the bumps of the grid, of 255.
    """

    heights: Float32 = field(repr=False)

    def luma(self, side: int) -> Float32:
        """Return what is added to the luma of a render box of `side` pixels, float32 [side, side], of 255."""
        down, across = _bumps(side)
        return np.asarray(down @ (self.heights @ across), np.float32)


class MarkedFace:
    """The mark of one video, frame by frame in video order. The pictures of the footage decide about signs and strength."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._strength = Strength()
        self._moments = RecentMean()
        self._signs: dict[int, Float64] = {}

    def of_frame(self, seconds: float, pixels: UInt8, scale: float) -> FrameMark:
        """Return the mark of the next frame.

        Args:
            seconds: time of the frame since the first frame of the video.
            pixels: render box of the footage, uint8 RGB [160, 160, 3].
            scale: pixels of the frame per box pixel.
        """
        picture = self._moments.with_frame(seconds, reduced(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)))
        step = int(np.floor(seconds / CHIP_S))
        # The first frame of a chip decides about its signs, which then stay: a sign that changes would flicker.
        had = self._signs
        self._signs = {number: had[number] if number in had else self._mark.signs(picture, number) for number in (step, step + 1)}
        positions = np.array([seconds / CHIP_S - step, seconds / CHIP_S - step - 1.0])
        weights = AMPLITUDE * self._strength.of_frame(seconds, pixels, scale) * bump(positions)
        heights = weights[0] * self._signs[step] + weights[1] * self._signs[step + 1]
        return FrameMark(heights.astype(np.float32).reshape(ROWS, COLUMNS))


@cache
def _bumps(side: int) -> tuple[Float32, Float32]:
    """Return the bumps of rows, float32 [side, ROWS], and those of columns, float32 [COLUMNS, side]."""
    down, across = bumps(side)
    return down.astype(np.float32), np.ascontiguousarray(across.T, np.float32)
