"""The rasteriser alone: `python -m research.bench.rasteriser`. Milliseconds a call of processor time, on one thread, best of many.

The meshes are a face-like relief, half an ellipsoid with a nose, as dense as MediaPipe's face mesh (468 vertices) and as the Basel
Face Model 2009 cut to the face (35,709). The face fills nine tenths of the picture, as in a crop that a model is fitted on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from research.face.rasterise_gradients import antialias, neighbours_of
from research.face.rasterise_gradients import interpolate as interpolate_with_gradients
from services.common.geometry.rasterise import interpolate, rasterise

VERTICES: Final = {468: (26, 18), 35_709: (189, 189)}
SIZES: Final = (224, 256)
BATCHES: Final = (1, 8)
_RUNS: Final = 30


class Relief(NamedTuple):
    """A face-like surface.

    Attributes:
        vertices: float32 [V, 3], x and y in -1..1, z away from the camera.
        triangles: int32 [F, 3].
    """

    vertices: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class RasteriserTime:
    """One row: milliseconds of processor time a call for `batch` pictures of `size` x `size`.

    Attributes:
        vertices: of the mesh.
        triangles: of the mesh.
        size: of the pictures, pixels.
        batch: pictures a call.
        rasterise_ms: triangle, barycentrics and depth of every pixel.
        forward_ms: that, and three attributes of the vertices at every pixel.
        forward_backward_ms: that with silhouettes blended, and gradients with respect to vertices and attributes.
    """

    vertices: int
    triangles: int
    size: int
    batch: int
    rasterise_ms: float
    forward_ms: float
    forward_backward_ms: float


def face_relief(count: int) -> Relief:
    """A relief of `count` vertices, a key of VERTICES."""
    rows, columns = VERTICES[count]
    y, x = (axis.ravel()[:count] for axis in np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"))
    # A square onto a disc, so that the outline is round.
    x, y = x * np.sqrt(1.0 - y * y / 2.0), y * np.sqrt(1.0 - x * x / 2.0)
    nose = 0.35 * np.exp(-((x / 0.12) ** 2) - ((y - 0.1) / 0.25) ** 2)
    z = -np.sqrt(np.maximum(1.0 - 0.9 * (x * x + y * y), 0.0)) - nose
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)
    return Relief(np.stack([x, y, z], 1).astype(np.float32), triangles[(triangles < count).all(1)])


def measure_rasteriser() -> tuple[RasteriserTime, ...]:
    """Every mesh, size and batch; sets torch to one thread for as long as it takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(measure(face_relief(count), size, batch) for count in VERTICES for size in SIZES for batch in BATCHES)
    finally:
        torch.set_num_threads(threads)


def measure(relief: Relief, size: int, batch: int) -> RasteriserTime:
    """One row: heads turned between -20 and 20 degrees, seen from 8 of their half widths."""
    angles = np.radians(np.linspace(-20.0, 20.0, batch)) if batch > 1 else np.zeros(1)
    x, y, z = relief.vertices.T
    turned = np.stack([np.cos(angles)[:, None] * x - np.sin(angles)[:, None] * z, np.broadcast_to(y, (batch, len(y)))], -1)
    depth = (8.0 + np.sin(angles)[:, None] * x + np.cos(angles)[:, None] * z).astype(np.float32)
    pixels = (0.45 * size * 7.5 * turned / depth[..., None] + 0.5 * (size - 1)).astype(np.float32)
    colours = np.random.default_rng(0).uniform(size=(1, len(relief.vertices), 3)).astype(np.float32)
    neighbours = neighbours_of(relief.triangles)
    vertices, depths, attributes = (torch.from_numpy(values).requires_grad_() for values in (pixels, depth, colours))

    def forward() -> None:
        interpolate(rasterise(pixels, depth, relief.triangles, size, size), colours, relief.triangles)

    def forward_backward() -> None:
        fragments = rasterise(pixels, depth, relief.triangles, size, size)
        picture = interpolate_with_gradients(fragments, vertices, depths, relief.triangles, attributes)
        blended = antialias(picture, fragments, vertices, relief.triangles, neighbours)
        torch.autograd.grad(blended.square().sum(), (vertices, depths, attributes))

    return RasteriserTime(
        vertices=len(relief.vertices),
        triangles=len(relief.triangles),
        size=size,
        batch=batch,
        rasterise_ms=_best(lambda: rasterise(pixels, depth, relief.triangles, size, size)),
        forward_ms=_best(forward),
        forward_backward_ms=_best(forward_backward),
    )


def lines_of_rasteriser(rows: tuple[RasteriserTime, ...]) -> list[str]:
    """A table for the terminal."""
    head = f"{'rasteriser':<12}{'size':>6}{'batch':>7}{'rasterise ms':>14}{'forward ms':>12}{'with gradients ms':>19}"
    return [head] + [
        f"{row.vertices:<12}{row.size:>6}{row.batch:>7}{row.rasterise_ms:>14.2f}{row.forward_ms:>12.2f}{row.forward_backward_ms:>19.2f}"
        for row in rows
    ]


def _best(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_RUNS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000.0 * min(times)


def main() -> None:
    """Measure, print, and write where wanted."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.rasteriser", description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="a JSON file")
    options = parser.parse_args()
    rows = measure_rasteriser()
    print("\n".join(lines_of_rasteriser(rows)))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
