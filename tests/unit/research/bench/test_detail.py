from __future__ import annotations

import pytest

from research.bench.detail import measure, measure_jaw


@pytest.mark.parametrize("scale", [1, 3])
def test_a_row_measures_both_parts(scale: int) -> None:
    row = measure(scale, runs=2)
    assert row.scale == scale
    assert row.warp_ms > 0.0
    assert row.box_ms > 0.0


def test_the_jaw_is_measured() -> None:
    assert measure_jaw(runs=2) > 0.0
