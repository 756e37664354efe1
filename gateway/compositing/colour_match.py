"""Matching of a rendered box's colours to the footage around the mouth.

In the ring between the inner and the outer mask, down to the end of the cheeks, both pictures show the same skin, so their colours
should agree there. Below the cheeks they need not agree: if the footage's jaw hangs lower than the wanted jaw, the footage shows
skin where the render shows the shadow of the neck.

1. An offset per channel: the median difference over the ring. There is no gain, because the contrast in the ring (an edge of the
   jaw, a collar) differs between channels and would tint the lips.
2. A smooth field for the remaining difference of low frequency (a light from one side), by normalised convolution (Knutsson and
   Westin 1993): field = blur(w d) / blur(w), d = original - rendered in the ring, w = robust weights in the ring.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Bool, Float32, UInt8
from services.common.errors import ContractBroken
from services.common.face.crops import CHEEKS_BOTTOM

Picture = UInt8 | Float32

_LEAST_RING_PX: Final = 64
_FIELD_SIGMA_PX: Final = 20.0
_SHRINK: Final = 4
_KNOWN_SHARE: Final = 0.02
"""Share of the ring in a pixel's neighbourhood under which the field fades out."""
_FIELD_LIMIT: Final = 16.0
"""Largest value of the field, of 255. If the difference is larger, footage and render show different things."""
_OUTLIER: Final = 4.0
"""Robust standard deviations from the median difference of the ring beyond which a pixel is left out."""
_MAD_TO_SIGMA: Final = 1.4826


def match_colour(rendered: Picture, original: Picture, inner: Float32, outer: Float32) -> Float32:
    """Return the rendered box in the footage's colours.

    Args:
        rendered: RGB [rows, columns, 3], uint8 or float32 in 0 to 255.
        original: the footage's own box, of the same shape.
        inner: float32 [rows, columns]; > 0 where only the render counts (mouth and moving jaw).
        outer: float32 [rows, columns]; > 0 within the hull of the lower face. The ring is outer without inner, above row
            CHEEKS_BOTTOM. If the ring has fewer than 64 pixels, the colours do not change.

    Returns:
        float32 [rows, columns, 3] in 0 to 255.

    Raises:
        ContractBroken: shapes that do not match.
    """
    if rendered.shape != original.shape or not rendered.shape[:2] == inner.shape == outer.shape:
        raise ContractBroken(
            f"rendered {rendered.shape}, original {original.shape}, masks {inner.shape} {outer.shape} do not match"
        )
    source, target = np.asarray(rendered, np.float32), np.asarray(original, np.float32)
    ring = (outer > 0) & ~(inner > 0)
    ring[CHEEKS_BOTTOM:] = False
    if int(ring.sum()) < _LEAST_RING_PX:
        return source
    levelled = source + np.median((target - source)[ring], axis=0)
    return np.asarray(np.clip(levelled + _smooth_field(target - levelled, ring), 0.0, 255.0), np.float32)


def _smooth_field(difference: Float32, ring: Bool) -> Float32:
    inside = difference[ring]
    centre = np.median(inside, 0)
    deviation = np.abs(inside - centre)
    sigma = np.maximum(_MAD_TO_SIGMA * np.median(deviation, 0), 1.0)
    weight = np.zeros(ring.shape, np.float32)
    weight[ring] = (deviation <= _OUTLIER * sigma).all(1)
    weighted = _blurred(np.dstack([difference * weight[..., None], weight]))
    total = weighted[..., 3:]
    field = weighted[..., :3] / np.maximum(total, 1e-6)
    # Far from the ring the field is unknown and fades to 0.
    known = np.clip(total / np.float32(_KNOWN_SHARE), 0.0, 1.0)
    return np.asarray(np.clip(field * known, -_FIELD_LIMIT, _FIELD_LIMIT), np.float32)


def _blurred(picture: Float32) -> Float32:
    """Return a picture blurred by a Gaussian of _FIELD_SIGMA_PX, computed at a quarter of the size to save time."""
    rows, columns = picture.shape[:2]
    small = cv2.resize(picture, (-(-columns // _SHRINK), -(-rows // _SHRINK)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _FIELD_SIGMA_PX / _SHRINK, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
