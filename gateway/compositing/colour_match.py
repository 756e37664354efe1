"""Matches the colours of a rendered box to the footage around the mouth.

In the ring between the inner and the outer mask, down to the end of the cheeks, both pictures show the same skin, so their colours
there should agree. Further down they need not: where the footage's jaw hangs lower than the wanted one, it has skin where the
render has the neck's shadow.

1. an offset a channel, the median difference over the ring. No gain: what the ring's contrast says of one channel or another
(an edge of the jaw, a collar) would tint the lips;
2. what remains at low frequency (a light from one side), as a smooth field by normalised convolution (Knutsson and
Westin 1993):
   field = blur(w d) / blur(w), d = original - rendered in the ring, w the ring's robust weights.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.crops import CHEEKS_BOTTOM
from services.common.errors import ContractBroken

Float32 = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8] | Float32

_LEAST_RING_PX: Final = 64
_FIELD_SIGMA_PX: Final = 20.0
_SHRINK: Final = 4
_KNOWN_SHARE: Final = 0.02
"""Where the ring makes up less than this share of the neighbourhood, the field is not trusted."""
_FIELD_LIMIT: Final = 16.0
"""The field is never larger than this (of 255): beyond it, ring and render show different things."""
_OUTLIER: Final = 4.0
"""Pixels that differ by more than this many robust standard deviations from the ring's median difference are left
out.
"""
_MAD_TO_SIGMA: Final = 1.4826


def match_colour(rendered: Picture, original: Picture, inner: Float32, outer: Float32) -> Float32:
    """The rendered box in the footage's colours.

    Args:
        rendered: RGB [rows, columns, 3], uint8 or float32 in 0 to 255.
        original: the footage's own box, of the same shape.
        inner: float32 [rows, columns]; > 0 where only the render counts (mouth and moving jaw).
        outer: float32 [rows, columns]; > 0 within the hull. The ring is outer without inner, above row CHEEKS_BOTTOM; under 64
            pixels nothing is changed.

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


def _smooth_field(difference: Float32, ring: npt.NDArray[np.bool_]) -> Float32:
    inside = difference[ring]
    centre = np.median(inside, 0)
    deviation = np.abs(inside - centre)
    sigma = np.maximum(_MAD_TO_SIGMA * np.median(deviation, 0), 1.0)
    weight = np.zeros(ring.shape, np.float32)
    weight[ring] = (deviation <= _OUTLIER * sigma).all(1)
    weighted = _blurred(np.dstack([difference * weight[..., None], weight]))
    total = weighted[..., 3:]
    field = weighted[..., :3] / np.maximum(total, 1e-6)
    # Far from the ring nothing is known: the field fades to none.
    known = np.clip(total / np.float32(_KNOWN_SHARE), 0.0, 1.0)
    return np.asarray(np.clip(field * known, -_FIELD_LIMIT, _FIELD_LIMIT), np.float32)


def _blurred(picture: Float32) -> Float32:
    """Gaussian of _FIELD_SIGMA_PX, taken on a quarter of the size: the field has nothing finer."""
    rows, columns = picture.shape[:2]
    small = cv2.resize(picture, (-(-columns // _SHRINK), -(-rows // _SHRINK)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _FIELD_SIGMA_PX / _SHRINK, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
