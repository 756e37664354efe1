"""Pictures of wanted lips. Training and serving share them."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import LIPS_OUTER, NUM_LIPS

_SHIFT: Final = 4


def lip_pictures(box_landmarks: Float32, size: int = BOX_SIZE) -> UInt8:
    """Return the wanted lips and the wanted inside of the mouth, filled: uint8 [size, size, 2], 255 inside.

    Args:
        box_landmarks: float32 [59, 2], box pixels.
        size: side of the render box, pixels.
    """
    points = np.rint(np.clip(box_landmarks[:NUM_LIPS], -size, 2 * size) * (1 << _SHIFT)).astype(np.int32)
    pictures = [np.zeros((size, size), np.uint8) for _ in range(2)]
    for picture, polygon in zip(pictures, (points[: len(LIPS_OUTER)], points[len(LIPS_OUTER) :]), strict=True):
        cv2.fillPoly(picture, [polygon], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return np.dstack(pictures)
