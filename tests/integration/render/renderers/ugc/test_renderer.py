import contextvars
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import InvalidRequestError, ModelNotFoundError, WorkCancelledError
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.server.call_context import Call, set_current_call
from services.render.personalization import PersonalizeRecipe
from services.render.renderer import PersonalizeJob
from services.render.renderers.ugc.personalize import personalize_ugc
from services.render.streams import RenderModels, default_state
from services.render.types import RenderFrame
from tests.unit.render.rendering import RUNTIMES, committed_models, render


def test_outside_the_mask_the_box_is_the_background(models: RenderModels, frames: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    for frame, made in zip(frames, render(models.backend, file, frames, default_state(file)), strict=True):
        assert made.frame_index == frame.frame_index
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


RECIPE = PersonalizeRecipe(num_steps=6, batch_size=2, num_pairs=4, report_every=2, learning_rate=3e-2)


def job(bank: MouthBank, weights: Path, seed: int = 0) -> PersonalizeJob:
    return PersonalizeJob(bank=bank, drawing=None, weights=weights, seed=seed)


def test_personalisation_improves_with_progress(bank: MouthBank, small_weights: Path) -> None:
    """Personalisation reports progress and draws nearer to the person."""
    reports = list(personalize_ugc(job(bank, small_weights), RECIPE))
    assert [(report.step, report.num_steps) for report in reports] == [(2, 6), (4, 6), (6, 6)]
    assert reports[-1].loss < 0.9 * reports[0].loss
    assert reports[-1].state.any()


def test_state_of_seed_and_bank(bank: MouthBank, small_weights: Path) -> None:
    """The same seed gives the same state, and a short bank gets the state of the prior."""
    recipe = replace(RECIPE, num_steps=1)
    states = [list(personalize_ugc(job(bank, small_weights, seed), recipe))[-1].state for seed in (5, 5, 6)]
    assert np.array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])
    short = make_bank(bank.boxes[:6], bank.mouth[:6], bank.rotation[:6], bank.frame_index[:6], bank.geometry)
    reports = list(personalize_ugc(job(short, small_weights)))
    assert len(reports) == 1
    assert reports[0].num_steps == 0
    assert not reports[0].state.any()


def test_missing_weights_are_named(bank: MouthBank, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"ugc.safetensors"):
        next(personalize_ugc(job(bank, tmp_path)))


def test_personalisation_stops_when_cancelled(bank: MouthBank, small_weights: Path) -> None:
    """Personalisation stops before the next step when no caller waits any more."""
    call = Call("render", "Personalize")

    def run() -> None:
        set_current_call(call)
        reports = personalize_ugc(job(bank, small_weights), replace(RECIPE, report_every=1))
        assert next(reports).step == 1
        call.ended.set()
        with pytest.raises(WorkCancelledError):
            next(reports)

    contextvars.copy_context().run(run)
