"""Where and when the watermark lies: a grid of smooth bumps in the render box, whose signs change smoothly in time.

The mark is a picture of the render box that changes with the film's time t:

    mark(y, x, t) = AMPLITUDE * sum over i, j, k of  sign[k, i, j] * bump(y / DY - i) * bump(x / DX - j) * bump(t / CHIP_S - k)

bump(u) = cos^2(pi u / 2) for |u| < 1. Neighbouring bumps add up to 1, so that equal signs make a flat field, and the mark is never
above AMPLITUDE. In every frame, the mark is multiplied by a strength of 0.5 to 1 (strength.py). A triple (k, i, j) is a *chip*. The
signs repeat after PERIOD chips of time.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Array, Float64
from services.common.face.crops import BOX_SIZE

ROWS: Final = 8
COLUMNS: Final = 12
TOP, BOTTOM, LEFT, RIGHT = 28.0, 124.0, 12.0, 148.0
"""Rectangle of the grid, box pixels: the lower face."""
PERIOD: Final = 64
"""Chips of time after which the signs repeat: 12.8 s."""
CHIP_S: Final = 0.2
"""Seconds from one chip to the next. Slower chips are hidden by the motion of the face, faster ones could be seen to flicker."""
AMPLITUDE: Final = 3.2
"""Largest change of a luma sample at full strength, of 255."""
_DY: Final = (BOTTOM - TOP) / ROWS
_DX: Final = (RIGHT - LEFT) / COLUMNS


def bump(place: Array) -> Float64:
    """Return cos^2(pi u / 2) of places u, and 0 where |u| >= 1."""
    return np.where(np.abs(place) < 1.0, np.cos(0.5 * np.pi * place) ** 2, 0.0)


def bumps(side: int) -> tuple[Float64, Float64]:
    """Return the bumps of rows, float64 [side, ROWS], and of columns, float64 [side, COLUMNS], in a render box of `side` pixels."""
    pixel = (np.arange(side) + 0.5) * (BOX_SIZE / side) - 0.5
    down = (pixel[:, None] - TOP) / _DY - 0.5 - np.arange(ROWS)
    across = (pixel[:, None] - LEFT) / _DX - 0.5 - np.arange(COLUMNS)
    return bump(down), bump(across)
