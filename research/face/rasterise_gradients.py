"""The differentiable side of the rasteriser, for fitting: gradients inside triangles and at silhouettes (torch, CPU).

The triangle that a pixel shows is a step function of the vertices. `rasterise` finds the triangles once, and they are held fixed.

* Inside triangles, `interpolate` has exact gradients with respect to attributes, and through barycentrics with respect to the
  vertices' pixels and depth.
* At silhouettes the picture jumps from the surface to the background. `antialias` blends the two pixels on either side by the point
  where the outline passes between their centres, so that the picture is a continuous function of the outline (analytic
  antialiasing: Laine et al., Modular Primitives for High-Performance Differentiable Rendering, ACM Transactions on Graphics
  39(6), 2020). The paper looks for the outline in the pixel's own triangle. This module follows the surface through the mesh to
  the outline, because a triangle of a dense mesh is smaller than a pixel.

All arithmetic is in float64 and in the order of the pixels: equal input gives equal bytes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Float32, Float64, Floating, Int32, Int64
from services.common.geometry.fragments import Fragments
from services.common.geometry.kernels import interpolate_backward, interpolate_pixels, kernel, weights_at
from services.common.geometry.rasterise import check_corners, rasterise, run_all

_NO_TRIANGLE: Final = -1
_LONGEST_WALK: Final = 64


def interpolate(
    fragments: Fragments,
    vertices: Tensor,
    depth: Tensor,
    triangles: Int32,
    attributes: Tensor,
    corners: Int32 | None = None,
    *,
    perspective: bool = True,
    num_threads: int = 1,
) -> Tensor:
    """Return attributes of the surface at every pixel: [N, H, W, C] in the dtype of `attributes`; background 0.

    Args:
        fragments: result of `rasterise` on the same vertices, depth, triangles and `perspective`.
        vertices: float32 or float64 [N, V, 2], pixels; gets gradients.
        depth: [N, V]; gets gradients (zero without `perspective`: depth is then only an order).
        triangles: int32 [F, 3].
        attributes: [N or 1, A, C]; gets gradients.
        corners: int32 [F, 3], rows of `attributes`; None: `triangles`.
        perspective: as in `rasterise`.
        num_threads: threads for several pictures; the result does not depend on this number.

    Raises:
        ValueError: shapes do not match, or a corner names a row that does not exist.
    """
    corners = triangles if corners is None else corners
    if fragments.triangle_index.shape[0] != len(vertices) or depth.shape != vertices.shape[:2]:
        raise ValueError(
            f"{len(fragments.triangle_index)} pictures don't fit vertices {list(vertices.shape)} and depth {list(depth.shape)}"
        )
    if corners.shape != triangles.shape:
        raise ValueError(f"{list(corners.shape)} corners don't fit {list(triangles.shape)} triangles")
    _check_mesh(fragments, vertices, triangles)
    check_corners(_plain(attributes), corners, len(vertices))
    tables = np.ascontiguousarray(triangles, dtype=np.int32), np.ascontiguousarray(corners, dtype=np.int32)
    result: Tensor = _Interpolate.apply(vertices, depth, attributes, fragments.triangle_index, *tables, perspective, num_threads)  # type: ignore[no-untyped-call]
    return result


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        depth: Tensor,
        attributes: Tensor,
        index: Int32,
        triangles: Int32,
        corners: Int32,
        perspective: bool,
        num_threads: int,
    ) -> Tensor:
        points, depths, rows = _plain(vertices), _plain(depth), _plain(attributes)
        count, height, width = index.shape
        weights = np.empty((count, height * width, 3))
        values = np.empty((count, height * width, rows.shape[2]))

        def fill(item: int) -> None:
            flat = index[item].reshape(-1)
            weights_at(flat, points[item], depths[item], triangles, perspective, width, weights[item])
            interpolate_pixels(flat, weights[item], corners, rows[item % len(rows)], values[item])

        run_all([partial(fill, item) for item in range(count)], num_threads)
        ctx.save_for_backward(vertices, depth, attributes)
        ctx.tables = index, triangles, corners, perspective, weights, num_threads
        return torch.from_numpy(values).view(count, height, width, -1).to(attributes.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        vertices, depth, attributes = ctx.saved_tensors
        index, triangles, corners, perspective, weights, num_threads = ctx.tables
        points, depths, rows = _plain(vertices), _plain(depth), _plain(attributes)
        gradient = _plain(gradients[0]).reshape(len(index), -1, rows.shape[2])
        to_points, to_depth = np.zeros_like(points), np.zeros_like(depths)
        to_rows = np.zeros((len(index), *rows.shape[1:]))

        def fill(item: int) -> None:
            interpolate_backward(
                index[item].reshape(-1), points[item], depths[item], triangles, perspective, index.shape[2], corners,
                rows[item % len(rows)], weights[item], gradient[item], to_points[item], to_depth[item], to_rows[item],
            )  # fmt: skip

        run_all([partial(fill, item) for item in range(len(index))], num_threads)
        if len(rows) == 1:  # one table for all pictures: gradients are summed in the order of the pictures
            to_rows = to_rows.sum(0, keepdims=True)
        return (
            torch.from_numpy(to_points).to(vertices.dtype),
            torch.from_numpy(to_depth).to(depth.dtype),
            torch.from_numpy(to_rows).to(attributes.dtype),
            *(None,) * 5,
        )


def antialias(
    pictures: Tensor, fragments: Fragments, vertices: Tensor, triangles: Int32, neighbours: Int32, *, num_threads: int = 1
) -> Tensor:
    """Blend the pixels on either side of a silhouette, with gradients to the outline's vertices: [N, H, W, C].

    The outline passes between the centres of two neighbouring pixels at the share w, 0..1, of the way from the pixel that is nearer
    to the camera. If w < 1/2, the nearer pixel takes 1/2 - w of the other pixel's colour. Otherwise the other pixel takes w - 1/2
    of the nearer pixel's colour.

    Args:
        pictures: float [N, H, W, C], shaded from `fragments`, background filled in; gets gradients.
        fragments: result of `rasterise`.
        vertices: [N, V, 2], pixels, the vertices that were rasterised; gets gradients.
        triangles: int32 [F, 3].
        neighbours: int32 [F, 3], from `neighbours_of(triangles)`.
        num_threads: threads for several pictures; the result does not depend on this number.

    Raises:
        ValueError: shapes do not match.
    """
    count, height, width = fragments.triangle_index.shape
    if pictures.shape[:3] != (count, height, width) or len(vertices) != count or neighbours.shape != triangles.shape:
        raise ValueError(f"pictures {list(pictures.shape)} don't fit {count} of {height} x {width} pixels and their mesh")
    _check_mesh(fragments, vertices, triangles)
    triangles, neighbours = np.ascontiguousarray(triangles, dtype=np.int32), np.ascontiguousarray(neighbours, dtype=np.int32)
    points = _plain(vertices)
    pairs = [np.empty((2 * height * width, 5), np.int64) for _ in range(count)]
    used = [0] * count

    def find(item: int) -> None:
        index, depth = fragments.triangle_index[item], fragments.depth[item]
        used[item] = _find_silhouettes(index, depth, points[item], triangles, neighbours, pairs[item])

    run_all([partial(find, item) for item in range(count)], num_threads)
    blended = []
    for item in range(count):
        near, far, first, last, axis = torch.from_numpy(pairs[item][: used[item]]).unbind(1)
        pixel = torch.stack([near % width, near // width], 1)
        offset = far - near
        sign = torch.where(offset > 0, 1, -1)
        start, end = vertices[item][first], vertices[item][last]
        along, across = axis[:, None], 1 - axis[:, None]
        here = pixel.to(vertices.dtype)
        start_across = start.gather(1, across)
        part = (here.gather(1, across) - start_across) / (end.gather(1, across) - start_across)
        crossing = start.gather(1, along) + part * (end.gather(1, along) - start.gather(1, along))
        way = sign[:, None] * (crossing - here.gather(1, along))
        share = (0.5 - way).to(pictures.dtype)
        flat = pictures[item].reshape(height * width, -1)
        change = share * (flat[far] - flat[near])
        blended.append(flat.index_add(0, torch.where(share[:, 0] > 0.0, near, far), change).view(height, width, -1))
    return torch.stack(blended)


def neighbours_of(triangles: Int32) -> Int32:
    """Return the triangle across the edge opposite to each corner: int32 [F, 3].

    The value is -1 for an edge on the border and for an edge that more than two triangles share.

    Args:
        triangles: int32 [F, 3].
    """
    corners = np.asarray(triangles, dtype=np.int64)
    heads, tails = corners[:, [1, 2, 0]].ravel(), corners[:, [2, 0, 1]].ravel()
    edges = np.minimum(heads, tails) * (corners.max(initial=0) + 1) + np.maximum(heads, tails)
    order = np.argsort(edges, kind="stable")
    owners = np.arange(len(edges)) // 3
    result = np.full(len(edges), _NO_TRIANGLE, np.int32)
    _, indices, times = np.unique(edges[order], return_index=True, return_counts=True)
    starts = indices[times == 2]
    one, two = order[starts], order[starts + 1]
    result[one], result[two] = owners[two], owners[one]
    return result.reshape(-1, 3)


def warm_up() -> None:
    """Compile the forward and backward kernels (about two seconds), so that the first fit does not wait for the compiler."""
    corners = torch.tensor([[[0.0, 0.0], [0.0, 3.0], [3.0, 0.0]]], requires_grad=True)
    depth, triangles = torch.ones(1, 3, requires_grad=True), np.array([[0, 1, 2]], np.int32)
    fragments = rasterise(_plain(corners), _plain(depth), triangles, 3, 3)
    picture = interpolate(fragments, corners, depth, triangles, corners)
    antialias(picture, fragments, corners, triangles, neighbours_of(triangles)).sum().backward()  # type: ignore[no-untyped-call]


def _check_mesh(fragments: Fragments, vertices: Tensor, triangles: Int32) -> None:
    if fragments.triangle_index.max(initial=-1) >= len(triangles):
        raise ValueError(f"the fragments are of a mesh with more than {len(triangles)} triangles")
    check_corners(_plain(vertices), triangles, len(vertices))


def _plain(values: Tensor) -> Floating:
    return np.ascontiguousarray(values.detach().numpy(), dtype=np.float64)


@kernel
def _find_silhouettes(index: Int32, depth: Float32, points: Float64, triangles: Int32, neighbours: Int32, pairs: Int64) -> int:
    """Find pairs of neighbouring pixels between whose centres the nearer pixel's surface ends, and return their number.

    The search starts in the nearer pixel's triangle and follows the line towards the other centre through the mesh, triangle by
    triangle. The search ends where the line leaves the surface (at an edge without neighbour, or at an edge whose neighbour turns
    the other way on screen) or passes the other centre. Between left and right pixels only edges nearer to the vertical count;
    between upper and lower pixels only edges nearer to the horizontal.

    Args:
        index: int32 [H, W].
        depth: float32 [H, W].
        points: float64 [V, 2], pixels.
        triangles: int32 [F, 3].
        neighbours: int32 [F, 3], the triangle across the edge opposite to each corner; -1: none.
        pairs: int64 [2 H W, 5], output: nearer pixel, other pixel (row by row), both vertices of the edge, axis (0 = x, 1 = y).

    Returns:
        Number of rows written to `pairs`.
    """
    height, width = index.shape
    turns = np.empty(triangles.shape[0], np.int8)
    for triangle in range(triangles.shape[0]):
        a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        turns[triangle] = np.sign(
            (points[b, 0] - points[a, 0]) * (points[c, 1] - points[a, 1])
            - (points[b, 1] - points[a, 1]) * (points[c, 0] - points[a, 0])
        )
    count = 0
    for row in range(height):
        for column in range(width):
            for axis in range(2):
                other_row, other_column = row + axis, column + 1 - axis
                if other_row >= height or other_column >= width or index[row, column] == index[other_row, other_column]:
                    continue
                forward = depth[row, column] < depth[other_row, other_column]
                start_row, start_column = (row, column) if forward else (other_row, other_column)
                sign = 1.0 if forward else -1.0
                triangle = index[start_row, start_column]
                if triangle < 0:
                    continue
                along = float(start_column if axis == 0 else start_row)
                across = float(start_row if axis == 0 else start_column)
                before = -1
                for _ in range(_LONGEST_WALK):
                    way, first, last, next_triangle = -1.0, -1, -1, -1
                    for corner in range(3):
                        if before >= 0 and neighbours[triangle, corner] == before:
                            continue
                        a, b = triangles[triangle, (corner + 1) % 3], triangles[triangle, (corner + 2) % 3]
                        if (points[a, 1 - axis] <= across) == (points[b, 1 - axis] <= across):
                            continue
                        part = (across - points[a, 1 - axis]) / (points[b, 1 - axis] - points[a, 1 - axis])
                        here = sign * (points[a, axis] + part * (points[b, axis] - points[a, axis]) - along)
                        if here > way:
                            way, first, last, next_triangle = here, a, b, neighbours[triangle, corner]
                    if first < 0 or way > 1.0:
                        break
                    if next_triangle < 0 or turns[next_triangle] * turns[triangle] < 0:
                        rise = abs(points[first, 1 - axis] - points[last, 1 - axis])
                        if way >= 0.0 and rise >= abs(points[first, axis] - points[last, axis]):
                            here_flat, there_flat = row * width + column, other_row * width + other_column
                            pairs[count, 0] = here_flat if forward else there_flat
                            pairs[count, 1] = there_flat if forward else here_flat
                            pairs[count, 2], pairs[count, 3], pairs[count, 4] = first, last, axis
                            count += 1
                        break
                    before, triangle = triangle, next_triangle
    return count
