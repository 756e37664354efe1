"""Times of the fine detail."""

from __future__ import annotations

from research.bench.renderer import measure_detail


def test_larger_faces_cost_more() -> None:
    rows = measure_detail(runs=2)
    assert [row.scale for row in rows] == [1, 2, 3, 4]
    assert rows[3].warp_ms + rows[3].box_ms > rows[0].warp_ms + rows[0].box_ms > 0.0
    assert rows[0].jaw_ms > 0.0
