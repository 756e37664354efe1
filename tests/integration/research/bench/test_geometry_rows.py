"""The rows of the face model, its fitting, and the renderers."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.bench.fitting import lines_of_fitting, measure_fitting
from research.bench.renderer import lines_of_models, measure_models


def test_every_renderer_has_geometry_row() -> None:
    """Every renderer has a row and features cost something."""
    rows = measure_models(runs=1)
    assert {"ugc", "everybody"} <= {row.model for row in rows}
    assert all(0.0 < row.network_ms < row.frame_ms for row in rows)
    assert len(lines_of_models(rows)) == len(rows)


@pytest.mark.long
def test_fitting_is_measured_on_a_real_face(carphone: Path) -> None:
    times = measure_fitting(carphone, frames=12)
    assert times.frames == 12
    assert 0.0 < times.identity_error_px < 1.5
    assert 0.0 < times.landmark_error_px < 1.5
    assert min(times.track_ms, times.draw_ms, times.draw_detailed_ms) > 0.0
    assert "FitIdentity of 12 frames" in lines_of_fitting(times)[1]
