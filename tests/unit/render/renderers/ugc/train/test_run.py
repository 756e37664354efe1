from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.face.mouth_bank import MouthBank
from services.render.losses import Features
from services.render.networks.unet import FilmConv
from services.render.renderers.ugc.network import UgcConfig
from services.render.renderers.ugc.train.run import train
from services.render.renderers.ugc.train.trainer import UgcRecipe, UgcTrainer
from services.render.train.held_out import ClipName
from tests.unit.render.train.tiny_training import KilledError, dying_at, tiny_features, write_set

RECIPE = UgcRecipe(
    steps=2,
    warm_steps=1,
    warm_batch=1,
    batch=0,
    network=UgcConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
    report_every=1,
    validate_every=1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, bank: MouthBank) -> Path:
    folder = write_set(tmp_path_factory.mktemp("set"), bank, repeats=4)
    return write_set(folder, bank, repeats=4, use="val")


@pytest.fixture(scope="module")
def features() -> Features:
    return tiny_features()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "curves.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(data: Path, features: Features, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    train(data, features, out, RECIPE, [])
    return out


def test_a_killed_run_goes_on_to_the_same_weights(data: Path, features: Features, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(data, dying_at(2, features), tmp_path, RECIPE, [])
    assert steps_of(tmp_path) == [1]
    train(data, features, tmp_path, RECIPE, [])
    assert files_of(tmp_path) == files_of(whole)
    assert set(files_of(whole)) == {"ugc.safetensors", "frame_discriminator.safetensors"}
    assert steps_of(tmp_path) == steps_of(whole) == [1, 2]


def test_a_run_is_not_continued_with_other_settings(data: Path, features: Features, whole: Path) -> None:
    before = files_of(whole)
    with pytest.raises(ValueError, match="other settings"):
        train(data, features, whole, replace(RECIPE, steps=3), [])
    assert files_of(whole) == before


def test_held_out_clips_are_drawn_and_logged(data: Path, features: Features, tmp_path: Path) -> None:
    train(data, features, tmp_path, replace(RECIPE, steps=1), [ClipName(data, "val", "val")])
    assert "val_psnr_db" in (tmp_path / "curves.jsonl").read_text()
    assert (tmp_path / "held_out_00001.png").is_file()


def test_wide_layers_learn_in_smaller_steps(features: Features) -> None:
    trainer = UgcTrainer(UgcRecipe(), features)
    rates = {value: group["rate_scale"] for group in trainer.optimiser.param_groups for value in group["params"]}
    network = trainer.network
    assert len(rates) == len(list(network.parameters()))
    assert rates[network.head.conv.weight] == 1.0
    for layer in (network.stem, *network.up):
        assert isinstance(layer, FilmConv)
        reach = rates[layer.conv.weight] * layer.conv.weight[0].numel()
        assert reach == pytest.approx(rates[network.head.conv.weight] * network.head.conv.weight[0].numel())
