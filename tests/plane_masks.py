"""Masks of single planes."""

from __future__ import annotations

import numpy as np

from gateway.compositing.planes import PlaneMask
from services.common.array_types import Bool


def mask_of_plane(mask: PlaneMask, plane: int, shape: tuple[int, int]) -> Bool:
    """Return the mask of plane 0 (luma) or of plane 1 or 2 (chroma), bool [rows, columns] of the given shape."""
    step_x, step_y = mask.step if plane == 0 else (1, 1)
    cells = np.repeat(np.repeat(mask.cells, step_y, 0), step_x, 1)
    top, left = mask.y * step_y, mask.x * step_x
    whole = np.zeros((max(shape[0], top + cells.shape[0]), max(shape[1], left + cells.shape[1])), np.bool_)
    whole[top : top + cells.shape[0], left : left + cells.shape[1]] = cells
    return whole[: shape[0], : shape[1]]
