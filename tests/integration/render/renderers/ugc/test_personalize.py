import contextvars
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import ModelNotFoundError, WorkCancelledError
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.server.call_context import Call, set_current_call
from services.render.personalization import PersonalizeRecipe
from services.render.renderer import PersonalizeJob
from services.render.renderers.ugc.personalize import personalize_ugc

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
