from __future__ import annotations

import pytest

from bench.rasteriser import VERTICES, face_relief, measure


@pytest.mark.parametrize("count", list(VERTICES))
def test_the_relief_has_the_named_number_of_vertices_and_uses_all_but_a_corner(count: int) -> None:
    relief = face_relief(count)
    assert relief.vertices.shape == (count, 3)
    assert relief.triangles.max() == count - 1
    assert len(relief.triangles) > 1.8 * count


def test_a_row_measures_all_three_and_each_includes_the_one_before() -> None:
    row = measure(face_relief(468), 48, 2)
    assert (row.vertices, row.size, row.batch) == (468, 48, 2)
    assert 0.0 < row.rasterise_ms < row.forward_ms < row.forward_backward_ms
