"""The rasteriser: the triangle that every pixel shows, the barycentrics inside the triangle, the depth, and a drawn surface.

The definition, which the tests write out per pixel over all triangles:

* Vertices are in pixels (centres at integers, docs/coordinates.md), rounded to the nearest multiple of 2**-24 pixel. Depth grows
  away from the camera.
* A pixel belongs to a triangle if the pixel's centre lies inside. A centre on an edge belongs to the triangle whose left border or
  horizontal upper border the edge is (the top-left rule of graphics hardware). The decision is exact, so triangles that share an
  edge leave no seam and never cover a pixel twice.
* Of several triangles the pixel shows the nearest; of equally near triangles (as float32) the one with the lowest index.
* The camera is weak-perspective: depth and barycentrics are linear on the screen, and depth may have any sign.
* These triangles are left out: triangles without area; triangles with a coordinate or depth that is not finite; triangles whose
  absolute coordinates add up to more than 2**28 pixels; with cull="back", triangles that turn clockwise on screen. A triangle that
  turns counter-clockwise has its right-handed normal (b - a) x (c - a) towards the camera.

A texture is sampled at the point of the surface that a pixel shows.

Texture coordinates: u to the right and v **down**, 0..1 over the whole texture, so texel (row, column) is centred at
((column + 0.5) / width, (row + 0.5) / height). Files with v up (OBJ) are turned round when they are loaded.

`draw_surface` draws a mesh with attributes of its vertices, with the gradients of the drawn picture, for the fits.

Two backends compute the same function. `numba` needs no torch: its gradients are the explicit derivatives of
kernels.py. `pytorch3d` takes the gradients of its own rasteriser through torch, and computes in float32 on the
GPU if torch finds one (rasterise_pytorch3d.py lists the other differences).

The triangle that a pixel shows is a step function of the vertices and is held fixed. Gradients therefore come from inside the
triangles. Outlines have none: landmarks hold the outline of a face in every fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, Floating, Int32
from services.common.geometry.fragments import Cull, Fragments, on_grid

Backend = Literal["numba", "pytorch3d"]


def rasterise(
    vertices: Floating,
    depth: Floating,
    triangles: Int32,
    height: int,
    width: int,
    *,
    cull: Cull = "none",
    backend: Backend = "numba",
) -> Fragments:
    """Rasterise N poses of one mesh.

    Args:
        vertices: float32 or float64 [N, V, 2], pixels.
        depth: float32 or float64 [N, V], distance away from the camera; any unit.
        triangles: int32 [F, 3].
        height: height of the pictures, pixels.
        width: width of the pictures, pixels.
        cull: "back" leaves out triangles that turn clockwise on screen.
        backend: "numba", or "pytorch3d" if installed (rasterise_pytorch3d.py lists the differences).

    Raises:
        ValueError: shapes do not match, or a triangle names a vertex that does not exist.
        BackendUnavailableError: pytorch3d is not installed.
    """
    _check(vertices, depth, triangles, height, width)
    if backend == "pytorch3d":
        from services.common.geometry.rasterise_pytorch3d import rasterise_with_pytorch3d

        return rasterise_with_pytorch3d(vertices, depth, triangles, height, width, cull=cull)
    from services.common.geometry.kernels import rasterise_picture

    points, depth64 = on_grid(vertices), np.ascontiguousarray(depth, dtype=np.float64)
    triangles = np.ascontiguousarray(triangles, dtype=np.int32)
    count = len(points)
    fragments = Fragments(
        np.empty((count, height, width), np.int32),
        np.empty((count, height, width, 3), np.float32),
        np.empty((count, height, width), np.float32),
    )
    for item, outputs in enumerate(zip(*fragments, strict=True)):
        rasterise_picture(points[item], depth64[item], triangles, cull == "back", *outputs)
    return fragments


def interpolate(fragments: Fragments, attributes: Floating, corners: Int32) -> Float32:
    """Return attributes of the surface at every pixel: float32 [N, H, W, C]; background 0.

    Args:
        fragments: fragments of N pictures.
        attributes: float32 or float64 [N or 1, A, C].
        corners: int32 [F, 3], rows of `attributes`. For attributes of vertices these are the mesh's triangles. Attributes of
            corners, such as texture coordinates with seams, have a table of their own.

    Raises:
        ValueError: shapes do not match, or a corner names a row that does not exist.
    """
    from services.common.geometry.kernels import interpolate_pixels

    count, height, width = fragments.triangle_index.shape
    _check_corners(attributes, corners, count)
    if fragments.triangle_index.max(initial=-1) >= len(corners):
        raise ValueError(f"the fragments are of a mesh with more than {len(corners)} triangles")
    rows = np.ascontiguousarray(attributes, dtype=np.float64)
    corners = np.ascontiguousarray(corners, dtype=np.int32)
    result = np.empty((count, height, width, rows.shape[2]), np.float32)
    for item in range(count):
        values = np.empty((height * width, rows.shape[2]), np.float64)
        weights = fragments.barycentrics[item].reshape(-1, 3).astype(np.float64)
        interpolate_pixels(fragments.triangle_index[item].ravel(), weights, corners, rows[item % len(rows)], values)
        result[item] = values.reshape(height, width, -1)
    return result


def check_backend(backend: Backend) -> None:
    """Check that a backend can be used.

    Raises:
        BackendUnavailableError: pytorch3d is not installed.
    """
    if backend == "pytorch3d":
        from services.common.geometry.rasterise_pytorch3d import check_installed

        check_installed()


def warm_up(backend: Backend = "numba") -> None:
    """Compile the kernels (about one second), so that the first frame does not wait for the compiler.

    Args:
        backend: "pytorch3d" loads torch and pytorch3d too, which takes seconds.

    Raises:
        BackendUnavailableError: pytorch3d is not installed.
    """
    corner = np.array([[[0.0, 0.0], [0.0, 2.0], [2.0, 0.0]]], np.float32)
    triangle = np.array([[0, 1, 2]], np.int32)
    interpolate(rasterise(corner, np.ones((1, 3), np.float32), triangle, 2, 2, backend=backend), corner, triangle)


def _check_corners(attributes: Floating, corners: Int32, count: int) -> None:
    """Raise ValueError unless `corners` are rows of `attributes` and `attributes` are for `count` pictures or for one."""
    if attributes.ndim != 3 or len(attributes) not in {1, count}:
        raise ValueError(f"attributes must be [{count} or 1, A, C], not {list(attributes.shape)}")
    _check_indices(corners, attributes.shape[1])


def _check(vertices: Floating, depth: Floating, triangles: Int32, height: int, width: int) -> None:
    if vertices.ndim != 3 or vertices.shape[2] != 2 or depth.shape != vertices.shape[:2]:
        raise ValueError(f"want vertices [N, V, 2] and depth [N, V], not {list(vertices.shape)} and {list(depth.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height} x {width} pixels has none")
    _check_indices(triangles, vertices.shape[1])


def _check_indices(triangles: Int32, count: int) -> None:
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not np.issubdtype(triangles.dtype, np.integer):
        raise ValueError(f"triangles must be integers [F, 3], not {triangles.dtype} {list(triangles.shape)}")
    if triangles.size and not (triangles.min() >= 0 and triangles.max() < count):
        raise ValueError(f"triangles name vertices {triangles.min()}..{triangles.max()}, but there are {count}")


class UvMap(NamedTuple):
    """Unwrapped surface of a mesh.

    Attributes:
        fragments: fragments of one picture, the texture: each texel's triangle, and barycentrics on the surface.
        triangles: int32 [F, 3], rows of the vertices.
        uv: [A, 2], texture coordinates.
        corners: int32 [F, 3], rows of `uv`.
    """

    fragments: Fragments
    triangles: Int32
    uv: Floating
    corners: Int32

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the texture, texels."""
        return self.fragments.triangle_index.shape[1], self.fragments.triangle_index.shape[2]

    def positions(self, attributes: Floating) -> Float32:
        """Return attributes of vertices at every texel: float32 [N, H, W, C]; texels without surface are 0.

        For positions of vertices the result is a position map.

        Args:
            attributes: [N, V, C].
        """
        maps = [interpolate(self.fragments, each[None], self.triangles) for each in attributes]
        return (
            np.concatenate(maps)
            if maps
            else np.zeros((0, *self.fragments.triangle_index.shape[1:], attributes.shape[2]), np.float32)
        )


