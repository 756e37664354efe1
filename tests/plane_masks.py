"""Masks of single planes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gateway.compositing.planes import weight_at
from gateway.media.pixels import PixelFormat
from services.common.array_types import Bool, Float32, Float64

LEAST_ALPHA = 1.0 / 512
"""Weight below which a sample keeps its value."""


def plane_masks(
    pixel: PixelFormat, shape: tuple[int, int], coded_from_box: Float64, mask: Float32, shift: Float32 | None = None
) -> list[Bool]:
    """Return the samples of each colour plane that a composite may change, bool [rows, columns] each: those of the cells (luma
    samples that share a chroma sample) that the mask or the shift touches.

    Args:
        shape: rows and columns of the luma plane.
        coded_from_box, mask, shift: as `composite` takes them.
    """
    step_x, step_y = pixel.chroma_step if pixel.kind == "yuv" else (1, 1)
    (height, width), (rows, columns) = shape, pixel.plane_shape(1, shape[1], shape[0]) if pixel.kind == "yuv" else shape
    touched = weight_at(mask.astype(np.float32), coded_from_box, (height, width)) >= LEAST_ALPHA
    if shift is not None:
        touched |= (weight_at(shift, coded_from_box, (height, width)) != 0).any(axis=-1)
    whole: npt.NDArray[np.bool_] = np.zeros((rows * step_y, columns * step_x), np.bool_)
    whole[:height, :width] = touched
    cells = whole.reshape(rows, step_y, columns, step_x).any(axis=(1, 3))
    luma = np.repeat(np.repeat(cells, step_y, 0), step_x, 1)[:height, :width]
    return [cells if number and pixel.kind == "yuv" else luma for number in range(pixel.num_colour_planes)]
