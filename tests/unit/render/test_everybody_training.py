from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from services.common.crops import head_template
from services.common.mouth_bank import MouthBank
from services.render.heatmaps import WINDOW_CHANNELS
from services.render.losses import Features
from services.render.networks.everybody import EverybodyConfig
from services.render.networks.everybody_full import WindowDiscriminatorConfig
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.weights import load_everybody
from services.render.train.everybody import EverybodyRecipe, train
from services.render.train.everybody_footage import WindowSource
from services.render.train.footage import Person

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


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, bank: MouthBank) -> Path:
    """A training set of one clip, as the face stage writes it."""
    folder = tmp_path_factory.mktemp("set")
    count = bank.num_frames
    arrays = {
        "usable": np.ones(count, bool),
        "rotation": bank.rotation,
        "landmarks": np.repeat(head_template()[None], count, axis=0),
        "scale": np.ones(count),
        "translation": np.zeros((count, 3)),
        "boxes": bank.boxes,
        "mouth_landmarks": bank.mouth,
    }
    save_file(arrays, folder / "clip.safetensors", {"use": "train", "speaker": "drawn"})
    return folder


@pytest.fixture(scope="module")
def features() -> Features:
    torch.manual_seed(4)
    return PerceptualNetwork(PerceptualConfig(widths=(4, 4, 4, 4))).requires_grad_(False).features


def dying_at(step: int, features: Features) -> Features:
    """Features that end the run in the middle of a step; two calls a step."""
    calls: list[int] = []

    def looked_at(pictures: torch.Tensor) -> Sequence[torch.Tensor]:
        calls.append(0)
        if len(calls) > 2 * (step - 1):
            raise KilledError
        return features(pictures)

    return looked_at


def test_a_killed_run_goes_on_to_the_same_weights(data: Path, features: Features, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(data, features, whole, RECIPE, [])
    with pytest.raises(KilledError):
        train(data, dying_at(2, features), broken, RECIPE, [])
    train(data, features, broken, RECIPE, [])
    for name in ("everybody", "everybody_discriminator"):
        assert (whole / f"{name}.safetensors").read_bytes() == (broken / f"{name}.safetensors").read_bytes()
    assert load_everybody(whole / "everybody.safetensors").config == RECIPE.network
    with pytest.raises(ValueError, match="other settings"):
        train(data, features, whole, replace(RECIPE, steps=3), [])


def test_batches_are_those_of_their_step(bank: MouthBank) -> None:
    source = WindowSource([Person("drawn", bank, True)], sharp_share=0.5, seed=3)
    one, again, other = source.batch(4, 2), source.batch(4, 2), source.batch(5, 2)
    assert one.pictures.shape == (2, 160, 160, WINDOW_CHANNELS)
    assert one.past.shape == (2, 160, 160, 18)
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, other.pictures)
