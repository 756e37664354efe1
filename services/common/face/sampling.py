"""Upright patches of a picture by a similarity, without aliasing in small patches and without jumps in moving patches."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

_MARGIN_PX: Final = 4


def sample_patch(
    picture: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
    size: tuple[int, int],
    *,
    interpolation: int = cv2.INTER_CUBIC,
) -> npt.NDArray[np.uint8]:
    """Return the patch of `picture` that `affine` maps onto a `size` picture.

    Shrinking by k: halved by areas on a grid fixed to the picture while k >= 2, then blurred with a Gaussian of 0.5 * sqrt(k^2 - 1)
    pixels, so that the result changes smoothly with scale and position. Beyond the border the edge pixels are repeated.

    Args:
        picture: uint8 [H, W, C] or [H, W].
        affine: float64 [2, 3], picture pixels to patch pixels (pixel centres at integers), a similarity.
        size: width and height of the patch.
        interpolation: OpenCV's flag.
    """
    linear = affine[:, :2]
    shrink = float(1.0 / np.sqrt(abs(np.linalg.det(linear))))
    if shrink <= 1.0:
        return _warp(picture, affine, size, interpolation)
    halvings = int(np.log2(shrink))
    step = 1 << halvings
    height, width = picture.shape[:2]
    corners = np.array([[0, 0], [size[0] - 1, 0], [0, size[1] - 1], [size[0] - 1, size[1] - 1]], dtype=np.float64)
    inside = (corners - affine[:, 2]) @ np.linalg.inv(linear).T
    margin = _MARGIN_PX * step + 2
    left, top = (int(np.floor((value - margin) / step)) * step for value in inside.min(0))
    right, bottom = (int(np.ceil((value + margin) / step)) * step for value in inside.max(0))
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, width // step * step), min(bottom, height // step * step)
    if right - left < step or bottom - top < step:  # the patch lies outside the picture: repeat the nearest pixels
        return _warp(picture, affine, size, interpolation)
    region: npt.NDArray[Any] = picture[top:bottom, left:right]
    if step > 1:
        region = cv2.resize(region, ((right - left) // step, (bottom - top) // step), interpolation=cv2.INTER_AREA)
    rest = shrink / step
    sigma = 0.5 * np.sqrt(rest * rest - 1.0)
    if sigma > 0.2:
        region = cv2.GaussianBlur(region, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    # Pixel u of the region is centred at left + (u + 0.5) * step - 0.5 of the picture.
    origin = np.array([left, top], dtype=np.float64) + 0.5 * step - 0.5
    return _warp(region, np.column_stack([linear * step, affine[:, 2] + linear @ origin]), size, interpolation)


def _warp(
    picture: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], size: tuple[int, int], interpolation: int
) -> npt.NDArray[np.uint8]:
    patch = cv2.warpAffine(picture, affine, size, flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(patch, dtype=np.uint8)
