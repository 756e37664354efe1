"""The rows of the face model's fitting and of the renderers."""

from pathlib import Path

import numpy as np
import pytest

from research.bench.fitting import measure_fitting
from research.bench.renderer import batch_of, frames_of, measure_models
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.streams import load_models, make_backend


def test_every_renderer_has_geometry_row() -> None:
    """Every renderer has a row and features cost something."""
    rows = measure_models(runs=1)
    assert {"ugc", "everybody"} <= {row.model for row in rows}
    assert all(0.0 < row.network_ms < row.frame_ms for row in rows)


def test_actor_frame_same_among_others() -> None:
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    batching = {
        name: model
        for name, model in load_models(WEIGHTS_FOLDER, backend).files.items()
        if all(form.batched for form in model.inputs)
    }
    assert batching
    for name, model in batching.items():
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
