"""Figures of how near a drawn lower face comes to the footage, in the mouth box of 104 x 80 px round the lips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import NUM_LIPS

MOUTH_BOX: Final = (104, 80)
"""Width and height of the mouth box, box pixels."""
_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2
_WINDOW_SIGMA: Final = 1.5


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one frame, or means over frames.

    Attributes:
        psnr_db: PSNR in the mouth box, RGB, decibels.
        ssim: SSIM in the mouth box, grey (Wang et al. 2004, Gaussian window of sigma 1.5).
        sharpness_ratio: variance of the Laplacian of the drawn mouth, divided by that of the filmed mouth.
    """

    psnr_db: float
    ssim: float
    sharpness_ratio: float


def mouth_slices(box_landmarks: npt.NDArray[np.floating]) -> tuple[slice, slice]:
    """Return rows and columns of the mouth box round the mean of the lips, inside the render box.

    Args:
        box_landmarks: float [59, 2], landmarks of the face, box pixels.
    """
    centre = box_landmarks[:NUM_LIPS].mean(axis=0)
    left, top = (
        int(np.clip(round(float(middle) - size / 2), 0, BOX_SIZE - size)) for middle, size in zip(centre, MOUTH_BOX, strict=True)
    )
    return slice(top, top + MOUTH_BOX[1]), slice(left, left + MOUTH_BOX[0])


def frame_quality(made: UInt8, truth: UInt8, box_landmarks: npt.NDArray[np.floating]) -> Quality:
    """Return the figures of one frame.

    Args:
        made: uint8 [160, 160, 3], the drawn face, blended.
        truth: uint8 [160, 160, 3], the footage.
        box_landmarks: float [59, 2], landmarks of the footage, box pixels.
    """
    rows, columns = mouth_slices(box_landmarks)
    got, want = made[rows, columns], truth[rows, columns]
    error = float(np.mean((got.astype(np.float64) - want) ** 2))
    grey_got, grey_want = (cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float64) for part in (got, want))
    return Quality(
        float(10.0 * np.log10(255.0**2 / max(error, 1e-6))),
        _ssim(grey_got, grey_want),
        _sharpness(grey_got) / _sharpness(grey_want),
    )


def mean_quality(frames: list[Quality]) -> Quality:
    """Return means over frames. The sharpness ratio is a geometric mean."""
    return Quality(
        float(np.mean([frame.psnr_db for frame in frames])),
        float(np.mean([frame.ssim for frame in frames])),
        float(np.exp(np.mean([np.log(frame.sharpness_ratio) for frame in frames]))),
    )


def _sharpness(grey: npt.NDArray[np.float64]) -> float:
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def _ssim(got: npt.NDArray[np.float64], want: npt.NDArray[np.float64]) -> float:
    def smooth(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(picture, (11, 11), _WINDOW_SIGMA))

    mean_got, mean_want = smooth(got), smooth(want)
    variance_got = smooth(got * got) - mean_got**2
    variance_want = smooth(want * want) - mean_want**2
    covariance = smooth(got * want) - mean_got * mean_want
    numerator = (2 * mean_got * mean_want + _C1) * (2 * covariance + _C2)
    denominator = (mean_got**2 + mean_want**2 + _C1) * (variance_got + variance_want + _C2)
    return float((numerator / denominator).mean())
