"""The rasteriser's definition, written out: every pixel over all triangles, in exact fractions. The fast one is measured by it."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Point = tuple[Fraction, Fraction]


class Hit(NamedTuple):
    """One triangle at one pixel centre."""

    depth: float
    triangle: int
    barycentrics: tuple[float, float, float]


def twice_area(a: Point, b: Point, c: Point) -> Fraction:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def owns(a: Point, b: Point, inside: Point) -> bool:
    """Whether a centre on edge a-b belongs to the triangle on the side of `inside`: a left border, or a horizontal upper one."""
    if a[1] == b[1]:
        return inside[1] > a[1]
    at = a[0] + (inside[1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1])  # of the edge's line, in the row of `inside`
    return inside[0] > at


def screen_barycentrics(corners: list[Point], centre: Point) -> tuple[Fraction, Fraction, Fraction] | None:
    """Barycentrics on the screen, or None where the centre is not the triangle's."""
    a, b, c = corners
    area = twice_area(a, b, c)
    if area == 0:
        return None
    weights = (twice_area(b, c, centre) / area, twice_area(c, a, centre) / area, twice_area(a, b, centre) / area)
    for weight, (start, end, opposite) in zip(weights, ((b, c, a), (c, a, b), (a, b, c)), strict=True):
        if weight < 0 or (weight == 0 and not owns(start, end, opposite)):
            return None
    return weights


def hits(
    vertices: npt.NDArray[np.floating],
    depth: npt.NDArray[np.floating],
    triangles: npt.NDArray[np.int32],
    row: int,
    column: int,
    *,
    cull: str = "none",
) -> list[Hit]:
    """All triangles of one mesh ([V, 2], [V], [F, 3]) that cover a pixel, nearest first."""
    grid = Fraction(1, 1 << 24)
    found = []
    for number, triangle in enumerate(triangles):
        values = [float(value) for value in vertices[triangle].ravel()]
        z = [float(value) for value in depth[triangle]]
        if not np.isfinite(values + z).all() or sum(map(abs, values)) > 2**28:
            continue
        corners = [
            (round(Fraction(x) / grid) * grid, round(Fraction(y) / grid) * grid)
            for x, y in zip(values[::2], values[1::2], strict=True)
        ]
        if cull == "back" and twice_area(*corners) > 0:
            continue
        screen = screen_barycentrics(corners, (Fraction(column), Fraction(row)))
        if screen is None:
            continue
        distance = sum(weight * Fraction(value) for weight, value in zip(screen, z, strict=True))
        weights = [float(weight) for weight in screen]
        found.append(Hit(float(distance), number, (weights[0], weights[1], weights[2])))
    return sorted(found, key=lambda hit: (np.float32(hit.depth), hit.triangle))
