import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.key_pictures import STATE_SIZE, KeyPictures, choose_keys, packed, unpacked
from services.render.networks.weights import save_weights
from services.render.personalization import PersonalizeRecipe
from services.render.renderer import PersonalizeJob
from services.render.renderers.everybody.network import EverybodyConfig, EverybodyNetwork, load
from services.render.renderers.everybody.personalize import actor_windows, personalize_everybody
from services.render.streams import RenderModels, default_state, open_stream
from services.render.types import PersonalizeProgress, RenderedFrame, RenderFrame
from tests.integration.render.renderers.drawn_actor import DrawnActor, bytes_of, drawn_by
from tests.integration.render.renderers.masks import is_background_outside, repainted, skin_error
from tests.unit.render.rendering import RUNTIMES
from tests.unit.render.zero_weights import fill_zero_weights


def person(models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person, with a FiLM state of some size."""
    length = models.files["everybody"].state_size - STATE_SIZE
    film = np.random.default_rng(2).normal(0.0, 0.05, length).astype(np.float32)
    return DrawnActor(models, "everybody", packed(film, choose_keys(bank, np.arange(bank.num_frames))))


def test_parts_of_a_stream(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """Chunks change no byte, a part with its past gives the bytes of the whole, and after a gap the window begins anew."""
    assert [made.frame_index for made in whole] == list(range(20, 30))
    assert bytes_of(whole) == bytes_of(actor.drawn(clip[:1], clip[1:4], clip[4:9], clip[9:]))
    past = [replace(frame, context_only=True) for frame in clip[2:8]]
    assert bytes_of(whole)[8:] == bytes_of(actor.drawn([*past, *clip[8:]]))
    assert bytes_of(whole)[8:] != bytes_of(actor.drawn(clip[8:]))
    assert bytes_of(actor.drawn([*clip[:2], *clip[8:]]))[2:] == bytes_of(actor.drawn(clip[8:]))


def test_mask_divides_face_and_footage(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """What the masks hide has no influence, and outside the mask the box is the background."""
    assert bytes_of(actor.drawn(clip[:3])) == bytes_of(actor.drawn(list(map(repainted, clip[:3]))))
    assert all(is_background_outside(frame, made) for frame, made in zip(clip, whole, strict=True))


def test_the_wanted_landmarks_open_the_mouth(actor: DrawnActor, bank: MouthBank, clip: list[RenderFrame]) -> None:
    target = [replace(clip[0], frame_index=0, box_landmarks=bank.box_landmarks[row]) for row in (0, 6)]
    shut, wide = (actor.drawn([frame])[0].box.astype(int) for frame in target)
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    middle = (slice(y - 3, y + 4), slice(x - 8, x + 9))
    truth = bank.boxes[6][middle].astype(int)
    assert np.abs(wide[middle] - truth).mean() < 0.6 * np.abs(shut[middle] - truth).mean()


def test_runtimes_agree(bank: MouthBank, clip: list[RenderFrame]) -> None:
    float_, openvino, int8 = drawn_by(RUNTIMES, lambda models: person(models, bank), clip[0])
    assert np.abs(float_ - openvino).max() <= 1
    assert np.abs(float_ - int8).mean() < 1.5


def test_nobody_can_be_drawn(models: RenderModels, clip: list[RenderFrame]) -> None:
    """Without an actor, the renderer draws nobody; a state of another length is refused."""
    (made,) = DrawnActor(models, "everybody", default_state(models.files["everybody"])).drawn(clip[:1])
    assert skin_error(clip[0], made) < 60
    with pytest.raises(InvalidRequestError, match="has 3 numbers"):
        open_stream(models.backend, models.files["everybody"], np.zeros(3, np.float32))


def test_the_other_model_needs_a_texture(models: RenderModels, frames: list[RenderFrame], clip: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    stream = open_stream(models.backend, file, default_state(file))
    assert stream.render([replace(frames[0], context_only=True)]) == []
    with pytest.raises(InvalidRequestError, match="texture is missing"):
        stream.render(clip[:1])


RECIPE = PersonalizeRecipe(num_steps=2, batch_size=1, num_pairs=3, report_every=1)


@pytest.fixture(scope="module")
def weights(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("everybody") / "weights"
    shutil.copytree(small_weights, folder)
    torch.manual_seed(6)
    network = EverybodyNetwork(EverybodyConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)))
    fill_zero_weights(network)
    save_weights(folder / "everybody.safetensors", network, network.config.to_metadata())
    return folder


def job(bank: MouthBank, weights: Path, *, seed: int = 0, train: bool = True) -> PersonalizeJob:
    return PersonalizeJob(bank=bank, drawing=None, weights=weights, seed=seed, train=train)


@pytest.fixture(scope="module")
def reports(bank: MouthBank, weights: Path) -> list[PersonalizeProgress]:
    """Reports with seed 0."""
    return list(personalize_everybody(job(bank, weights), RECIPE))


def test_state_learns_from_a_seed(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    """The state learns and holds the key pictures, and the same seed gives the same bytes."""
    assert [(report.step, report.num_steps) for report in reports] == [(1, 2), (2, 2)]
    film, keys = unpacked(reports[-1].state)
    assert len(film) == load(weights / "everybody.safetensors").state_size
    assert film.any()
    assert np.array_equal(keys.pictures, choose_keys(bank, np.arange(bank.num_frames)).pictures)
    again, other = (list(personalize_everybody(job(bank, weights, seed=seed), RECIPE))[-1].state.tobytes() for seed in (0, 2))
    assert reports[-1].state.tobytes() == again
    assert again != other


def test_untrained_bank_gives_key_pictures(bank: MouthBank, weights: Path) -> None:
    """Without other moments or training, a bank gives its key pictures."""
    few = make_bank(bank.boxes[:5], bank.mouth[:5], bank.rotation[:5], bank.frame_index[:5], bank.geometry)
    for given, train in ((few, True), (bank, False)):
        (report,) = personalize_everybody(job(given, weights, train=train), RECIPE)
        assert (report.step, report.num_steps) == (0, 0)
        film, keys = unpacked(report.state)
        assert not film.any()
        assert keys.landmarks.any()


def test_examples_skip_own_key_pictures(bank: MouthBank) -> None:
    # A pixel that no mask covers says which frame a picture is.
    boxes = bank.boxes.copy()
    boxes[:, 0, 0, 0] = np.arange(bank.num_frames)
    rows = (1, 2, 3, 24, 25, 26, 45, 46, 47)
    keys = KeyPictures(boxes[list(rows)], bank.box_landmarks[list(rows)], rows)
    changed = replace(keys, pictures=np.where(np.arange(len(rows))[:, None, None, None] < 3, np.uint8(0), keys.pictures))
    recipe = replace(RECIPE, num_pairs=12)
    one, other = (actor_windows(replace(bank, boxes=boxes), given, recipe, 0) for given in (keys, changed))
    equal = {int(pair.target[0, 0, 0]): np.array_equal(pair.picture, again.picture) for pair, again in zip(one, other, strict=True)}
    assert len(equal) == 12
    assert all(same for row, same in equal.items() if row <= 11)
    assert not all(equal.values())
