"""From the luma of a face over time to its response to every chip: what the face itself does is suppressed.

A face moves, and its light changes: most of its energy is at low frequencies in time, and in few patterns of the grid (exposure,
turning of the head, the mouth). So the luma under the bumps is taken on a regular time grid, its slow part is subtracted, and the
rest is whitened over the cells and in time, with the covariances that it has itself. The response is the correlation with the
course of one chip in time: a matched filter in coloured noise, which weights every cell by its reliability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from gateway.provenance.watermark.layout import CHIP_S, COLUMNS, ROWS, bump, bumps
from gateway.provenance.watermark.spreading import CELLS
from services.common.array_types import Array, Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE

STEPS_PER_CHIP: Final = 5
"""Steps of the time grid per chip: 25 steps per second."""
STEP_S: Final = CHIP_S / STEPS_PER_CHIP
BLOCK: Final = 250
"""Most steps of a block, whose covariances are measured together."""
LEAST_BLOCK: Final = 25
_SIDE: Final = 40
"""Pixels of the render box in which the luma is projected onto the grid."""
_SLOW_S: Final = 0.6
"""Deviation of the Gaussian in time that takes the slow part, seconds."""
_CELL_FLOOR: Final = 0.05
"""Added to the variances of the cells, of their mean: the covariance is measured on few steps."""
_TIME_FLOOR: Final = 0.1
_MEMORY_S: Final = 3.0
"""Time after which the correlation in time is taken as 0, seconds."""


def _lower_face() -> Float64:
    """Return where the masks of dubs lie, float64 [40, 40], 0 to 1: the upper edge is straight, the lower edge half an ellipse."""
    pixel = (np.arange(_SIDE) + 0.5) * (BOX_SIZE / _SIDE) - 0.5
    down, across = pixel[:, None], pixel[None, :]
    radius = np.sqrt(((across - 79.5) / 76.0) ** 2 + (np.maximum(down - 44.0, 0.0) / 78.0) ** 2)
    return np.asarray(np.clip((1.0 - radius) * 10.0, 0.0, 1.0) * np.clip((down - 26.0) / 6.0, 0.0, 1.0), np.float64)


_DOWN, _ACROSS = bumps(_SIDE)
_WEIGHT: Final = _lower_face()
_TEMPLATES: Final = np.einsum("yx,yi,xj->yxij", _WEIGHT, _DOWN, _ACROSS).reshape(_SIDE * _SIDE, CELLS)
_GRAM: Final = _TEMPLATES.T @ _TEMPLATES


def projected(luma: UInt8 | Float32) -> Float32:
    """Return the luma of a render box under the bumps of the grid, float32 [CELLS].

    Args:
        luma: [160, 160], 0 to 255.
    """
    small = cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(_DOWN.T @ (small * _WEIGHT) @ _ACROSS, np.float32).reshape(ROWS * COLUMNS)


def responses(seconds: Float64, luma: Float32) -> tuple[int, Float64]:
    """Return the first step of the time grid, and the responses to chips at every step, float64 [steps, CELLS].

    The sign of a response says the sign of the chip, its size how sure that is. The mean of a chip's response has the chip's sign.

    Args:
        seconds: float64 [N], times of frames, increasing, without gaps; STEP_S * LEAST_BLOCK or longer.
        luma: float32 [N, CELLS], from `projected`.
    """
    first, last = int(np.ceil(seconds[0] / STEP_S - 1e-6)), int(np.floor(seconds[-1] / STEP_S + 1e-6))
    grid = np.arange(first, last + 1) * STEP_S
    later = np.clip(np.searchsorted(seconds, grid), 1, len(seconds) - 1)
    part = np.clip((grid - seconds[later - 1]) / (seconds[later] - seconds[later - 1]), 0.0, 1.0)[:, None]
    values = luma[later - 1] * (1.0 - part) + luma[later] * part
    count = max(1, round(len(grid) / BLOCK))
    edges = np.linspace(0, len(grid), count + 1).astype(int)
    return first, np.concatenate([_of_block(values[begin:end]) for begin, end in zip(edges[:-1], edges[1:], strict=True)])


def _of_block(values: Array) -> Float64:
    steps = len(values)
    fast = _without_slow(steps)
    moving = fast @ values
    whitened = moving @ np.linalg.solve(_floored(moving.T @ moving / steps, _CELL_FLOOR), _GRAM)
    level = np.sqrt((whitened**2).mean(0)) + 1e-9
    # A frame that stands out by far, such as at a cut that the tracker did not see, must not outweigh all others.
    whitened = np.clip(whitened, -4.0 * level, 4.0 * level)
    place = np.arange(steps)
    correlation = np.array([(whitened[lag:] / level * (whitened[: steps - lag] / level)).sum() for lag in place]) / (steps * CELLS)
    correlation *= np.clip(1.0 - place * STEP_S / _MEMORY_S, 0.0, 1.0)
    over_time = _floored(correlation[np.abs(place[:, None] - place)], _TIME_FLOOR)
    courses = fast @ bump((place[:, None] - place) / STEPS_PER_CHIP)
    return np.asarray(np.linalg.solve(over_time, courses).T @ whitened, np.float64)


def _without_slow(steps: int) -> Float64:
    """Return the matrix, float64 [steps, steps], that subtracts the weighted mean of the neighbourhood in time."""
    place = np.arange(steps)
    near = np.exp(-0.5 * ((place[:, None] - place) * STEP_S / _SLOW_S) ** 2)
    return np.asarray(np.eye(steps) - near / near.sum(1, keepdims=True), np.float64)


def _floored(covariance: Float64, floor: float) -> Float64:
    """Return a covariance with a part of its mean variance added to every variance."""
    mean = float(np.trace(covariance)) / len(covariance)
    return np.asarray(covariance + (floor * mean + 1e-9) * np.eye(len(covariance)), np.float64)


def stretches(seconds: Float64, starts: Sequence[int]) -> list[slice]:
    """Return the parts of a face's frames in which the face is seen without a gap.

    Args:
        seconds: float64 [N], times of the frames, increasing.
        starts: places of frames that begin a shot.
    """
    gaps = np.flatnonzero(np.diff(seconds) > 5.0 * STEP_S) + 1
    edges = sorted({0, len(seconds), *gaps.tolist(), *starts})
    return [
        slice(begin, end)
        for begin, end in zip(edges[:-1], edges[1:], strict=True)
        if seconds[end - 1] - seconds[begin] >= LEAST_BLOCK * STEP_S
    ]
