"""Parts of a face in a render box, from the mouth-area landmarks: inside the jaw, the lips, the skin beside the lips."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import JAW, LIPS_OUTER, NUM_LIPS

JAW_CONTOUR: Final = slice(NUM_LIPS, NUM_LIPS + len(JAW) - 2)
"""Mouth-area landmarks of the jaw from ear to ear. The two points that close the ends lie on the cheeks."""
_SUBPIXEL_BITS: Final = 4


def filled_polygon(points: npt.NDArray[np.floating]) -> UInt8:
    """Return 1 inside a polygon, 0 elsewhere: [N, 2] box pixels -> uint8 [160, 160]."""
    inside = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    cv2.fillPoly(inside, [np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)], (1,), shift=_SUBPIXEL_BITS)
    return inside


def inside_jaw(mouth: Float32) -> UInt8:
    """Return 1 inside the jaw and above its ends, 0 elsewhere, uint8 [160, 160].

    Args:
        mouth: float32 [59, 2], mouth-area landmarks, box pixels.
    """
    contour = mouth[JAW_CONTOUR]
    return filled_polygon(np.concatenate([contour, [[contour[-1, 0], 0.0], [contour[0, 0], 0.0]]]))


def fill_lips(picture: UInt8, mouth: Float32, value: int, *, margin_px: int = 0) -> None:
    """Write a value into the convex hull of the lips, and into a margin around the hull.

    Args:
        picture: uint8 [H, W], is changed.
        mouth: float32 [59, 2], mouth-area landmarks, pixels of the picture.
        value: the new value, 0 to 255.
        margin_px: width of the margin.
    """
    hull = cv2.convexHull(np.rint(mouth[: len(LIPS_OUTER)]).astype(np.int32))
    cv2.fillConvexPoly(picture, hull, (value,))
    if margin_px:
        cv2.polylines(picture, [hull], True, (value,), 2 * margin_px + 1)
