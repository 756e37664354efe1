"""Picture metrics of one frame: PSNR, SSIM, MS-SSIM, sharpness, photometric error. Peak value 255 throughout.

SSIM after Wang, Bovik, Sheikh, Simoncelli 2004 (Gaussian window 11 x 11, sigma 1.5), MS-SSIM after Wang, Simoncelli,
Bovik 2003 (five scales); both per colour channel, then averaged. The windows lie wholly inside the picture.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np

from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import ANCHOR_IN_CROP, BOX_ORIGIN, BOX_SIZE

MOUTH_BOX_WIDTH: Final = 104
MOUTH_BOX_HEIGHT: Final = 80
PSNR_CEILING_DB: Final = 100.0
"""PSNR of equal pictures, which is infinite, counts as this in means."""

_WINDOW: Final = 11
_SIGMA: Final = 1.5
_C1: Final = (0.01 * 255.0) ** 2
_C2: Final = (0.03 * 255.0) ** 2
_MS_WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def mouth_box(crops: UInt8) -> UInt8:
    """The 104 x 80 mouth box of face crops, centred on (128, 160): uint8 [..., 256, 256, 3] -> [..., 80, 104, 3]."""
    x, y = int(ANCHOR_IN_CROP[0]), int(ANCHOR_IN_CROP[1])
    rows = slice(y - MOUTH_BOX_HEIGHT // 2, y + MOUTH_BOX_HEIGHT // 2)
    columns = slice(x - MOUTH_BOX_WIDTH // 2, x + MOUTH_BOX_WIDTH // 2)
    return crops[..., rows, columns, :]


def psnr_db(truth: UInt8, result: UInt8) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures of one shape, decibels, at most 100."""
    error = float(np.square(truth.astype(np.float32) - result.astype(np.float32)).mean(dtype=np.float64))
    if error == 0.0:
        return PSNR_CEILING_DB
    return min(PSNR_CEILING_DB, 10.0 * float(np.log10(255.0**2 / error)))


class _Similarity(NamedTuple):
    luminance: float
    """Mean of luminance x contrast x structure: the SSIM."""
    contrast: float
    """Mean of contrast x structure alone."""


def _blur(picture: Float32) -> Float32:
    blurred = cv2.GaussianBlur(picture, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT)
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))
    return np.asarray(blurred[inside, inside], dtype=np.float32)


def _changed(truth: Float32, result: Float32) -> tuple[slice, slice]:
    """Rows and columns that hold every window in which two pictures differ; empty where they are equal."""
    height, width, channels = truth.shape
    differs = (truth != result).reshape(height, width * channels)
    by_row, by_column = differs.any(axis=1), differs.any(axis=0).reshape(width, channels).any(axis=1)
    spans: list[slice] = []
    for changed in (by_row, by_column):
        known = np.flatnonzero(changed)
        if not len(known):
            return slice(0), slice(0)
        # A window reaches 5 px to either side; _blur drops 5 px more at the border of what it is given.
        start, stop = int(known[0]) - (_WINDOW - 1), int(known[-1]) + _WINDOW
        spans.append(slice(max(0, start), min(len(changed), stop)))
    return spans[0], spans[1]


def _similarity(truth: Float32, result: Float32) -> _Similarity:
    # Most of a crop is equal before and after a dub. Equal windows have similarity 1 and are not computed.
    rows, columns = _changed(truth, result)
    if rows.stop == 0:
        return _Similarity(1.0, 1.0)
    total = (truth.shape[0] - _WINDOW + 1) * (truth.shape[1] - _WINDOW + 1)
    share = (rows.stop - rows.start - _WINDOW + 1) * (columns.stop - columns.start - _WINDOW + 1) / total
    inside = _similarity_everywhere(truth[rows, columns], result[rows, columns])
    return _Similarity(1.0 - share + share * inside.luminance, 1.0 - share + share * inside.contrast)


