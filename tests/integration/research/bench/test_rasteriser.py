from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from research.bench import rasteriser
from research.bench.rasteriser import VERTICES, face_relief, measure


@pytest.mark.parametrize("count", list(VERTICES))
def test_relief_vertex_count(count: int) -> None:
    """The relief has the named number of vertices and uses all but a corner."""
    relief = face_relief(count)
    assert relief.vertices.shape == (count, 3)
    assert relief.triangles.max() == count - 1
    assert len(relief.triangles) > 1.8 * count


def test_row_measures_processor_time() -> None:
    """A row measures all three by the time of the processor."""
    row = measure(face_relief(468), 48, 2)
    assert (row.vertices, row.size, row.batch) == (468, 48, 2)
    assert min(row.rasterise_ms, row.forward_ms, row.forward_backward_ms) > 0.0


def test_each_time_includes_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def counted(step: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal steps
            steps += 1
            return step(*arguments)

        return call

    # A clock on which each step takes one second, because a busy machine may take longer for less.
    for name in ("rasterise", "interpolate", "interpolate_with_gradients", "antialias"):
        monkeypatch.setattr(rasteriser, name, counted(getattr(rasteriser, name)))
    monkeypatch.setattr(time, "process_time", lambda: steps)
    row = measure(face_relief(468), 48, 2)
    assert (row.rasterise_ms, row.forward_ms, row.forward_backward_ms) == (1000.0, 2000.0, 3000.0)
