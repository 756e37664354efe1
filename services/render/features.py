"""What the refine network is shown: shared by training and serving, so that both see the same.

Pictures are uint8 RGB in render-box pixels; the mask is 255 where the face is to be replaced.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.crops import BOX_SIZE, CHEEKS_BOTTOM
from services.common.landmarks import LIPS_OUTER, NUM_LIPS
from services.render.types import Float32, UInt8

NUM_PICTURE_CHANNELS: Final = 9
"""Masked background RGB, texture RGB, mask, wanted lips, wanted inside of the mouth."""

_RING_PX: Final = 25
_CELL_PX: Final = 8
_SPREAD_CELLS: Final = 3.5
_ROBUST_LEVELS: Final = 8.0
_PRIOR_WEIGHT: Final = 0.05
_NOISE_LEVELS: Final = 1.0
_MAX_OFFSET_LEVELS: Final = 60.0
_SHIFT: Final = 4


def match_colour(texture: UInt8, background: UInt8, mask: UInt8, known: npt.NDArray[np.bool_] | None = None) -> UInt8:
    """Bring the texture's light and colour to those of the background around the mask: uint8 [160, 160, 3].

    The difference of both is taken on the cheeks, on a ring of 12 px just outside the mask: first its median (less one level, which
    is noise), then what deviates from it, spread inwards smoothly (normalised convolution on cells of 8 px; Knutsson and Westin
    1993), so that the texture also follows light that varies over the face. Pixels that differ much, such as hair, count little.
    Nothing under the mask is looked at.

    Args:
        texture: uint8 [160, 160, 3].
        background: uint8 [160, 160, 3].
        mask: uint8 [160, 160].
        known: bool [160, 160], where the texture shows anything; None: everywhere.
    """
    covered = (mask > 0).view(np.uint8)
    ring = cv2.dilate(covered, np.ones((_RING_PX, _RING_PX), np.uint8)) - covered
    if known is not None:
        ring = ring * known
    # Every second pixel is plenty, and four times as fast.
    seen = (slice(0, CHEEKS_BOTTOM, 2), slice(None, None, 2))
    ring = ring[seen]
    if not ring.any():
        return texture
    difference = background[seen].astype(np.float32) - texture[seen]
    median = np.median(difference[ring > 0], axis=0)
    median = np.sign(median) * np.maximum(np.abs(median) - _NOISE_LEVELS, 0.0)
    difference -= median
    weight = ring / (1.0 + (np.abs(difference).mean(axis=2) / _ROBUST_LEVELS) ** 2)
    stacked = np.dstack([difference * weight[:, :, None], weight]).astype(np.float32)
    cells = np.zeros((BOX_SIZE // _CELL_PX, BOX_SIZE // _CELL_PX, 4), np.float32)
    rows = CHEEKS_BOTTOM // _CELL_PX
    cells[:rows] = cv2.resize(stacked, (len(cells), rows), interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(cells, (0, 0), _SPREAD_CELLS, borderType=cv2.BORDER_REPLICATE)
    offset = median + spread[:, :, :3] / (spread[:, :, 3:] + _PRIOR_WEIGHT)
    offset = np.clip(offset, -_MAX_OFFSET_LEVELS, _MAX_OFFSET_LEVELS).astype(np.float32)
    smooth = cv2.resize(offset, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.add(texture, smooth, dtype=cv2.CV_8U), dtype=np.uint8)


def lip_pictures(box_landmarks: Float32) -> UInt8:
    """Wanted lips and wanted inside of the mouth, filled: uint8 [160, 160, 2], 255 inside.

    Args:
        box_landmarks: float32 [59, 2], box pixels.
    """
    points = np.rint(np.clip(box_landmarks[:NUM_LIPS], -BOX_SIZE, 2 * BOX_SIZE) * (1 << _SHIFT)).astype(np.int32)
    pictures = [np.zeros((BOX_SIZE, BOX_SIZE), np.uint8) for _ in range(2)]
    for picture, polygon in zip(pictures, (points[: len(LIPS_OUTER)], points[len(LIPS_OUTER) :]), strict=True):
        cv2.fillPoly(picture, [polygon], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return np.dstack(pictures)


def network_picture(background: UInt8, matched_texture: UInt8, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """Channels of one frame: uint8 [160, 160, 9], in the order of NUM_PICTURE_CHANNELS.

    The background is black wherever the mask is above 0, its soft border included: what is to be replaced must not shine through.

    Args:
        background: uint8 [160, 160, 3].
        matched_texture: uint8 [160, 160, 3], from `match_colour`.
        mask: uint8 [160, 160].
        box_landmarks: float32 [59, 2], wanted landmarks, box pixels.
    """
    picture = np.empty((BOX_SIZE, BOX_SIZE, NUM_PICTURE_CHANNELS), np.uint8)
    picture[..., :3] = cv2.bitwise_and(background, background, mask=(mask == 0).view(np.uint8))
    picture[..., 3:6] = matched_texture
    picture[..., 6] = mask
    picture[..., 7:] = lip_pictures(box_landmarks)
    return picture
