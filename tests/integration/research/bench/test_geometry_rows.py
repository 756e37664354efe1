"""The rows of the face model's fitting, of the renderers, and of a GPU."""

from pathlib import Path

import numpy as np
import pytest

from research.bench import gpu
from research.bench.fitting import measure_fitting
from research.bench.renderer import batch_of, frames_of, measure_models
from research.render.models import load_models
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.streams import make_backend


def test_every_renderer_has_geometry_row() -> None:
    """Every renderer has a row and features cost something."""
    rows = measure_models(runs=1)
    assert {"ugc", "everybody"} <= {row.model for row in rows}
    assert all(0.0 < row.network_ms < row.frame_ms for row in rows)


def test_actor_frame_same_among_others() -> None:
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    models = load_models(WEIGHTS_FOLDER, backend).files
    assert models
    for name, model in models.items():
        frames = [frames_of(model, seed, count=1)[0] for seed in (1, 2)]
        together = backend.infer(name, batch_of(model, frames))
        for place, frame in enumerate(frames):
            alone = backend.infer(name, batch_of(model, [frame]))
            for key, values in alone.items():
                assert np.allclose(values[0], together[key][place], atol=2e-3), (name, key)


@pytest.mark.long
def test_fitting_is_measured_on_a_real_face(carphone: Path) -> None:
    times = measure_fitting(carphone, frames=12)
    assert times.frames == 12
    assert 0.0 < times.identity_error_px < 1.5
    assert 0.0 < times.landmark_error_px < 1.5
    assert times.track_ms > 0.0


def test_parity_of_processor_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor draws what it draws, alone and in a batch, and the page has a row for each network."""
    monkeypatch.setattr(gpu, "_PARITY_FRAMES", 2)
    rows = gpu.measure_parity("cpu")
    assert all(row.mean == row.largest == 0.0 and row.alone and row.holds for row in rows)
    page = gpu.page(
        gpu.Report(machine=gpu.describe_machine(), device="cpu", rows={"parity": rows}, failures={"triton": "no server"})
    )
    assert all(f"| {row.model} | 0 | 0 |" in page for row in rows)
    assert "**triton failed**: no server" in page
