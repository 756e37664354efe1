from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research.methods.everyone.render import NETWORK, TRAINING, EveryoneRecipe, EveryoneTrainer, read_speech
from research.render.held_out import Clip
from research.render.people import ClipSpan
from research.training.training import LoopSettings
from research.training.trainset import TrainSet, identity_path, part_path
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from services.common.store.tensor_bytes import encode_arrays
from services.render.renderers.everyone.renderer import PICTURE_CHANNELS, SPEECH
from tests.unit.render.drawn_person import person
from tests.unit.render.renderers.everyone.person import CONFIG
from tests.unit.research.render.tiny_training import opened, run_whole_and_killed, small_set, weights_of

RECIPE = EveryoneRecipe(
    loop=LoopSettings(steps=3, seed=2, check_every=1, bfloat16=True),
    warm_steps=1,
    warm_batch=1,
    batch=1,
    network=CONFIG,
    check_clips=1,
    calibration_pictures=1,
)


def spoken_set(folder: Path, bank: MouthBank, *, identities: tuple[str, ...] = ("anna", "ben", "cleo")) -> TrainSet:
    """The small set with speech, and identities of some of its people."""
    data = small_set(folder, bank)
    (folder / "identities").mkdir()
    for speaker in identities:
        path = identity_path(folder, speaker, still=False)
        path.write_bytes(encode_arrays(person().arrays(), person().metadata()))
    rng = np.random.default_rng(0)
    for row in data.rows:
        posteriorgram = rng.random((row.frames, 4, 40), np.float32)
        save_file({"posteriorgram": posteriorgram}, part_path(folder, row.shard, row.name, "speech"))
    return data


@pytest.fixture(scope="module")
def data(bank: MouthBank, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return spoken_set(tmp_path_factory.mktemp("set"), bank)


@pytest.fixture(scope="module")
def training(data: TrainSet, runs: dict[str, Path]) -> EveryoneTrainer:
    made = opened(NETWORK, RECIPE, data, runs)
    assert isinstance(made, EveryoneTrainer)
    return made


@pytest.mark.long
def test_killed_run_same_weights(data: TrainSet, runs: dict[str, Path], tmp_path: Path) -> None:
    whole, broken = run_whole_and_killed(NETWORK, RECIPE, data, runs, tmp_path, killed_at=2)
    assert weights_of(whole) == weights_of(broken)
    assert (whole / "calibration.npy").read_bytes() == (broken / "calibration.npy").read_bytes()


def test_served_file_holds_no_texture(training: EveryoneTrainer, tmp_path: Path) -> None:
    """Network and textures learn together and the served file holds no texture."""
    before = [texture.detach().clone() for texture in training.textures.people]
    reports = [training.learn(step, [training.batch(step, 0)]) for step in range(4)]
    assert {"reconstruction", "texture", "perceptual"} <= reports[0].keys()
    assert "adversarial" not in reports[0]
    assert {"adversarial", "judge"} <= reports[2].keys()
    moved = [not np.array_equal(old, new.detach()) for old, new in zip(before, training.textures.people, strict=True)]
    assert any(moved)
    ranges = [(float(texture.detach().min()), float(texture.detach().max())) for texture in training.textures.people]
    assert all(low > 0.0 and high <= 1.0 for low, high in ranges)
    training.write(tmp_path)
    arrays = load_file(tmp_path / "everyone.safetensors")
    assert all(array.size < 256 * 256 for array in arrays.values())


def test_only_the_textures_of_the_batch_move(training: EveryoneTrainer) -> None:
    for step in range(5):
        batch = training.batch(step, 0)
        learned = {number for number, fresh in zip(batch.people, batch.fresh, strict=True) if not fresh}
        before = [texture.detach().clone() for texture in training.textures.people]
        training.learn(step, [batch])
        for number, (old, new) in enumerate(zip(before, training.textures.people, strict=True)):
            assert np.array_equal(old, new.detach()) == (number not in learned)


def test_batches_are_those_of_their_step(training: EveryoneTrainer) -> None:
    one, again, other = training.batch(4, 0), training.batch(4, 0), training.batch(5, 0)
    assert one.pictures.shape == (1, 160, 160, PICTURE_CHANNELS)
    assert np.array_equal(one.pictures, again.pictures)
    assert np.array_equal(one.targets, again.targets)
    assert not np.array_equal(one.pictures, other.pictures)


def test_people_without_an_identity_are_left_out(runs: dict[str, Path], bank: MouthBank, tmp_path: Path) -> None:
    some = spoken_set(tmp_path / "some", bank, identities=("anna", "cleo"))
    assert {row.speaker for row in opened(NETWORK, RECIPE, some, runs).clips} == {"anna"}
    nobody = spoken_set(tmp_path / "nobody", bank, identities=())
    with pytest.raises(InvalidRequestError, match="nobody has an identity: `dubstage trainset`"):
        opened(NETWORK, RECIPE, nobody, runs)


def test_speech_and_looks_of_examples(data: TrainSet) -> None:
    """Speech lies around its frame without the clip's lag, and a held-out clip is shown with the looks of its first part."""
    row = data.of("train")[0]
    rows = data.arrays(row, "speech", ("posteriorgram",))["posteriorgram"]
    speech = read_speech(data, [ClipSpan(row, 0, row.usable_frames)])
    assert np.array_equal(speech[10], rows[9:14].reshape(20, 40))
    assert not speech[0][:4].any()
    assert np.array_equal(speech[0][4:], rows[:4].reshape(16, 40))
    lagging = ClipSpan(replace(row, lag_frames=2), 0, row.usable_frames)
    assert np.array_equal(read_speech(data, [lagging])[10], rows[11:16].reshape(20, 40))
    held = TRAINING.held_out(Clip(data, data.of("val")[0]), 3)
    assert held.pairs[0].picture.shape == (160, 160, PICTURE_CHANNELS)
    assert held.pairs[0].picture[..., SPEECH].any()
