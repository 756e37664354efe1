"""Resampling of the render box at the samples of a plane: its picture, and weights and offsets."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, Float64

_SHARP_FROM: Final = 0.6
"""Scale below which a picture is smoothed before resampling, against aliasing."""


def picture_at(picture: Float32, mapping: Float64, shape: tuple[int, ...]) -> Float32:
    """Return a picture at the samples of a window of a plane, by cubic interpolation.

    Linear interpolation takes a fifth to a third of the energy of the finest structures (docs/decisions/0010-native-detail.md).

    Args:
        picture: float32 [rows, columns]. Beyond its border the edge pixels are repeated.
        mapping: float64 [2, 3], pixels of the picture -> samples of the window.
        shape: rows and columns of the window.
    """
    scale = float(np.sqrt(abs(np.linalg.det(mapping[:, :2]))))
    if scale < _SHARP_FROM:
        # Variance of a box filter as wide as one sample of the plane, minus the variance of a box filter of one box pixel.
        sigma = float(np.sqrt((1.0 / scale**2 - 1.0) / 12.0))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)
    return _warped(picture, mapping, shape, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def weight_at(weight: Float32, mapping: Float64, shape: tuple[int, ...]) -> Float32:
    """Return weights or offsets, which are smooth, at the samples of a window of a plane, by linear interpolation.

    Args:
        weight: float32 [rows, columns] or [rows, columns, C]. Beyond its border it is 0.
        mapping: float64 [2, 3], pixels of the weights -> samples of the window.
        shape: rows and columns of the window.
    """
    return _warped(weight, mapping, shape, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)


def _warped(picture: Float32, mapping: Float64, shape: tuple[int, ...], method: int, border: int) -> Float32:
    size = (int(shape[1]), int(shape[0]))
    return np.asarray(cv2.warpAffine(picture, mapping, size, flags=method, borderMode=border, borderValue=0.0), np.float32)
