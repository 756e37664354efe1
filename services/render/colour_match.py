"""A picture brought to the light and the colour of a frame. Training and serving share it.

Pictures are uint8 RGB in render-box pixels; the mask is above 0 where the face is to be replaced.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Bool, UInt8
from services.common.face.crops import BOX_SIZE, CHEEKS_BOTTOM

_RING_PX: Final = 12
_CELL_PX: Final = 8
_SPREAD_CELLS: Final = 3.5
_ROBUST_LEVELS: Final = 8.0
_PRIOR_WEIGHT: Final = 0.05
_NOISE_LEVELS: Final = 1.0
_MAX_OFFSET_LEVELS: Final = 60.0


def match_colour(texture: UInt8, background: UInt8, mask: UInt8, known: Bool | None = None) -> UInt8:
    """Bring the texture's light and colour to those of the background around the mask: uint8 [H, W, 3].

    The difference of both is taken on the cheeks, on a ring just outside the mask: first its median (less one level, which is
    noise), then what deviates from the median, spread inwards smoothly (normalised convolution on cells; Knutsson and Westin
    1993), so that the texture also follows light that varies over the face. Pixels that differ much, such as hair, count little.
    No pixel under the mask is read. In a box of 160 pixels the ring is 12 pixels wide and a cell has 8; both grow with the box.

    Args:
        texture: uint8 [H, W, 3].
        background: uint8 [H, W, 3].
        mask: uint8 [H, W].
        known: bool [H, W], where the texture shows anything; None: everywhere.
    """
    size = len(mask)
    multiple = size // BOX_SIZE
    cheeks, num_cells = CHEEKS_BOTTOM * multiple, BOX_SIZE // _CELL_PX
    covered = (mask > 0).view(np.uint8)
    reach = 2 * _RING_PX * multiple + 1
    ring = cv2.dilate(covered, np.ones((reach, reach), np.uint8)) - covered
    if known is not None:
        ring = ring * known
    # Every second pixel is plenty, and four times as fast.
    seen = (slice(0, cheeks, 2 * multiple), slice(None, None, 2 * multiple))
    ring = ring[seen]
    if not ring.any():
        return texture
    difference = background[seen].astype(np.float32) - texture[seen]
    median = np.median(difference[ring > 0], axis=0)
    median = np.sign(median) * np.maximum(np.abs(median) - _NOISE_LEVELS, 0.0)
    difference -= median
    weight = ring / (1.0 + (np.abs(difference).mean(axis=2) / _ROBUST_LEVELS) ** 2)
    stacked = np.dstack([difference * weight[:, :, None], weight]).astype(np.float32)
    cells = np.zeros((num_cells, num_cells, 4), np.float32)
    rows = CHEEKS_BOTTOM // _CELL_PX
    cells[:rows] = cv2.resize(stacked, (num_cells, rows), interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(cells, (0, 0), _SPREAD_CELLS, borderType=cv2.BORDER_REPLICATE)
    offset = median + spread[:, :, :3] / (spread[:, :, 3:] + _PRIOR_WEIGHT)
    offset = np.clip(offset, -_MAX_OFFSET_LEVELS, _MAX_OFFSET_LEVELS).astype(np.float32)
    smooth = cv2.resize(offset, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.add(texture, smooth, dtype=cv2.CV_8U), dtype=np.uint8)
