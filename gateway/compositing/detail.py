"""A rendered box at the footage's own resolution: the box, enlarged, with the fine detail of the person's own frames.

See services/common/face/mouth_detail.py for the two-band blend. An actor may have been learned from sharper footage than the film
that is dubbed, and the film may be out of focus or blurred by motion. So the detail is weakened if it is richer than the detail
that the film's own frame has under the mask.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from gateway.media.pixels import ColourModel
from gateway.media.types import Plane
from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_detail import NO_DETAIL, enlarged, fine_band, luma_of

_RICHEST: Final = 1.25
"""Largest ratio of the detail's root mean square to that of the film's own frame."""


def box_with_detail(box: UInt8, detail: UInt8, mask: Float32, own: Float32) -> UInt8:
    """Return a rendered box with detail, uint8 [160 S, 160 S, 3], RGB.

    Args:
        box: uint8 [160, 160, 3], RGB.
        detail: uint8 [160 S, 160 S], fine band of a luma plus 128; S >= 1 pixels per box pixel.
        mask: float32 [160 S, 160 S], weight of the box in the frame, 0 to 1.
        own: float32 [160 S, 160 S], luma of the film's own frame, 0 to 255.
    """
    scale = len(detail) // BOX_SIZE
    large = enlarged(box, scale)
    wanted = detail.astype(np.float32) - NO_DETAIL
    wanted *= _gain(wanted, fine_band(own, scale), mask)
    change = wanted - fine_band(luma_of(large), scale)
    return np.asarray(np.clip(np.rint(large + change[..., None]), 0, 255), np.uint8)


def luma_under_box(luma: Plane, bits: int, colour: ColourModel, coded_from_native: Float64, side: int) -> Float32:
    """Return the luma of a frame at the pixels of a box, float32 [side, side], 0 to 255.

    Args:
        luma: the frame's first plane.
        bits: bits per sample.
        colour: colour model of the stream; says where black and white are.
        coded_from_native: float64 [2, 3], pixels of the box -> coded luma samples.
        side: pixels of the box.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(luma, coded_from_native, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    white = (1 << bits) - 1 if colour.full_range else 219 << (bits - 8)
    return np.asarray(seen.astype(np.float32) * np.float32(255.0 / white), np.float32)


def _gain(detail: Float32, own: Float32, mask: Float32) -> np.float32:
    rich = float((mask * detail * detail).sum(dtype=np.float64))
    seen = float((mask * own * own).sum(dtype=np.float64))
    return np.float32(min(1.0, _RICHEST * np.sqrt(seen / rich))) if rich > 0 else np.float32(1.0)
