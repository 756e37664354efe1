"""Removal of the combs of interlaced video: two fields of different moments in one frame, woven line by line.

Video that was interlaced and is stored as progressive shows combs where something moves. Detail of such frames would draw stripes
on a mouth that rests.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import UInt8

_STEP: Final = 6
"""Smallest difference between neighbouring lines of a comb, of 255."""
_PATCH: Final = 9
"""Side of the square, samples, in which combs are counted: single fine structures are no combs."""
_SHARE: Final = 0.3


def deinterlaced_luma(luma: UInt8) -> UInt8:
    """Return a luma picture whose combs are smoothed across the lines, uint8 [H, W]. Other samples do not change.

    A sample is part of a comb if the differences between four lines alternate in sign.

    Args:
        luma: uint8 [H, W].
    """
    if len(luma) < 4:
        return luma
    steps = np.diff(luma.astype(np.int16), axis=0)
    signs = (steps > _STEP).astype(np.int8) - (steps < -_STEP).astype(np.int8)
    alternating = (signs[:-2] * signs[1:-1] < 0) & (signs[1:-1] * signs[2:] < 0)
    if not alternating.any():
        return luma
    combs = np.zeros(luma.shape, np.float32)
    combs[1:-2] = alternating
    combed = cv2.blur(combs, (_PATCH, _PATCH)) > _SHARE
    smooth = cv2.sepFilter2D(luma, -1, np.ones(1, np.float32), np.array([0.25, 0.5, 0.25], np.float32))
    return np.asarray(np.where(combed, smooth, luma), np.uint8)
