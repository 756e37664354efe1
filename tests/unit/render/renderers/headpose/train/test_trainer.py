from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.array_types import Float32, UInt8
from services.common.face.mouth_bank import MouthBank
from services.common.store.tensor_bytes import encode_arrays
from services.render.key_pictures import choose_keys
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.pairs import NO_NOISE
from services.render.renderers.headpose.identity_features import IdentityFeatures
from services.render.renderers.headpose.inputs import PICTURE_CHANNELS, RENDERED
from services.render.renderers.headpose.network import HeadposeConfig
from services.render.renderers.headpose.pairs import DrawnView, drawn_pair
from services.render.renderers.headpose.train.footage import Drawings, DrawnSource, read_drawings
from services.render.renderers.headpose.train.trainer import HeadposeRecipe, HeadposeTrainer
from services.render.train.footage import Person
from tests.unit.render.drawn_person import drawing, person

RECIPE = HeadposeRecipe(
    steps=3,
    warm_steps=1,
    network=HeadposeConfig(
        widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), items=4, actor_items=2, identity_size=3, spatial_widths=(4, 4, 4, 4)
    ),
)


def mean_colour(boxes: UInt8) -> Float32:
    made = boxes.astype(np.float32).mean(axis=(1, 2))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def source(bank: MouthBank) -> DrawnSource:
    return DrawnSource([Person("drawn", bank, True)], {"drawn": Drawings(drawing(), drawing())}, sharp_share=0.5, seed=3)


def trainer() -> HeadposeTrainer:
    torch.manual_seed(4)
    perceptual = PerceptualNetwork(PerceptualConfig(widths=(4, 4, 4, 4))).requires_grad_(False)
    return HeadposeTrainer(RECIPE, perceptual, IdentityFeatures("0" * 64, 3, mean_colour))


def test_a_run_taken_up_again_comes_to_the_same_weights(source: DrawnSource) -> None:
    whole, first, second = trainer(), trainer(), trainer()
    reports = [whole.train_step(source.batch(step, 1)) for step in range(3)]
    assert "adversarial" not in reports[0]
    assert {"adversarial", "frame", "judge", "attention", "smoothness", "detail", "triplet"} <= reports[2].keys()
    assert reports[2]["items"] >= 1
    first.train_step(source.batch(0, 1))
    second.restore(first.state())
    for step in (1, 2):
        second.train_step(source.batch(step, 1))
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name]), name


def test_batches_are_those_of_their_step(source: DrawnSource) -> None:
    one, again, other = source.batch(4, 2), source.batch(4, 2), source.batch(5, 2)
    assert one.pictures.shape == (2, 160, 160, PICTURE_CHANNELS)
    assert one.targets.shape == one.others.shape == (2, 160, 160, 3)
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, other.pictures)


def test_nothing_of_the_answer_is_shown(bank: MouthBank) -> None:
    keys = choose_keys(bank, np.arange(20, 48))
    view = DrawnView((3, 4, 5), bank.boxes[3:6], keys, drawing(), detailed=True)
    pair = drawn_pair(bank, view, NO_NOISE, 0)
    hidden = pair.picture[..., 6:7] > 0
    other = drawn_pair(bank, replace(view, boxes=np.where(hidden, np.uint8(9), view.boxes)), NO_NOISE, 0)
    assert np.array_equal(pair.picture, other.picture)
    outside = ~hidden[..., 0]
    assert np.array_equal(pair.picture[outside][:, RENDERED], pair.target[outside])


def test_drawings_are_read_from_artefacts(tmp_path: Path) -> None:
    for name in ("anna.safetensors", "anna.still.safetensors"):
        (tmp_path / name).write_bytes(encode_arrays(person().arrays(), person().metadata()))
    assert read_drawings(tmp_path, "anna").still.has_detail
    with pytest.raises(FileNotFoundError):
        read_drawings(tmp_path, "ben")
