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
    """Return the weighted mean of pictures. Fine detail comes from the two best pictures with sharper weights, so that teeth stay
    sharp.

    Args:
        pictures: uint8 [K, 160, 160, 3], the best one first.
        weights: float32 [K], sum 1, never increasing.
    """
    if len(pictures) == 1:
        return np.asarray(pictures[0], dtype=np.uint8)
    mean = np.tensordot(weights, pictures.astype(np.float32), 1)
    sharper = weights[:_DETAIL_TEXTURES] ** _DETAIL_SHARPNESS
    sharp = np.tensordot(sharper / sharper.sum(), pictures[:_DETAIL_TEXTURES].astype(np.float32), 1)
    detail = sharp - mean
    mixed = mean + detail - cv2.GaussianBlur(detail, (0, 0), _DETAIL_SIGMA)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), dtype=np.uint8)
