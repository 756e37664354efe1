"""The training of the perceptual network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from research.render.people import person_clips
from research.render.perceptual import NETWORK, PerceptualRecipe, draw_examples, landmark_scale
from research.training.training import LoopSettings
from research.training.trainset import TrainSet
from services.common.face.mouth_bank import MouthBank
from services.render.networks.perceptual import load_perceptual
from tests.unit.motion.brief_training import train_briefly
from tests.unit.research.render.tiny_training import people_of, run_whole_and_killed, small_set, weights_of

RECIPE = PerceptualRecipe(loop=LoopSettings(steps=2, seed=1, check_every=1, bfloat16=True), batch_size=2, widths=(4, 4, 4, 4))


@pytest.fixture(scope="module")
def data(bank: MouthBank, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return small_set(tmp_path_factory.mktemp("set"), bank)


@pytest.mark.long
def test_killed_run_same_weights(data: TrainSet, tmp_path: Path) -> None:
    whole, broken = run_whole_and_killed(NETWORK, RECIPE, data, {}, tmp_path, killed_at=1)
    assert weights_of(whole) == weights_of(broken)
    assert "held_out_landmark_error_px" in (whole / "CARD.md").read_text()
    (path,) = NETWORK.export(whole, tmp_path)
    assert load_perceptual(path).config.num_speakers == 2


def test_features_have_unit_size(data: TrainSet, tmp_path: Path) -> None:
    """Features are of size one on the training people."""
    config = replace(RECIPE, loop=replace(RECIPE.loop, steps=1))
    train_briefly(NETWORK, data, config, tmp_path)
    network = load_perceptual(tmp_path / "perceptual.safetensors")
    scale = landmark_scale(data, person_clips(data.of("train")))
    shown = draw_examples(people_of(data), scale, RECIPE, np.random.default_rng(3), 0, augmented=False)
    for feature in network.features(torch.from_numpy(shown.pictures)):
        assert float(feature.abs().mean()) == pytest.approx(1.0, rel=0.1)
