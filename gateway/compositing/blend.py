"""Blending of a rendered box with the footage's own box without a visible seam (Burt and Adelson 1983, Laplacian pyramids).

    blend = sum over levels l of  up(  G_l(m) L_l(rendered) + (1 - G_l(m)) L_l(original)  )
    box   = original + s (blend - original)

L are Laplacian pyramids and G are Gaussian pyramids. Coarse levels blend over a wide band, fine levels over a narrow band. The
pyramid reaches beyond the mask m. The support weight s falls to 0 at the edge of the support of m, so pixels outside do not change.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from gateway.compositing.colour_match import match_colour
from services.common.array_types import Float32, UInt8
from services.common.errors import ContractBroken

Picture = UInt8 | Float32

DEFAULT_LEVELS: Final = 4
"""Number of pyramid levels. The coarsest level blends over about 2^4 box pixels."""
SUPPORT_FEATHER_PX: Final = 4.0
"""Width of the rim in which the blend gives way to the footage, box pixels."""
_FULL: Final = 255
_MOUTH: Final = (slice(44, None), slice(34, 126))
"""Rows and columns of the render box with lips, chin and the skin that moves with them, where footage and render may differ. The
cheeks beside them are the same skin in both pictures, so their colours are matched under the whole mask: a narrow rim of the mask
alone would say little of the light on a cheek, and the cheek would flicker.
"""


def blend_box(rendered: UInt8, original: UInt8, mask: UInt8) -> UInt8:
    """Return a rendered box in the colours of the footage's own box, blended into the footage's own box.

    Args:
        rendered: RGB [rows, columns, 3].
        original: the footage's own box, RGB [rows, columns, 3].
        mask: [rows, columns]; 255 where the rendered box shows, 0 where the result equals `original`.

    Raises:
        ContractBroken: shapes that do not match.
    """
    soft = mask.astype(np.float32) / 255.0
    inner = np.zeros(mask.shape, np.float32)
    inner[_MOUTH] = mask[_MOUTH] == _FULL
    matched = match_colour(rendered, original, inner, soft)
    blended = laplacian_blend(matched, original, soft)
    return np.asarray(np.clip(np.rint(blended), 0, 255), np.uint8)


def laplacian_blend(rendered: Picture, original: Picture, mask: Float32, levels: int = DEFAULT_LEVELS) -> Float32:
    """Return the blend of a rendered box and the footage's own box.

    Args:
        rendered: RGB [rows, columns, 3], uint8 or float32 in 0 to 255.
        original: the footage's own box, of the same shape.
        mask: float32 [rows, columns] in [0, 1]; 1 where the rendered box shows, 0 outside the hull of the lower face.
        levels: number of pyramid levels.

    Returns:
        float32 [rows, columns, 3] in 0 to 255; equal to `original` wherever `mask` is 0.

    Raises:
        ContractBroken: shapes that do not match.
    """
    if rendered.shape != original.shape or rendered.shape[:2] != mask.shape:
        raise ContractBroken(f"rendered {rendered.shape}, original {original.shape} and mask {mask.shape} do not match")
    footage = np.asarray(original, np.float32)
    # Only the difference is blended: the pyramid is linear, so this equals blending both pictures, at half the cost.
    difference = np.asarray(rendered, np.float32) - footage
    blended = _blended_difference(difference, np.asarray(mask, np.float32), levels)
    weight = support_weight(mask)[..., None]
    return np.asarray(np.clip(footage + weight * blended, 0.0, 255.0), np.float32)


def support_weight(mask: Float32, feather_px: float = SUPPORT_FEATHER_PX) -> Float32:
    """Return float32 [rows, columns]: 0 outside the support of `mask`, rising smoothly to 1 within `feather_px` pixels from the
    edge of the support inwards.
    """
    inside = (mask > 0).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)
    ramp = np.clip(distance / np.float32(feather_px), 0.0, 1.0)
    return np.asarray(ramp * ramp * (3.0 - 2.0 * ramp), np.float32)


def _blended_difference(difference: Float32, mask: Float32, levels: int) -> Float32:
    current, weight = difference, mask
    bands: list[Float32] = []
    for _ in range(levels):
        smaller = np.asarray(cv2.pyrDown(current), np.float32)
        expanded = np.asarray(cv2.pyrUp(smaller, dstsize=(current.shape[1], current.shape[0])), np.float32)
        bands.append((current - expanded) * weight[..., None])
        current, weight = smaller, np.asarray(cv2.pyrDown(weight), np.float32)
    result = current * weight[..., None]
    for band in reversed(bands):
        result = np.asarray(cv2.pyrUp(result, dstsize=(band.shape[1], band.shape[0])), np.float32) + band
    return result
