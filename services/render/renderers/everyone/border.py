"""Border of the face (Sec. 3.7): pixels that are background, filmed and drawn, stay as filmed.

The paper tells face from background with a segmentation network. Here the mesh tells where the drawn face ends, and the filmed
pixel counts as background where it resembles the drawn one: below the drawn jaw, both show the same neck or collar. A filmed chin
below a raised jaw differs from the drawn neck and is replaced.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Bool, UInt8

_SAME_LEVELS: Final = 12.0
_OTHER_LEVELS: Final = 30.0
_SMOOTH_SIGMA: Final = 1.5
_MARGIN: Final = np.ones((5, 5), np.uint8)


def with_filmed_border(drawn: UInt8, background: UInt8, covered: Bool) -> UInt8:
    """Return the drawn picture with the filmed pixels where both are background: uint8 [H, W, 3].

    Args:
        drawn: uint8 [H, W, 3], the drawn picture.
        background: uint8 [H, W, 3], the footage.
        covered: bool [H, W], where the drawn face is.
    """
    outside = cv2.erode((~covered).view(np.uint8), _MARGIN) > 0
    if not outside.any():
        return drawn
    difference = np.abs(cv2.subtract(drawn.astype(np.float32), background.astype(np.float32))).max(axis=-1)
    difference = cv2.GaussianBlur(difference, (0, 0), _SMOOTH_SIGMA)
    same = np.clip((_OTHER_LEVELS - difference) / (_OTHER_LEVELS - _SAME_LEVELS), 0.0, 1.0)
    weight = cv2.GaussianBlur(np.where(outside, same, 0.0).astype(np.float32), (0, 0), _SMOOTH_SIGMA) * ~covered
    mixed = drawn + weight[..., None] * (background.astype(np.float32) - drawn)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), dtype=np.uint8)
