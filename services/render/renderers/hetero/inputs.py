"""Input of the network of `hetero`: a window of composites, and a reference picture (paper `hetero`, Sec. 3.3, Eq. 3).

A composite is the frame's render box without the lower face: the mask is black, and the wanted landmarks are drawn into the black
as lines. Outer lips are red, inner lips are green, the jaw is blue, so that no line hides another. Frames t-2 to t+2 make a window
(p = 2). Training and serving share this module.

Departures from the paper: the network also sees the mask of frame t, and the wanted lips of frame t, filled. The reference picture
is brought to the light of frame t's cheeks (services/render/colour_match.py), so that the network does not have to learn to do so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import JAW, LIPS_OUTER, NUM_LIPS
from services.common.face.lip_pictures import lip_pictures
from services.render.colour_match import match_colour

REACH: Final = 2
"""Frames before and after a frame that the network sees, p of the paper."""
WINDOW_FRAMES: Final = 2 * REACH + 1
COMPOSITE_CHANNELS: Final = 3
NUM_CHANNELS: Final = 8 + COMPOSITE_CHANNELS * (WINDOW_FRAMES - 1)
"""Channels of `window_picture`."""
REFERENCE: Final = slice(3, 6)
"""Channels of `window_picture` with the reference picture."""
SHOWN: Final = (slice(0, 3), slice(6, 8), slice(8, NUM_CHANNELS))
"""Channels of `window_picture` that the generator sees: composite of t, mask and lips of t, composites of the neighbours."""

_SHIFT: Final = 4
_JAW_LINE: Final = len(JAW) - 2
"""Jaw points that follow each other along the line."""


def landmark_lines(box_landmarks: Float32, size: int = BOX_SIZE) -> UInt8:
    """Return lines through the landmarks: uint8 [size, size, 3]: outer lips, inner lips, jaw, 255 on the line.

    In a box of 160 pixels a line is one pixel wide; the width grows with the box.

    Args:
        box_landmarks: float32 [59, 2], box pixels.
        size: side of the render box, pixels.
    """
    points = np.rint(np.clip(box_landmarks, -size, 2 * size) * (1 << _SHIFT)).astype(np.int32)
    outer, inner, jaw = points[: len(LIPS_OUTER)], points[len(LIPS_OUTER) : NUM_LIPS], points[NUM_LIPS:][:_JAW_LINE]
    pictures = [np.zeros((size, size), np.uint8) for _ in range(3)]
    for picture, line, closed in zip(pictures, (outer, inner, jaw), (True, True, False), strict=True):
        cv2.polylines(picture, [line], closed, 255, size // BOX_SIZE, cv2.LINE_AA, _SHIFT)
    return np.dstack(pictures)


def composite(background: UInt8, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """Return a frame with the landmarks' lines on black wherever the mask is above 0: uint8 [H, W, 3].

    Args:
        background: uint8 [H, W, 3]; no pixel under the mask is read.
        mask: uint8 [H, W], lower-face mask.
        box_landmarks: float32 [59, 2], wanted landmarks, box pixels.
    """
    return np.where(mask[:, :, None] > 0, landmark_lines(box_landmarks, len(mask)), background)


def window_picture(window: Sequence[UInt8], background: UInt8, mask: UInt8, box_landmarks: Float32, reference: UInt8) -> UInt8:
    """Return the network's input: uint8 [H, W, NUM_CHANNELS].

    Channels 0 to 7: composite of frame t, reference picture, mask, wanted lips (128 = lips, 255 = inside of the mouth), as
    services.render.losses.compose expects them. Then come the composites of t-2, t-1, t+1, t+2.

    Args:
        window: results of `composite`, t-2 to t+2.
        background: uint8 [H, W, 3], frame t; no pixel under the mask is read.
        mask: uint8 [H, W], mask of frame t.
        box_landmarks: float32 [59, 2], wanted landmarks of frame t, box pixels.
        reference: uint8 [H, W, 3], the reference picture in its own light.

    Raises:
        ValueError: another number of frames than WINDOW_FRAMES.
    """
    if len(window) != WINDOW_FRAMES:
        raise ValueError(f"{WINDOW_FRAMES} frames expected, {len(window)} given")
    lips, inside = np.moveaxis(lip_pictures(box_landmarks, len(mask)), 2, 0)
    around = [one for place, one in enumerate(window) if place != REACH]
    return np.dstack([window[REACH], match_colour(reference, background, mask), mask, np.maximum(lips // 2, inside), *around])
