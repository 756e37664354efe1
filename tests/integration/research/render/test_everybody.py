from pathlib import Path

import numpy as np
import pytest

from research.methods.everybody.render import NETWORK, EverybodyRecipe, EverybodyWindowSource, WindowDiscriminatorConfig
from research.training.training import LoopSettings
from research.training.trainset import TrainSet
from services.render.renderers.everybody.network import EverybodyConfig, load
from services.render.renderers.everybody.renderer import WINDOW_CHANNELS
from tests.unit.research.render.tiny_training import people_of, run_whole_and_killed, weights_of

RECIPE = EverybodyRecipe(
    loop=LoopSettings(steps=2, seed=2, check_every=1, bfloat16=True),
    warm_steps=1,
    warm_batch=1,
    batch=1,
    penalty_every=1,
    network=EverybodyConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
    windows=WindowDiscriminatorConfig(widths=(4, 8, 8), scores=1),
    check_clips=1,
    calibration_pictures=2,
)


@pytest.mark.long
def test_killed_run_same_weights(data: TrainSet, runs: dict[str, Path], tmp_path: Path) -> None:
    whole, broken = run_whole_and_killed(NETWORK, RECIPE, data, runs, tmp_path, killed_at=1)
    assert weights_of(broken) == weights_of(whole)
    assert load(whole / "everybody.safetensors").config == RECIPE.network
    assert "penalty" in (whole / "curves.csv").read_text()


def test_batches_are_those_of_their_step_and_index(data: TrainSet) -> None:
    source = EverybodyWindowSource(people_of(data), seed=3)
    one, again, other, index = (source.batch(*place, 2) for place in ((4, 0), (4, 0), (5, 0), (4, 1)))
    assert one.pictures.shape == (2, 160, 160, WINDOW_CHANNELS)
    assert one.past.shape == (2, 160, 160, 18)
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, other.pictures)
    assert not np.array_equal(one.pictures, index.pictures)
