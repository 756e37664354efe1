"""The rasteriser's kernels, compiled by numba: coverage, z-buffer and interpolation on one processor core.

Coverage is exact. An edge function (twice the signed area of the triangle of edge and pixel centre) is a difference of two
products. A value near zero is computed again with the rounding errors of both products (Dekker 1971, the error-free product that
Shewchuk's predicates use), so the sign is right and the value has at least six digits. Turning an edge round changes only the sign
of the edge function, so the two triangles of an edge cannot both take a pixel or both leave the pixel out.

Kernels release the interpreter's lock and write only their own rows, so bands of rows may run in threads. The result does not
depend on the number of threads. Callers check shapes, dtypes and indices; kernels do not.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64, Int32
from services.common.geometry.kernels import kernel

MAX_COORDINATE: Final = float(1 << 28)
"""Largest sum of a triangle's absolute coordinates, pixels.

With 24 binary places, differences of coordinates are exact in float64.
"""
_NEAR_ZERO: Final = 1e-8
_SPLIT: Final = 134217729.0  # 2**27 + 1: splits a float64's digits into two halves


@kernel
def edge_function(ax: float, ay: float, bx: float, by: float, px: float, py: float) -> float:
    """Return twice the signed area of (a, b, p): positive if a, b, p turn clockwise on screen (y down).

    The relative error is below 1e-7.
    """
    to_ax, to_ay, to_bx, to_by = ax - px, ay - py, bx - px, by - py
    left = to_ax * to_by
    right = to_ay * to_bx
    value = left - right
    if abs(value) > _NEAR_ZERO * (abs(left) + abs(right)):
        return value
    return value + (_product_error(to_ax, to_by, left) - _product_error(to_ay, to_bx, right))


@kernel
def _product_error(a: float, b: float, product: float) -> float:
    """Return a * b - product, exactly."""
    scaled = _SPLIT * a
    a_high = scaled - (scaled - a)
    a_low = a - a_high
    scaled = _SPLIT * b
    b_high = scaled - (scaled - b)
    b_low = b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@kernel
def rasterise_rows(
    points: Float64,
    depth: Float64,
    triangles: Int32,
    perspective: bool,
    cull_back: bool,
    near: float,
    first_row: int,
    last_row: int,
    index: Int32,
    barycentrics: Float32,
    nearest: Float32,
) -> None:
    """Fill the rows [first_row, last_row) of one picture.

    Args:
        points: float64 [V, 2], pixels, multiples of 2**-24.
        depth: float64 [V].
        triangles: int32 [F, 3].
        perspective: whether weights are divided by depth.
        cull_back: whether to leave out triangles that turn clockwise on screen.
        near: with `perspective`, triangles with a vertex at this depth or nearer are left out.
        first_row: first row of the band.
        last_row: row after the last row of the band.
        index: int32 [H, W], output.
        barycentrics: float32 [H, W, 3], output.
        nearest: float32 [H, W], output: depth.
    """
    width = index.shape[1]
    for row in range(first_row, last_row):
        for column in range(width):
            index[row, column] = -1
            nearest[row, column] = np.inf
            barycentrics[row, column, 0] = 0.0
            barycentrics[row, column, 1] = 0.0
            barycentrics[row, column, 2] = 0.0
    for triangle in range(triangles.shape[0]):
        first, second, third = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        x0, y0 = points[first, 0], points[first, 1]
        x1, y1 = points[second, 0], points[second, 1]
        x2, y2 = points[third, 0], points[third, 1]
        low_y, high_y = min(y0, y1, y2), max(y0, y1, y2)
        low_x, high_x = min(x0, x1, x2), max(x0, x1, x2)
        if low_y >= last_row or high_y < first_row or low_x >= width or high_x < 0.0:
            continue
        if not abs(x0) + abs(x1) + abs(x2) + abs(y0) + abs(y1) + abs(y2) <= MAX_COORDINATE:  # or not a number
            continue
        top, bottom = max(first_row, math.ceil(low_y)), min(last_row - 1, math.floor(high_y))
        left, right = max(0, math.ceil(low_x)), min(width - 1, math.floor(high_x))
        if top > bottom or left > right:
            continue
        z0, z1, z2 = depth[first], depth[second], depth[third]
        if not (abs(z0) + abs(z1) + abs(z2) < np.inf) or (perspective and not min(z0, z1, z2) > near):
            continue
        area = edge_function(x0, y0, x1, y1, x2, y2)
        if area == 0.0 or (cull_back and area > 0.0):
            continue
        turned = area < 0.0
        if turned:  # make the triangle clockwise, so that edge functions are positive inside
            x1, y1, z1, x2, y2, z2 = x2, y2, z2, x1, y1, z1
        # A centre on an edge belongs to the triangle whose left or upper border the edge is.
        owns0 = y1 > y2 or (y1 == y2 and x2 > x1)
        owns1 = y2 > y0 or (y2 == y0 and x0 > x2)
        owns2 = y0 > y1 or (y0 == y1 and x1 > x0)
        inverse0, inverse1, inverse2 = 1.0, 1.0, 1.0
        if perspective:
            inverse0, inverse1, inverse2 = 1.0 / z0, 1.0 / z1, 1.0 / z2
        for row in range(top, bottom + 1):
            entered = False
            for column in range(left, right + 1):
                weight0 = edge_function(x1, y1, x2, y2, column, row)
                weight1 = edge_function(x2, y2, x0, y0, column, row)
                weight2 = edge_function(x0, y0, x1, y1, column, row)
                if (
                    not (weight0 >= 0.0 and weight1 >= 0.0 and weight2 >= 0.0)
                    or (weight0 == 0.0 and not owns0)
                    or (weight1 == 0.0 and not owns1)
                    or (weight2 == 0.0 and not owns2)
                ):
                    if entered:
                        break
                    continue
                entered = True
                total = weight0 + weight1 + weight2
                weight0, weight1, weight2 = weight0 * inverse0, weight1 * inverse1, weight2 * inverse2
                scale = 1.0 / (weight0 + weight1 + weight2)
                distance = total * scale
                if not perspective:
                    distance = (weight0 * z0 + weight1 * z1 + weight2 * z2) * scale
                rounded = np.float32(distance)
                if not rounded < nearest[row, column]:
                    continue
                nearest[row, column] = rounded
                index[row, column] = triangle
                barycentrics[row, column, 0] = weight0 * scale
                barycentrics[row, column, 1] = (weight2 if turned else weight1) * scale
                barycentrics[row, column, 2] = (weight1 if turned else weight2) * scale


@kernel
def weights_at(
    index: Int32, points: Float64, depth: Float64, triangles: Int32, perspective: bool, width: int, weights: Float64
) -> None:
    """Compute the barycentrics of every pixel in the pixel's triangle, in float64.

    Args:
        index: int32 [P], row by row; -1: background.
        points: float64 [V, 2], pixels.
        depth: float64 [V].
        triangles: int32 [F, 3].
        perspective: whether weights are divided by depth.
        width: pixels per row.
        weights: float64 [P, 3], output; background zero.
    """
    for pixel in range(index.shape[0]):
        triangle = index[pixel]
        if triangle < 0:
            weights[pixel, 0] = weights[pixel, 1] = weights[pixel, 2] = 0.0
            continue
        a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        x, y = float(pixel % width), float(pixel // width)
        weight0 = edge_function(points[b, 0], points[b, 1], points[c, 0], points[c, 1], x, y)
        weight1 = edge_function(points[c, 0], points[c, 1], points[a, 0], points[a, 1], x, y)
        weight2 = edge_function(points[a, 0], points[a, 1], points[b, 0], points[b, 1], x, y)
        if perspective:
            weight0, weight1, weight2 = weight0 / depth[a], weight1 / depth[b], weight2 / depth[c]
        total = weight0 + weight1 + weight2
        scale = 1.0 / total if total != 0.0 else 0.0
        weights[pixel, 0], weights[pixel, 1], weights[pixel, 2] = weight0 * scale, weight1 * scale, weight2 * scale


@kernel
def interpolate_pixels(index: Int32, weights: Float64, corners: Int32, attributes: Float64, result: Float64) -> None:
    """Compute weighted sums of the corners' attributes.

    Args:
        index: int32 [P]; -1: background.
        weights: float64 [P, 3].
        corners: int32 [F, 3], rows of `attributes`.
        attributes: float64 [A, C].
        result: float64 [P, C], output; background zero.
    """
    channels = attributes.shape[1]
    for pixel in range(index.shape[0]):
        triangle = index[pixel]
        if triangle < 0:
            for channel in range(channels):
                result[pixel, channel] = 0.0
            continue
        a, b, c = corners[triangle, 0], corners[triangle, 1], corners[triangle, 2]
        weight0, weight1, weight2 = weights[pixel, 0], weights[pixel, 1], weights[pixel, 2]
        for channel in range(channels):
            result[pixel, channel] = (
                weight0 * attributes[a, channel] + weight1 * attributes[b, channel] + weight2 * attributes[c, channel]
            )
