from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.methods.headpose.render import NETWORK, Drawings, DrawnSource, HeadposeRecipe, read_drawings
from research.training.training import LoopSettings
from research.training.trainset import TrainSet, identity_path
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from services.common.store.tensor_bytes import encode_arrays
from services.render.key_pictures import choose_keys
from services.render.pairs import NO_NOISE
from services.render.renderers.headpose.identity_features import embedding_of
from services.render.renderers.headpose.network import HeadposeConfig, load
from services.render.renderers.headpose.personalize import DrawnView, drawn_pair
from services.render.renderers.headpose.renderer import PICTURE_CHANNELS, RENDERED
from tests.unit.render.drawn_person import drawing, person
from tests.unit.research.render.tiny_training import opened, people_of, run_whole_and_killed, small_set, weights_of

RECIPE = HeadposeRecipe(
    loop=LoopSettings(steps=3, seed=2, check_every=1, bfloat16=True),
    warm_steps=1,
    warm_batch=1,
    batch=1,
    network=HeadposeConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), items=4, actor_items=2),
    check_clips=1,
    calibration_pictures=1,
)


@pytest.fixture(scope="module")
def data(bank: MouthBank, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    folder = tmp_path_factory.mktemp("set")
    data = small_set(folder, bank)
    (folder / "identities").mkdir()
    for speaker in ("anna", "cleo"):
        add_identity(folder, speaker)
    return data


def add_identity(folder: Path, speaker: str) -> None:
    for still in (False, True):
        identity_path(folder, speaker, still=still).write_bytes(encode_arrays(person().arrays(), person().metadata()))


@pytest.fixture(scope="module")
def source(bank: MouthBank, data: TrainSet) -> DrawnSource:
    return DrawnSource(people_of(data), lambda _: Drawings(drawing(), drawing()), seed=3)


@pytest.mark.long
def test_killed_run_same_weights(data: TrainSet, runs: dict[str, Path], tmp_path: Path) -> None:
    whole, broken = run_whole_and_killed(NETWORK, RECIPE, data, runs, tmp_path, killed_at=2)
    assert weights_of(whole) == weights_of(broken)
    assert load(whole / "headpose.safetensors").config.spatial_widths == (4, 4, 4, 4)
    assert embedding_of(whole / "headpose.safetensors").path == whole / "identity_embedding.safetensors"


def test_memory_and_discriminators_take_turns_with_the_generator(source, data, runs) -> None:
    training = opened(NETWORK, RECIPE, data, runs)
    reports = [training.learn(step, [source.batch(step, 0, 1)]) for step in range(3)]
    assert "adversarial" not in reports[0]
    assert {"adversarial", "frame", "judge", "attention", "smoothness", "detail", "triplet", "mean_attention"} <= reports[2].keys()
    assert reports[2]["items"] >= 1


def test_people_without_an_identity_are_left_out(data: TrainSet, runs: dict[str, Path], bank: MouthBank, tmp_path: Path) -> None:
    assert {row.speaker for row in opened(NETWORK, RECIPE, data, runs).clips} == {"anna"}
    with pytest.raises(InvalidRequestError, match="nobody has an identity: `dubstage trainset`"):
        opened(NETWORK, RECIPE, small_set(tmp_path, bank), runs)


def test_batches_are_those_of_their_step(source: DrawnSource) -> None:
    one, again, other = source.batch(4, 0, 2), source.batch(4, 0, 2), source.batch(5, 0, 2)
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


def test_drawings_are_read_from_the_set(data: TrainSet) -> None:
    assert read_drawings(data, "anna").still.has_detail
    with pytest.raises(InvalidRequestError, match=r"ben\.safetensors is missing"):
        read_drawings(data, "ben")
