"""A mesh drawn with attributes of its vertices, and the gradients of what was drawn: the differentiable rasteriser of the fits.

Two backends compute the same function. `numba` needs no torch: its gradients are the explicit derivatives of
rasterise_gradients_numba.py. `pytorch3d` takes the gradients of its own rasteriser through torch, and computes in float32 on the
GPU if torch finds one (rasterise_pytorch3d.py lists the other differences).

The triangle that a pixel shows is a step function of the vertices and is held fixed. Gradients therefore come from inside the
triangles. Outlines have none: landmarks hold the outline of a face in every fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64, Int32
from services.common.geometry.rasterise import Backend, rasterise


class SurfaceGradient(NamedTuple):
    """Gradient of a number with respect to what was drawn.

    Attributes:
        points: float64 [V, 2], per pixel.
        attributes: float64 [V, C].
    """

    points: Float64
    attributes: Float64


@dataclass(frozen=True, slots=True)
class DrawnSurface:
    """Drawn mesh.

    Attributes:
        values: float64 [H, W, C], attributes of the surface at every pixel; background 0.
        covered: bool [H, W].
        gradient: returns the gradient of a number whose gradient with respect to `values` is the argument, float64 [H, W, C].
    """

    values: Float64
    covered: npt.NDArray[np.bool_]
    gradient: Callable[[Float64], SurfaceGradient]


def draw_surface(
    points: Float64,
    depth: Float64,
    triangles: Int32,
    attributes: Float64,
    size: tuple[int, int],
    *,
    backend: Backend = "numba",
) -> DrawnSurface:
    """Draw one pose of a mesh under a weak-perspective camera. Triangles that are turned away are left out.

    Args:
        points: float64 [V, 2], pixels.
        depth: float64 [V], grows away from the camera; any unit.
        triangles: int32 [F, 3], in C order.
        attributes: float64 [V, C].
        size: height and width of the picture, pixels.
        backend: "numba", or "pytorch3d" if installed.

    Raises:
        ValueError: shapes do not match, or a triangle names a vertex that does not exist.
        BackendUnavailable: pytorch3d is not installed.
    """
    if len(attributes) != len(points):
        raise ValueError(f"{len(attributes)} rows of attributes don't fit {len(points)} vertices")
    if backend == "pytorch3d":
        from services.common.geometry.rasterise_pytorch3d import draw_with_pytorch3d

        drawn = draw_with_pytorch3d(points, depth, triangles, attributes, size)
        return DrawnSurface(drawn.values, drawn.covered, lambda wanted: SurfaceGradient(*drawn.gradient(wanted)))
    from services.common.geometry.rasterise_gradients_numba import interpolate_backward
    from services.common.geometry.rasterise_numba import interpolate_pixels, weights_at

    points, depth, attributes = (np.ascontiguousarray(each, np.float64) for each in (points, depth, attributes))
    fragments = rasterise(points[None], depth[None], triangles, *size, perspective=False, cull="back")
    index = fragments.triangle_index[0].reshape(-1)
    weights, values = np.empty((len(index), 3)), np.empty((len(index), attributes.shape[1]))
    weights_at(index, points, depth, triangles, False, size[1], weights)
    interpolate_pixels(index, weights, triangles, attributes, values)

    def gradient(wanted: Float64) -> SurfaceGradient:
        to_points, to_depth, to_attributes = np.zeros_like(points), np.zeros_like(depth), np.zeros_like(attributes)
        flat = np.ascontiguousarray(wanted.reshape(values.shape), np.float64)
        interpolate_backward(
            index,
            points,
            depth,
            triangles,
            False,
            size[1],
            triangles,
            attributes,
            weights,
            flat,
            to_points,
            to_depth,
            to_attributes,
        )
        return SurfaceGradient(to_points, to_attributes)

    return DrawnSurface(values.reshape(*size, -1), fragments.covered[0], gradient)
