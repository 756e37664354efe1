"""Kernels that numba compiles, and the folder that keeps them compiled: compiling takes a process two seconds, loading .2 s.

Nothing is written beside the sources, unless the user has no other folder that can be written.

The kernels of the rasteriser compute coverage, z-buffer and interpolation on one processor core.

Coverage is exact. An edge function (twice the signed area of the triangle of edge and pixel centre) is a difference of two
products. A value near zero is computed again with the rounding errors of both products (Dekker 1971, the error-free product that
Shewchuk's predicates use), so the sign is right and the value has at least six digits. Turning an edge round changes only the
sign of the edge function, so the two triangles of an edge cannot both take a pixel or both leave the pixel out.

Kernels release the interpreter's lock. Callers check shapes, dtypes and indices; kernels do not.

One kernel computes the derivative of interpolation. Its sums run in the order of the pixels, so equal input gives equal bytes. The
last kernel samples a texture with many channels.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np
from numba import njit
from numba.core import config

from services.common.array_types import Float32, Float64, Int32, UInt8

_FOLDER_VARIABLE: Final = "NUMBA_CACHE_DIR"

_Function = TypeVar("_Function", bound=Callable[..., Any])
MAX_COORDINATE: Final = float(1 << 28)
"""Largest sum of a triangle's absolute coordinates, pixels.

With 24 binary places, differences of coordinates are exact in float64.
"""
_NEAR_ZERO: Final = 1e-8
_SPLIT: Final = 134217729.0  # 2**27 + 1: splits a float64's digits into two halves


def kernel(function: _Function) -> _Function:
    """Compile a function at its first call, or load what an earlier process compiled.

    The folder is `NUMBA_CACHE_DIR`, or `dubstage/kernels` in the user's cache folder. Where no folder can be written, each process
    compiles.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(_Function, njit(cache=True, **options)(function))
    except RuntimeError:
        # numba looks for the folder when a function is defined.
        return cast(_Function, njit(**options)(function))


def _folder() -> str:
    """Return the folder of compiled kernels; empty: numba chooses."""
    if given := os.environ.get(_FOLDER_VARIABLE):
        return given
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:
        return ""
    # Each content of this file has a folder of its own, so that no process takes kernels of another version of dubstage.
    content = Path(__file__).read_bytes()
    return str(Path(base) / "dubstage" / "kernels" / hashlib.sha256(content).hexdigest()[:16])


config.CACHE_DIR = _folder()  # type: ignore[attr-defined]


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
def rasterise_picture(
    points: Float64,
    depth: Float64,
    triangles: Int32,
    cull_back: bool,
    index: Int32,
    barycentrics: Float32,
    nearest: Float32,
) -> None:
    """Fill one picture.

    Args:
        points: float64 [V, 2], pixels, multiples of 2**-24.
        depth: float64 [V].
        triangles: int32 [F, 3].
        cull_back: whether to leave out triangles that turn clockwise on screen.
        index: int32 [H, W], output.
        barycentrics: float32 [H, W, 3], output.
        nearest: float32 [H, W], output: depth.
    """
    height, width = index.shape
    for row in range(height):
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
        if low_y >= height or high_y < 0.0 or low_x >= width or high_x < 0.0:
            continue
        if not abs(x0) + abs(x1) + abs(x2) + abs(y0) + abs(y1) + abs(y2) <= MAX_COORDINATE:  # or not a number
            continue
        top, bottom = max(0, math.ceil(low_y)), min(height - 1, math.floor(high_y))
        left, right = max(0, math.ceil(low_x)), min(width - 1, math.floor(high_x))
        if top > bottom or left > right:
            continue
        z0, z1, z2 = depth[first], depth[second], depth[third]
        if not abs(z0) + abs(z1) + abs(z2) < np.inf:
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
                scale = 1.0 / (weight0 + weight1 + weight2)
                rounded = np.float32((weight0 * z0 + weight1 * z1 + weight2 * z2) * scale)
                if not rounded < nearest[row, column]:
                    continue
                nearest[row, column] = rounded
                index[row, column] = triangle
                barycentrics[row, column, 0] = weight0 * scale
                barycentrics[row, column, 1] = (weight2 if turned else weight1) * scale
                barycentrics[row, column, 2] = (weight1 if turned else weight2) * scale


