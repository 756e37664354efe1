from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.render.streams import RenderModels, default_state
from services.render.types import RenderFrame
from tests.unit.render.rendering import RUNTIMES, committed_models, render


def test_outside_the_mask_the_box_is_the_background(models: RenderModels, frames: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    for frame, made in zip(frames, render(models.backend, file, frames, default_state(file)), strict=True):
        assert made.frame_index == frame.frame_index
        assert np.array_equal(made.mask, frame.mask)
        outside = frame.mask == 0
        assert np.array_equal(made.box[outside], frame.background[outside])


def test_batches_change_no_byte(models: RenderModels, frames: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    state = np.random.default_rng(0).normal(0.0, 0.05, file.state_size).astype(np.float32)
    together = render(models.backend, file, frames, state)
    alone = [render(models.backend, file, [frame], state)[0] for frame in frames]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.box, other.box)


def test_what_the_mask_hides_has_no_influence(models: RenderModels, frames: list[RenderFrame]) -> None:
    file, frame = models.files["ugc"], frames[1]
    hidden = replace(frame, background=np.where(frame.mask[..., None] > 0, np.uint8(7), frame.background))
    (one,), (other,) = (render(models.backend, file, [given], default_state(file)) for given in (frame, hidden))
    assert np.array_equal(one.box, other.box)


def test_runtimes_agree(frames: list[RenderFrame]) -> None:
    boxes = []
    for runtime in RUNTIMES:
        loaded = committed_models(runtime)
        boxes.append(render(loaded.backend, loaded.files["ugc"], frames[:1], default_state(loaded.files["ugc"]))[0].box)
    float_, openvino, int8 = boxes
    assert np.abs(float_.astype(int) - openvino).max() <= 1
    assert np.abs(float_.astype(int) - int8).mean() < 1.0


def test_a_state_of_another_length_is_refused(models: RenderModels, frames: list[RenderFrame]) -> None:
    with pytest.raises(InvalidRequestError, match="has 3 numbers"):
        render(models.backend, models.files["ugc"], frames, np.zeros(3, np.float32))
