from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.methods.ugc.render import NETWORK, UgcRecipe, UgcSource, UgcTrainer
from research.training.training import LoopSettings
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from services.render.networks.unet import FilmConv
from services.render.renderers.ugc.network import UgcConfig
from tests.unit.research.render.tiny_training import add_clip, first_frames, opened, people_of, run_whole_and_killed, weights_of

RECIPE = UgcRecipe(
    loop=LoopSettings(steps=2, seed=2, check_every=1, bfloat16=True),
    warm_steps=1,
    warm_batch=1,
    batch=0,
    network=UgcConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
    check_clips=1,
    calibration_pictures=2,
)


def test_killed_run_same_weights(data: TrainSet, runs: dict[str, Path], tmp_path: Path) -> None:
    whole, broken = run_whole_and_killed(NETWORK, RECIPE, data, runs, tmp_path, killed_at=1)
    assert weights_of(broken) == weights_of(whole)
    assert set(weights_of(whole)) == {"ugc.safetensors", "frame_discriminator.safetensors"}
    assert (broken / "curves.csv").read_bytes() == (whole / "curves.csv").read_bytes()
    assert (whole / "held_out_000002.png").is_file()
    assert np.load(whole / "calibration.npy").shape == (2, 160, 160, 9)
    assert "sequence_judge" in (whole / "curves.csv").read_text()


def test_gradients_of_several_batches_are_averaged(data: TrainSet, runs: dict[str, Path]) -> None:
    config = replace(RECIPE, warm_steps=0, loop=replace(RECIPE.loop, batches=2))
    one, two = opened(NETWORK, config, data, runs), opened(NETWORK, config, data, runs)
    batch = one.batch(0, 0)
    single, twice = one.learn(0, [batch]), two.learn(0, [batch, batch])
    assert twice == pytest.approx(single, rel=1e-3, abs=1e-5)


def test_wide_layers_learn_in_smaller_steps(data: TrainSet, runs: dict[str, Path]) -> None:
    trainer = opened(NETWORK, UgcRecipe(), data, runs)
    assert isinstance(trainer, UgcTrainer)
    rates = {value: group["rate_scale"] for group in trainer.optimiser.param_groups for value in group["params"]}
    network = trainer.network
    assert len(rates) == len(list(network.parameters()))
    assert rates[network.head.conv.weight] == 1.0
    for layer in (network.stem, *network.up):
        assert isinstance(layer, FilmConv)
        reach = rates[layer.conv.weight] * layer.conv.weight[0].numel()
        assert reach == pytest.approx(rates[network.head.conv.weight] * network.head.conv.weight[0].numel())


def test_batches_are_those_of_their_step_and_index(data: TrainSet) -> None:
    source = UgcSource(people_of(data), seed=3)
    one, again, step, index = (source.batch(*place, 2) for place in ((4, 0), (4, 0), (5, 0), (4, 1)))
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, step.pictures)
    assert not np.array_equal(one.pictures, index.pictures)


def test_one_short_clip_is_enough(bank: MouthBank, tmp_path: Path) -> None:
    add_clip(tmp_path, first_frames(bank, 30), "one", speaker="anna")
    source = UgcSource(people_of(TrainSet(tmp_path)), seed=3)
    for step in range(8):
        assert len(source.batch_with_sequence(step, 0, 1, 6).pictures) == 7


def test_vgg_replaces_perceptual_network(data: TrainSet, runs: dict[str, Path], tmp_path: Path) -> None:
    """A VGG file takes the place of the perceptual network."""
    with pytest.raises(InvalidRequestError, match="no VGG weights file"):
        opened(NETWORK, replace(RECIPE, vgg=str(tmp_path / "vgg.pth")), data, runs)