@kernel
def weights_at(index: Int32, points: Float64, triangles: Int32, width: int, weights: Float64) -> None:
    """Compute the barycentrics of every pixel in the pixel's triangle, in float64.

    Args:
        index: int32 [P], row by row; -1: background.
        points: float64 [V, 2], pixels.
        triangles: int32 [F, 3].
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


@kernel
def interpolate_backward(
    index: Int32,
    points: Float64,
    triangles: Int32,
    width: int,
    attributes: Float64,
    weights: Float64,
    gradient: Float64,
    to_points: Float64,
    to_attributes: Float64,
) -> None:
    """Add the gradients of `interpolate_pixels` and `weights_at` to two sums.

    With e_k the edge functions and b_k = e_k / sum(e): dL/de_k = (g_k - sum_j g_j b_j) / sum(e), where
    g_k = gradient . attributes_k. An edge function is bilinear in the two vertices of the edge.

    Args:
        index, points, triangles, width: as `weights_at` takes them.
        attributes: float64 [V, C].
        weights: float64 [P, 3], result of `weights_at`.
        gradient: float64 [P, C], gradient with respect to the interpolated attributes.
        to_points: float64 [V, 2], sum to add to: gradient with respect to `points`.
        to_attributes: float64 [V, C], sum to add to: gradient with respect to `attributes`.
    """
    for pixel in range(index.shape[0]):
        triangle = index[pixel]
        if triangle < 0:
            continue
        a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        weight_a, weight_b, weight_c = weights[pixel, 0], weights[pixel, 1], weights[pixel, 2]
        along_a, along_b, along_c = 0.0, 0.0, 0.0
        for channel in range(attributes.shape[1]):
            upstream = gradient[pixel, channel]
            along_a += upstream * attributes[a, channel]
            along_b += upstream * attributes[b, channel]
            along_c += upstream * attributes[c, channel]
            to_attributes[a, channel] += weight_a * upstream
            to_attributes[b, channel] += weight_b * upstream
            to_attributes[c, channel] += weight_c * upstream
        ax, ay = points[a, 0], points[a, 1]
        bx, by = points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        # The edge functions add up to twice the triangle's area.
        total = edge_function(ax, ay, bx, by, cx, cy)
        if total == 0.0:
            continue
        mean = weight_a * along_a + weight_b * along_b + weight_c * along_c
        slope_a, slope_b, slope_c = along_a - mean, along_b - mean, along_c - mean
        slope_a, slope_b, slope_c = slope_a / total, slope_b / total, slope_c / total
        x, y = float(pixel % width), float(pixel // width)
        to_points[a, 0] += slope_c * (by - y) - slope_b * (cy - y)
        to_points[a, 1] += slope_b * (cx - x) - slope_c * (bx - x)
        to_points[b, 0] += slope_a * (cy - y) - slope_c * (ay - y)
        to_points[b, 1] += slope_c * (ax - x) - slope_a * (cx - x)
        to_points[c, 0] += slope_b * (ay - y) - slope_a * (by - y)
        to_points[c, 1] += slope_a * (bx - x) - slope_b * (ax - x)


@kernel
def sample_pixels(texture: UInt8, uv: Float32, result: Float32) -> None:
    """Compute a texture's values, divided by 255, at texture coordinates.

    Points beyond the outermost texel centres have the value of the nearest border.

    Args:
        texture: uint8 [S, T, C].
        uv: float32 [P, 2], texture coordinates, at most 1; negative: the result is 0.
        result: float32 [P, C], output.
    """
    height, width, channels = texture.shape
    for pixel in range(uv.shape[0]):
        if not (uv[pixel, 0] >= 0.0 and uv[pixel, 1] >= 0.0):
            for channel in range(channels):
                result[pixel, channel] = 0.0
            continue
        x = min(max(uv[pixel, 0] * width - 0.5, 0.0), width - 1.0)
        y = min(max(uv[pixel, 1] * height - 0.5, 0.0), height - 1.0)
        left, top = int(x), int(y)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        across, down = np.float32(x - left), np.float32(y - top)
        weight0 = (np.float32(1.0) - across) * (np.float32(1.0) - down) / np.float32(255.0)
        weight1 = across * (np.float32(1.0) - down) / np.float32(255.0)
        weight2 = (np.float32(1.0) - across) * down / np.float32(255.0)
        weight3 = across * down / np.float32(255.0)
        for channel in range(channels):
            result[pixel, channel] = (
                weight0 * np.float32(texture[top, left, channel])
                + weight1 * np.float32(texture[top, right, channel])
                + weight2 * np.float32(texture[bottom, left, channel])
                + weight3 * np.float32(texture[bottom, right, channel])
            )


def warm_up() -> None:
    """Compile the kernel (about a quarter of a second), so that the first frame does not wait for the compiler."""
    sample_pixels(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 2), np.float32), np.empty((1, 1), np.float32))
