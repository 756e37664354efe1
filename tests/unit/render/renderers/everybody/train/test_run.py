from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.common.face.mouth_bank import MouthBank
from services.render.losses import Features
from services.render.renderers.everybody.inputs import WINDOW_CHANNELS
from services.render.renderers.everybody.network import EverybodyConfig, load
from services.render.renderers.everybody.train.footage import WindowSource
from services.render.renderers.everybody.train.full_network import WindowDiscriminatorConfig
from services.render.renderers.everybody.train.run import train
from services.render.renderers.everybody.train.trainer import EverybodyRecipe
from services.render.train.footage import Person
from tests.unit.render.train.tiny_training import KilledError, dying_at, tiny_features, write_set

RECIPE = EverybodyRecipe(
    steps=2,
    warm_steps=1,
    warm_batch=1,
    batch=1,
    penalty_every=1,
    network=EverybodyConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
    windows=WindowDiscriminatorConfig(widths=(4, 8, 8), scores=1),
    report_every=1,
    validate_every=1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, bank: MouthBank) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), bank)


@pytest.fixture(scope="module")
def features() -> Features:
    return tiny_features()


def test_a_killed_run_goes_on_to_the_same_weights(data: Path, features: Features, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(data, features, whole, RECIPE, [])
    with pytest.raises(KilledError):
        train(data, dying_at(2, features), broken, RECIPE, [])
    train(data, features, broken, RECIPE, [])
    for name in ("everybody", "everybody_discriminator"):
        assert (whole / f"{name}.safetensors").read_bytes() == (broken / f"{name}.safetensors").read_bytes()
    assert load(whole / "everybody.safetensors").config == RECIPE.network
    with pytest.raises(ValueError, match="other settings"):
        train(data, features, whole, replace(RECIPE, steps=3), [])


def test_batches_are_those_of_their_step(bank: MouthBank) -> None:
    source = WindowSource([Person("drawn", bank, True)], sharp_share=0.5, seed=3)
    one, again, other = source.batch(4, 2), source.batch(4, 2), source.batch(5, 2)
    assert one.pictures.shape == (2, 160, 160, WINDOW_CHANNELS)
    assert one.past.shape == (2, 160, 160, 18)
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, other.pictures)
