"""One texture from retrieved bank frames: splines warp the frames to the wanted landmarks, then the frames are blended."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.face.mouth_bank import SMOOTHING, MouthBank, Retrieved
from services.common.face.thin_plate_spline import ThinPlateSpline, dense_map, evaluate_grid, fit_spline, warp

_DETAIL_SIGMA: Final = 1.5
_DETAIL_TEXTURES: Final = 2
_DETAIL_SHARPNESS: Final = 3.0
_SHRINK: Final = 2
_NEIGHBOURHOOD_PX: Final = 4.0
"""Standard deviation of the neighbourhood in which pictures are compared, box pixels."""
_AGREEMENT: Final = 10.0
"""Distance of a picture from the others, of 255, up to which the picture keeps its weight."""
_DISTRUST: Final = 6.0
"""Further distance, of 255, by which the weight falls to 1 / e."""


def fit_retrieved(bank: MouthBank, retrieved: Retrieved, wanted: Float32, residual: Float32 | None = None) -> ThinPlateSpline:
    """Return the splines of K retrieved frames side by side (D = 2 K).

    Args:
        bank: the bank.
        retrieved: K windows.
        wanted: float32 [86, 2], from `wanted_points`, box pixels.
        residual: float32 [K, 86, 2], correction of the source points by the temporal-warp network; None: no correction.
    """
    sources = bank.control_points[retrieved.rows[:, -1]]
    if residual is not None:
        sources = sources + residual
    return fit_spline(wanted, sources.transpose(1, 0, 2).reshape(len(wanted), -1), SMOOTHING)


def warp_retrieved(bank: MouthBank, retrieved: Retrieved, spline: ThinPlateSpline) -> npt.NDArray[np.uint8]:
    """Return the retrieved textures, warped and blended: uint8 [160, 160, 3].

    Args:
        bank: the bank.
        retrieved: K windows.
        spline: from `fit_retrieved`.
    """
    return warp_by_grids(bank, retrieved, evaluate_grid(spline))


def warp_by_grids(bank: MouthBank, retrieved: Retrieved, grids: Float32) -> npt.NDArray[np.uint8]:
    """Return the same as `warp_retrieved`, from the splines' coarse grids, float32 [GRID_SIZE, GRID_SIZE, 2 K]."""
    pictures = [
        warp(bank.boxes[row], dense_map(grids[..., 2 * place : 2 * place + 2])) for place, row in enumerate(retrieved.rows[:, -1])
    ]
    return blend(np.stack(pictures), retrieved.weights)


def blend(pictures: npt.NDArray[np.uint8], weights: Float32) -> npt.NDArray[np.uint8]:
    """Return the weighted mean of pictures. Where they agree, as on skin, the mean is free of noise and flicker.

    Where one picture shows teeth and another shows the dark of the mouth, a mean shows neither, but a grey veil. So a picture counts
    less where it differs from the others. Fine detail comes from the two best pictures with sharper weights, so that teeth stay sharp.

    Args:
        pictures: uint8 [K, 160, 160, 3], the best one first.
        weights: float32 [K], sum 1, never increasing.
    """
    if len(pictures) == 1:
        return np.asarray(pictures[0], dtype=np.uint8)
    local = _local_weights(pictures, weights)
    mean = _weighted(pictures, local)
    sharper = local[:_DETAIL_TEXTURES] ** _DETAIL_SHARPNESS
    detail = _weighted(pictures, sharper / sharper.sum(axis=0)) - mean
    mixed = mean + detail - cv2.GaussianBlur(detail, (0, 0), _DETAIL_SIGMA)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), dtype=np.uint8)


def _weighted(pictures: npt.NDArray[np.uint8], weights: Float32) -> Float32:
    """Return the sum of the first pictures times their weights, float32 [H, W, 3]; the weights are float32 [L, H, W], L <= K."""
    total = np.zeros(pictures.shape[1:], np.float32)
    for picture, weight in zip(pictures, weights, strict=False):
        total += picture * weight[..., None]
    return total


def _local_weights(pictures: npt.NDArray[np.uint8], weights: Float32) -> Float32:
    """Return the weights of the pictures at every pixel, float32 [K, H, W], sum 1.

    The weight of a picture falls with its distance from the others: the root of the mean squared difference in a neighbourhood,
    weighted with the weights of the others.
    """
    height, width = pictures.shape[1:3]
    small = np.stack(
        [cv2.resize(picture, (width // _SHRINK, height // _SHRINK), interpolation=cv2.INTER_AREA) for picture in pictures]
    )
    small = small.astype(np.float32)
    distance = np.zeros(small.shape[:3], np.float32)
    for one in range(len(small)):
        for other in range(one + 1, len(small)):
            squared = np.square(small[one] - small[other]).mean(axis=-1)
            apart = np.sqrt(cv2.GaussianBlur(squared, (0, 0), _NEIGHBOURHOOD_PX / _SHRINK))
            distance[one] += weights[other] * apart
            distance[other] += weights[one] * apart
    local = weights[:, None, None] * np.exp(-np.maximum(distance - _AGREEMENT, 0.0) / np.float32(_DISTRUST))
    local /= local.sum(axis=0)
    whole = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in local])
    return np.asarray(whole, np.float32)