def uv_map(uv: Floating, corners: Int32, triangles: Int32, height: int, width: int, *, backend: Backend = "numba") -> UvMap:
    """Rasterise the mesh in texture space. Where triangles overlap, the triangle with the lowest index is kept.

    Args:
        uv: [A, 2], texture coordinates.
        corners: int32 [F, 3], rows of `uv`.
        triangles: int32 [F, 3], rows of the vertices.
        height: height of the texture, texels.
        width: width of the texture, texels.
        backend: as in `rasterise`.

    Raises:
        ValueError: shapes do not match, or a corner names a row that does not exist.
    """
    if corners.shape != triangles.shape:
        raise ValueError(f"{list(corners.shape)} corners don't fit {list(triangles.shape)} triangles")
    texels = texels_of(uv, height, width)[None]
    flat = np.zeros(texels.shape[:2])
    return UvMap(rasterise(texels, flat, corners, height, width, backend=backend), triangles, uv, corners)


def texels_of(uv: Floating, height: int, width: int) -> npt.NDArray[np.float64]:
    """Return texture coordinates [..., 2] converted to texels (centres at integers), float64."""
    return np.asarray(uv, dtype=np.float64) * np.array([width, height], np.float64) - 0.5


def sample_texture(texture: npt.NDArray[np.generic], uv: Floating) -> Float32:
    """Return the texture at points of the surface, float32 [..., C], by bilinear interpolation.

    Points beyond the outermost texel centres have the value of the nearest border.

    Args:
        texture: [H, W, C], uint8 or float.
        uv: [..., 2], texture coordinates, finite.
    """
    height, width = texture.shape[:2]
    return sample_picture(texture, texels_of(uv, height, width))


