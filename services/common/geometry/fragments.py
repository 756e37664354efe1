"""Input and output of a rasteriser: vertices on a grid, and the fragments of the pictures."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, Floating, Int32

Cull = Literal["none", "back"]

_GRID: Final = float(1 << 24)


class Fragments(NamedTuple):
    """Surface points that the pixels of N pictures show.

    Attributes:
        triangle_index: int32 [N, H, W], row of `triangles`; -1: background.
        barycentrics: float32 [N, H, W, 3], 0..1, weights of that triangle's vertices in the triangle's order; background 0.
        depth: float32 [N, H, W], unit of the given depth; background infinity.
    """

    triangle_index: Int32
    barycentrics: Float32
    depth: Float32

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Mask of the surface, bool [N, H, W]: False on the background."""
        return np.asarray(self.triangle_index >= 0)


def on_grid(vertices: Floating) -> Float64:
    """Return the vertices, float64, rounded to multiples of 2**-24 pixel.

    float32 numbers of absolute value 1 or more are multiples of 2**-24 already.
    """
    scaled = np.asarray(vertices, dtype=np.float64) * _GRID
    return np.ascontiguousarray(np.rint(scaled) / _GRID)
