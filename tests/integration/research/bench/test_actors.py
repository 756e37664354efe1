"""Batches of many actors on the installed models."""

from __future__ import annotations

import numpy as np
import pytest

from research.bench import actors
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.streams import load_models, make_backend


def test_actor_frame_same_among_others() -> None:
    """A frame of an actor is the same among other actors."""
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    models = load_models(WEIGHTS_FOLDER, backend).files
    tried = 0
    for name, model in models.items():
        if not all(form.batched for form in model.inputs):
            continue
        tried += 1
        frames = [actors.frames_of(model, seed, count=1)[0] for seed in (1, 2)]
        together = backend.infer(name, actors.batch_of(model, frames))
        for place, frame in enumerate(frames):
            alone = backend.infer(name, actors.batch_of(model, [frame]))
            for key, values in alone.items():
                assert np.allclose(values[0], together[key][place], atol=2e-3), (name, key)
    assert tried >= 1


def test_every_batching_model_has_row() -> None:
    """Every model that can batch actors has a row."""
    rows = actors.measure_actors(actors=2, runs=1)
    assert rows
    for row in rows:
        assert row.actors == 2
        assert row.share == pytest.approx(row.many_fps / row.one_fps)
    assert len(actors.lines_of_actors(rows)) == len(rows)
