"""Landmarks of a hand, and the pixels that the hand covers.

A hand has MediaPipe's 21 points: the wrist, and four points of each finger, from the thumb to the little finger, from root to tip.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, UInt8

NUM_HAND_LANDMARKS: Final = 21
MAX_HANDS: Final = 2
"""Most hands of one face and frame."""
_WRIST: Final = 0
_FINGERS: Final = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_PALM: Final = (0, 1, 2, 5, 9, 13, 17)
_MIDDLE_ROOT: Final = 9
_FINGER_WIDTH: Final = 0.34
"""Width that is drawn for a finger, as a share of the length of the palm. Fingers are about .22 wide. The landmarks lie on their
axes, some pixels off."""
_ARM_WIDTH: Final = 0.75
_ARM_LENGTH: Final = 1.0
"""Width and length of the part of the arm that is drawn behind the wrist, in lengths of the palm."""


def hand_mask(hands: Float32, size: int) -> UInt8:
    """Return 1 where a hand covers a square picture, 0 elsewhere, uint8 [size, size].

    Args:
        hands: float32 [N, 21, 2], landmarks of the hands, pixels of the picture.
        size: side of the picture, pixels.
    """
    # Imported here: modules that only take the number of landmarks from this one load faster.
    import cv2

    mask = np.zeros((size, size), np.uint8)
    limit = 8 * size
    for hand in hands:
        points = np.clip(hand, -limit, limit)
        palm = points[list(_PALM)]
        length = float(np.linalg.norm(points[_MIDDLE_ROOT] - points[_WRIST]))
        wide = max(1, round(_FINGER_WIDTH * length))
        outline = np.rint(cv2.convexHull(palm.astype(np.float32))).astype(np.int32)
        cv2.fillConvexPoly(mask, outline, (1,))
        cv2.polylines(mask, [outline], True, (1,), wide)
        for finger in _FINGERS:
            cv2.polylines(mask, [np.rint(points[list(finger)]).astype(np.int32)], False, (1,), wide)
        elbow = points[_WRIST] + _ARM_LENGTH * (points[_WRIST] - points[_MIDDLE_ROOT])
        ends = np.rint(np.stack([points[_WRIST], elbow])).astype(np.int32)
        cv2.line(mask, ends[0].tolist(), ends[1].tolist(), (1,), max(1, round(_ARM_WIDTH * length)))
    return mask
