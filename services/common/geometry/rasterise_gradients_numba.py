"""Kernels of the differentiable rasteriser: the derivative of interpolation, and silhouettes between neighbouring pixels.

The rules of rasterise_numba.py apply. Sums run in the order of the pixels, so equal input gives equal bytes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64, Int32, Int64
from services.common.geometry.kernels import kernel
from services.common.geometry.rasterise_numba import edge_function

_LONGEST_WALK: Final = 64


@kernel
def interpolate_backward(
    index: Int32,
    points: Float64,
    depth: Float64,
    triangles: Int32,
    perspective: bool,
    width: int,
    corners: Int32,
    attributes: Float64,
    weights: Float64,
    gradient: Float64,
    to_points: Float64,
    to_depth: Float64,
    to_attributes: Float64,
) -> None:
    """Add the gradients of `interpolate_pixels` and `weights_at` to three sums.

    With e_k the edge functions, u_k = e_k / z_k (or e_k) and b_k = u_k / sum(u): dL/du_k = (g_k - sum_j g_j b_j) / sum(u), where
    g_k = gradient . attributes_k. An edge function is bilinear in the two vertices of the edge.

    Args:
        index, points, depth, triangles, perspective, width: as `weights_at` takes them.
        corners: int32 [F, 3], rows of `attributes`.
        attributes: float64 [A, C].
        weights: float64 [P, 3], result of `weights_at`.
        gradient: float64 [P, C], gradient with respect to the interpolated attributes.
        to_points: float64 [V, 2], sum to add to: gradient with respect to `points`.
        to_depth: float64 [V], sum to add to: gradient with respect to `depth`.
        to_attributes: float64 [A, C], sum to add to: gradient with respect to `attributes`.
    """
    for pixel in range(index.shape[0]):
        triangle = index[pixel]
        if triangle < 0:
            continue
        a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        row_a, row_b, row_c = corners[triangle, 0], corners[triangle, 1], corners[triangle, 2]
        weight_a, weight_b, weight_c = weights[pixel, 0], weights[pixel, 1], weights[pixel, 2]
        along_a, along_b, along_c = 0.0, 0.0, 0.0
        for channel in range(attributes.shape[1]):
            wanted = gradient[pixel, channel]
            along_a += wanted * attributes[row_a, channel]
            along_b += wanted * attributes[row_b, channel]
            along_c += wanted * attributes[row_c, channel]
            to_attributes[row_a, channel] += weight_a * wanted
            to_attributes[row_b, channel] += weight_b * wanted
            to_attributes[row_c, channel] += weight_c * wanted
        ax, ay = points[a, 0], points[a, 1]
        bx, by = points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        # The edge functions add up to twice the triangle's area ("area" here), so sum(u) = area / sum(b_k z_k).
        total = edge_function(ax, ay, bx, by, cx, cy)
        if total == 0.0:
            continue
        if perspective:
            total /= weight_a * depth[a] + weight_b * depth[b] + weight_c * depth[c]
        mean = weight_a * along_a + weight_b * along_b + weight_c * along_c
        slope_a, slope_b, slope_c = along_a - mean, along_b - mean, along_c - mean
        if perspective:
            slope_a, slope_b, slope_c = slope_a / depth[a], slope_b / depth[b], slope_c / depth[c]
            # The derivative of e_k / z_k by z_k is -e_k / z_k**2, and e_k / z_k = b_k * sum(u).
            to_depth[a] -= slope_a * weight_a
            to_depth[b] -= slope_b * weight_b
            to_depth[c] -= slope_c * weight_c
        slope_a, slope_b, slope_c = slope_a / total, slope_b / total, slope_c / total
        x, y = float(pixel % width), float(pixel // width)
        to_points[a, 0] += slope_c * (by - y) - slope_b * (cy - y)
        to_points[a, 1] += slope_b * (cx - x) - slope_c * (bx - x)
        to_points[b, 0] += slope_a * (cy - y) - slope_c * (ay - y)
        to_points[b, 1] += slope_c * (ax - x) - slope_a * (cx - x)
        to_points[c, 0] += slope_b * (ay - y) - slope_a * (by - y)
        to_points[c, 1] += slope_a * (bx - x) - slope_b * (ax - x)


@kernel
def find_silhouettes(index: Int32, depth: Float32, points: Float64, triangles: Int32, neighbours: Int32, found: Int64) -> int:
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
        found: int64 [2 H W, 5], output: nearer pixel, other pixel (row by row), both vertices of the edge, axis (0 = x, 1 = y).

    Returns:
        Number of rows written to `found`.
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
                            found[count, 0] = here_flat if forward else there_flat
                            found[count, 1] = there_flat if forward else here_flat
                            found[count, 2], found[count, 3], found[count, 4] = first, last, axis
                            count += 1
                        break
                    before, triangle = triangle, next_triangle
    return count
