"""The two rasterisers beside each other: `python -m research.bench.rasterisers`. Needs the extra `pytorch3d`.

Both draw the mean face of the default morphable model, and take the gradient of the picture's sum. The attributes are the
positions of the vertices.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from research.bench.runs import best_cpu_ms, rows_of, table
from services.common.array_types import Float64
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise import Backend, DrawnSurface, draw_surface
from services.common.stderr import log_lines_on_stderr

SIZES: Final = (160, 256, 512)
"""Sides of the picture, pixels."""
REPEATS: Final = 10
BACKENDS: Final[tuple[Backend, ...]] = ("numba", "pytorch3d")


@dataclass(frozen=True, slots=True)
class RasteriserTimes:
    """Processor time and results for one size.

    Attributes:
        side: side of the picture, pixels.
        numba_ms: least processor time of drawing and gradient with numba, milliseconds.
        pytorch3d_ms: the same with pytorch3d.
        ratio: pytorch3d_ms / numba_ms.
        other_cover: share of the covered pixels that one of the two covers alone.
        difference: mean absolute difference of the attributes where both draw, in units of their range.
        gradient_cosine: cosine of the gradients with respect to the points.
    """

    side: int
    numba_ms: float
    pytorch3d_ms: float
    ratio: float
    other_cover: float
    difference: float
    gradient_cosine: float


def measure_rasterisers() -> list[RasteriserTimes]:
    """Return the figures of each size."""
    model = default_model()
    points = model.mean_shape.astype(np.float64)
    measured = []
    for side in SIZES:
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        placed = (points[:, :2] - low) / (high - low).max() * (side - 8) + 4

        def draw(backend: Backend, placed: Float64 = placed, side: int = side) -> tuple[DrawnSurface, Float64]:
            drawn = draw_surface(placed, points[:, 2], model.triangles, points, (side, side), backend=backend)
            return drawn, drawn.gradient(np.ones_like(drawn.values)).points

        (own, own_gradient), (other, other_gradient) = (draw(backend) for backend in BACKENDS)
        times = [best_cpu_ms(partial(draw, backend), REPEATS) for backend in BACKENDS]
        both, either = own.covered & other.covered, own.covered | other.covered
        measured.append(
            RasteriserTimes(
                side,
                times[0],
                times[1],
                times[1] / times[0],
                float((either & ~both).sum() / max(1, either.sum())),
                float(np.abs(own.values[both] - other.values[both]).mean() / max(1e-9, float(np.ptp(points)))),
                float((own_gradient * other_gradient).sum() / (np.linalg.norm(own_gradient) * np.linalg.norm(other_gradient))),
            )
        )
    return measured


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(prog="python -m research.bench.rasterisers", description=__doc__).parse_args()
    print(table(rows_of(measure_rasterisers())))


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        main()
