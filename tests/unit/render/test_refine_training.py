from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from services.common.crops import head_template
from services.common.mouth_bank import MouthBank
from services.render.losses import Features
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.refine import FilmConv, RefineConfig
from services.render.train.refine import RefineRecipe, RefineTrainer, train

RECIPE = RefineRecipe(
    steps=2,
    warm_steps=1,
    warm_batch=1,
    singles_beside_sequence=0,
    network=RefineConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
    report_every=1,
    validate_every=1,
)


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, bank: MouthBank) -> Path:
    """A training set of one clip, as the face stage writes it: four times the drawn person's 48 frames."""
    folder = tmp_path_factory.mktemp("set")
    arrays = {
        "usable": np.ones(48, bool),
        "rotation": bank.rotation,
        "landmarks": np.repeat(head_template()[None], 48, axis=0),
        "scale": np.ones(48),
        "translation": np.zeros((48, 3)),
        "boxes": bank.boxes,
        "mouth_landmarks": bank.mouth,
    }
    tiled = {name: np.ascontiguousarray(np.concatenate([values] * 4)) for name, values in arrays.items()}
    save_file(tiled, folder / "clip.safetensors", {"use": "train", "speaker": "drawn"})
    return folder


@pytest.fixture(scope="module")
def features() -> Features:
    torch.manual_seed(4)
    network = PerceptualNetwork(PerceptualConfig(widths=(4, 4, 4, 4))).requires_grad_(False)
    return network.features


def dying_at(step: int, features: Features) -> Features:
    """Features that end the run in the middle of a step; two calls a step."""
    calls: list[int] = []

    def looked_at(pictures: torch.Tensor) -> Sequence[torch.Tensor]:
        calls.append(0)
        if len(calls) > 2 * (step - 1):
            raise KilledError
        return features(pictures)

    return looked_at


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
    assert steps_of(tmp_path) == steps_of(whole) == [1, 2]


def test_a_run_is_not_continued_with_other_settings(data: Path, features: Features, whole: Path) -> None:
    before = files_of(whole)
    with pytest.raises(ValueError, match="other settings"):
        train(data, features, whole, replace(RECIPE, steps=3), [])
    assert files_of(whole) == before


def test_wide_layers_learn_in_smaller_steps(features: Features) -> None:
    trainer = RefineTrainer(RefineRecipe(), features)
    rates = {value: group["rate_scale"] for group in trainer.optimiser.param_groups for value in group["params"]}
    network = trainer.network
    assert len(rates) == len(list(network.parameters()))
    assert rates[network.head.conv.weight] == 1.0
    for layer in (network.stem, *network.up):
        assert isinstance(layer, FilmConv)
        reach = rates[layer.conv.weight] * layer.conv.weight[0].numel()
        assert reach == pytest.approx(rates[network.head.conv.weight] * network.head.conv.weight[0].numel())