def _similarity_everywhere(truth: Float32, result: Float32) -> _Similarity:
    # Second moments are taken about mid-grey to keep float32 precise. The offset does not change the variances of SSIM.
    a, b = truth - 127.5, result - 127.5
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a * mean_a
    variance_b = _blur(b * b) - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    contrast = (2.0 * covariance + _C2) / (variance_a + variance_b + _C2)
    level_a, level_b = mean_a + 127.5, mean_b + 127.5
    luminance = (2.0 * level_a * level_b + _C1) / (level_a * level_a + level_b * level_b + _C1)
    return _Similarity(float((luminance * contrast).mean(dtype=np.float64)), float(contrast.mean(dtype=np.float64)))


def ssim(truth: UInt8, result: UInt8) -> float:
    """Return the structural similarity of two uint8 [H, W, 3] pictures, H and W >= 11; 1 for equal pictures."""
    return _similarity(truth.astype(np.float32), result.astype(np.float32)).luminance


class Similarities(NamedTuple):
    """SSIM and MS-SSIM of two pictures; 1 for equal ones."""

    ssim: float
    ms_ssim: float


def similarities(truth: UInt8, result: UInt8) -> Similarities:
    """Return SSIM and multi-scale SSIM of two uint8 [H, W, 3] pictures, H and W >= 176; the first scale is shared."""
    a, b = truth.astype(np.float32), result.astype(np.float32)
    product, first = 1.0, 1.0
    for scale, weight in enumerate(_MS_WEIGHTS):
        similarity = _similarity(a, b)
        first = similarity.luminance if scale == 0 else first
        last = scale == len(_MS_WEIGHTS) - 1
        factor = similarity.luminance if last else similarity.contrast
        product *= max(0.0, factor) ** weight
        if not last:
            half = (a.shape[1] // 2, a.shape[0] // 2)
            a = np.asarray(cv2.resize(a, half, interpolation=cv2.INTER_AREA), np.float32)
            b = np.asarray(cv2.resize(b, half, interpolation=cv2.INTER_AREA), np.float32)
    return Similarities(first, product)


def gradient_energy(picture: UInt8) -> float:
    """Return the mean squared Sobel gradient of the luma (Tenengrad, Krotkov 1988), a measure of detail; uint8 [H, W, 3]."""
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    horizontal = cv2.Sobel(luma, cv2.CV_32F, 1, 0, ksize=3)
    vertical = cv2.Sobel(luma, cv2.CV_32F, 0, 1, ksize=3)
    return float((horizontal * horizontal + vertical * vertical).mean(dtype=np.float64))


def photometric_error(truth: UInt8, result: UInt8) -> float:
    """Return the mean over pixels of the Euclidean RGB distance, 0 to 442 (Song et al. 2023, Sec. IV, Fig. 11); uint8 [H, W, 3]."""
    difference = truth.astype(np.float32) - result.astype(np.float32)
    return float(np.sqrt(np.square(difference).sum(axis=-1)).mean(dtype=np.float64))


def mean_absolute_difference(before: UInt8, after: UInt8) -> float:
    """Return the mean of |after - before| over pixels and channels of two uint8 pictures, 0 .. 255."""
    return float(cv2.absdiff(before, after).mean(dtype=np.float64))


def skin_difference(before: UInt8, after: UInt8) -> float:
    """Return the mean of |after - before|, 0 .. 255, over the skin beside the mouth: the render box without the mouth box.

    Args:
        before: uint8 [256, 256, 3], a face crop.
        after: uint8 [256, 256, 3], the crop of the next frame.
    """
    x, y = BOX_ORIGIN
    region = (slice(y, y + BOX_SIZE), slice(x, x + BOX_SIZE))
    difference = cv2.absdiff(before[region], after[region])
    mouth = cv2.absdiff(mouth_box(before), mouth_box(after))
    return float(difference.sum(dtype=np.int64) - mouth.sum(dtype=np.int64)) / (difference.size - mouth.size)


def finite_mean(values: Float64) -> float:
    """Return the mean of the finite numbers; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
