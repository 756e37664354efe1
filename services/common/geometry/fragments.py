"""Input and output of a rasteriser: vertices on a grid, the fragments of the pictures, and the vertices that a camera sees."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, Floating, Int32

Cull = Literal["none", "back"]

_GRID: Final = float(1 << 24)
DEPTH_TOLERANCE = 0.01
"""Largest distance of a visible vertex behind the z-buffer, as a share of the mesh's depth range: depth varies within a pixel."""


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


def visible_vertices(
    fragments: Fragments,
    vertices: Floating,
    depth: Floating,
    triangles: Int32,
) -> npt.NDArray[np.bool_]:
    """Return bool [N, V]: whether each vertex is inside the picture, turned to the camera, and not behind another part of the mesh.

    A vertex is turned to the camera if the triangles around the vertex, summed up, are counter-clockwise on screen (the side that
    cull="back" keeps). A vertex is not behind if one of the four pixels around the vertex shows nothing nearer than the vertex.

    Args:
        fragments: result of `rasterise` for N pictures.
        vertices: [N, V, 2], pixels.
        depth: [N, V].
        triangles: int32 [F, 3].
    """
    height, width = fragments.triangle_index.shape[1:]
    seen = np.zeros(depth.shape, bool)
    for item, (points, z) in enumerate(zip(vertices, depth, strict=True)):
        inside = np.isfinite(points).all(1) & np.isfinite(z)
        inside &= (points >= -0.5).all(1) & (points[:, 0] <= width - 0.5) & (points[:, 1] <= height - 0.5)
        if not inside.any():
            continue
        inside &= facing(points, triangles)
        finite = z[np.isfinite(z)]
        slack = DEPTH_TOLERANCE * float(finite.max() - finite.min())
        seen[item] = inside & not_behind(fragments.depth[item], np.where(inside[:, None], points, 0.0), z, slack)
    return seen


def not_behind(z_buffer: Floating, points: Floating, depth: Floating, slack: float) -> npt.NDArray[np.bool_]:
    """Return bool [P]: whether one of the four pixels around each point shows nothing nearer than the point by more than `slack`.

    Args:
        z_buffer: [H, W], background infinity.
        points: [P, 2], pixels, finite.
        depth: [P].
        slack: in the unit of depth.
    """
    height, width = z_buffer.shape
    left, top = np.floor(points).astype(np.int64).T
    around = [
        z_buffer[np.clip(top + down, 0, height - 1), np.clip(left + right, 0, width - 1)] for down in (0, 1) for right in (0, 1)
    ]
    return np.asarray(depth <= np.stack(around).max(0) + slack)


def facing(vertices: Floating, triangles: Int32) -> npt.NDArray[np.bool_]:
    """Return bool [V]: whether the triangles around each vertex, by their area on screen, are counter-clockwise.

    Args:
        vertices: [V, 2], pixels.
        triangles: int32 [F, 3].
    """
    corners = np.asarray(vertices, dtype=np.float64)[triangles]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    clockwise = np.nan_to_num(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    total = np.bincount(triangles.ravel(), weights=np.repeat(clockwise, 3), minlength=len(vertices))
    return np.asarray(total < 0.0)
