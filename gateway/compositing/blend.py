"""Blends a rendered box with the footage's own, so that no seam is seen (Burt and Adelson 1983, Laplacian pyramids).

    blend = sum over levels l of  up(  G_l(m) L_l(rendered) + (1 - G_l(m)) L_l(original)  )
    box   = original + s (blend - original)

L are Laplacian and G Gaussian pyramids. Coarse levels blend over a wide band, fine ones over a narrow one. The pyramid
reaches beyond the mask m; the support weight s, which falls to 0 at the edge of m's support, keeps every pixel outside
as it was.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.errors import ContractBroken

Float32 = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8] | Float32

DEFAULT_LEVELS: Final = 4
"""Pyramid levels: the coarsest blends over about 2^4 pixels of the box."""
SUPPORT_FEATHER_PX: Final = 4.0
"""Width of the rim in which the blend gives way to the footage, box pixels."""


def laplacian_blend(rendered: Picture, original: Picture, mask: Float32, levels: int = DEFAULT_LEVELS) -> Float32:
    """The box that is put into the frame.

    Args:
        rendered: RGB [rows, columns, 3], uint8 or float32 in 0 to 255.
        original: the footage's own box, of the same shape.
        mask: float32 [rows, columns] in [0, 1]; 1 where the rendered box shows, 0 outside the hull.
        levels: of the pyramid.

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
    """0 outside the support of `mask`, rising smoothly to 1 within `feather_px` pixels inside of its edge; float32
    [rows, columns].
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