def sample_picture(picture: npt.NDArray[np.generic], pixels: Floating) -> Float32:
    """Return a picture [H, W, C] at pixels [..., 2], float32 [..., C], by bilinear interpolation.

    Points beyond the outermost pixel centres have the value of the nearest border.
    """
    height, width = picture.shape[:2]
    x, y = np.clip(pixels[..., 0], 0.0, width - 1.0), np.clip(pixels[..., 1], 0.0, height - 1.0)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    values = picture.astype(np.float32, copy=False)
    upper = values[top, left] * (1.0 - across) + values[top, right] * across
    lower = values[bottom, left] * (1.0 - across) + values[bottom, right] * across
    return np.asarray(upper * (1.0 - down) + lower * down, dtype=np.float32)


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
        BackendUnavailableError: pytorch3d is not installed.
    """
    if len(attributes) != len(points):
        raise ValueError(f"{len(attributes)} rows of attributes don't fit {len(points)} vertices")
    if backend == "pytorch3d":
        from services.common.geometry.rasterise_pytorch3d import draw_with_pytorch3d

        drawn = draw_with_pytorch3d(points, depth, triangles, attributes, size)
        return DrawnSurface(drawn.values, drawn.covered, lambda upstream: SurfaceGradient(*drawn.gradient(upstream)))
    from services.common.geometry.kernels import interpolate_backward, interpolate_pixels, weights_at

    points, depth, attributes = (np.ascontiguousarray(each, np.float64) for each in (points, depth, attributes))
    fragments = rasterise(points[None], depth[None], triangles, *size, cull="back")
    index = fragments.triangle_index[0].reshape(-1)
    weights, values = np.empty((len(index), 3)), np.empty((len(index), attributes.shape[1]))
    weights_at(index, points, triangles, size[1], weights)
    interpolate_pixels(index, weights, triangles, attributes, values)

    def gradient(upstream: Float64) -> SurfaceGradient:
        to_points, to_attributes = np.zeros_like(points), np.zeros_like(attributes)
        flat = np.ascontiguousarray(upstream.reshape(values.shape), np.float64)
        interpolate_backward(index, points, triangles, size[1], attributes, weights, flat, to_points, to_attributes)
        return SurfaceGradient(to_points, to_attributes)

    return DrawnSurface(values.reshape(*size, -1), fragments.covered[0], gradient)
