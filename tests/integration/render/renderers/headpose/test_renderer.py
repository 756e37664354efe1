import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.files import file_sha256
from services.render.key_pictures import STATE_SIZE, choose_keys, packed, unpacked
from services.render.networks.weights import save_weights
from services.render.personalization import PersonalizeRecipe
from services.render.renderer import PersonalizeJob
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityEmbedding, IdentityEmbeddingConfig, embedding_of
from services.render.renderers.headpose.network import HeadposeConfig, HeadposeNetwork, load
from services.render.renderers.headpose.personalize import FEWEST_FRAMES, personalize_headpose
from services.render.streams import RenderModels, default_state
from services.render.types import PersonalizeProgress, RenderFrame
from tests.integration.render.renderers.drawn_actor import DrawnActor, bytes_of, drawn_by
from tests.integration.render.renderers.masks import is_background_outside, repainted
from tests.unit.render.drawn_person import drawing
from tests.unit.render.rendering import committed_models
from tests.unit.render.zero_weights import fill_zero_weights


@pytest.fixture(scope="module", params=["onnxruntime-float32", "onnxruntime-int8"])
def models(request: pytest.FixtureRequest) -> RenderModels:
    return committed_models(request.param)


@pytest.fixture(scope="module")
def clip(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Six frames in a row with drawn faces."""
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    return [
        RenderFrame(
            20 + row, bank.boxes[row], face.draw(bank.mouth[row + 5], pose, detailed=True), mask, bank.box_landmarks[row + 5]
        )
        for row in range(6)
    ]


def person(models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person, with a state of some size."""
    length = models.files["headpose"].state_size - STATE_SIZE
    film = np.random.default_rng(2).normal(0.0, 0.05, length).astype(np.float32)
    return DrawnActor(models, "headpose", packed(film, choose_keys(bank, np.arange(bank.num_frames))))


def test_parts_of_a_stream(actor: DrawnActor, clip: list[RenderFrame]) -> None:
    """Neither the chunks nor the start of a stream change a byte, and after a gap the window begins anew."""
    whole = bytes_of(actor.drawn(clip))
    assert [index for index, _ in whole] == list(range(20, 26))
    assert whole == bytes_of(actor.drawn(clip[:1], clip[1:3], clip[3:]))
    past = [replace(frame, context_only=True) for frame in clip[2:4]]
    assert whole[4:] == bytes_of(actor.drawn([*past, *clip[4:]]))
    assert whole[4] != bytes_of(actor.drawn(clip[4:5]))[0]
    assert bytes_of(actor.drawn([*clip[:2], *clip[4:]]))[2:] == bytes_of(actor.drawn(clip[4:]))


def test_footage_hidden_inside_mask(actor: DrawnActor, clip: list[RenderFrame]) -> None:
    """The footage stays outside the mask and is not seen inside."""
    (made,) = actor.drawn(clip[:1])
    assert is_background_outside(clip[0], made)
    assert bytes_of(actor.drawn([repainted(clip[0])])) == bytes_of([made])


def test_it_draws_the_wanted_mouth(models: RenderModels, bank: MouthBank, clip: list[RenderFrame]) -> None:
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    keys = packed(np.zeros(models.files["headpose"].state_size - STATE_SIZE, np.float32), choose_keys(bank, np.arange(48)))
    untrained = DrawnActor(models, "headpose", keys)
    textures = {row: face.draw(bank.mouth[row], pose, detailed=True) for row in (0, 6)}
    target = [replace(clip[0], texture=textures[row], box_landmarks=bank.box_landmarks[row]) for row in (0, 6)]
    shut, wide = (untrained.drawn([frame])[0].box.astype(int) for frame in target)
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    middle = (slice(y - 3, y + 4), slice(x - 8, x + 9))
    truth = bank.boxes[6][middle].astype(int)
    assert np.abs(wide[middle] - truth).mean() < 0.6 * np.abs(shut[middle] - truth).mean()


def test_without_an_actor_and_without_a_drawn_face(models: RenderModels, clip: list[RenderFrame]) -> None:
    nobody = DrawnActor(models, "headpose", default_state(models.files["headpose"]))
    assert len(nobody.drawn(clip[:1])) == 1
    with pytest.raises(InvalidRequestError, match="texture is missing"):
        nobody.drawn([replace(clip[0], texture=None, context_only=True)])


def test_int8_is_near_float(bank: MouthBank, clip: list[RenderFrame]) -> None:
    float_, int8 = drawn_by(("onnxruntime-float32", "onnxruntime-int8"), lambda models: person(models, bank), clip[0])
    assert np.abs(float_ - int8).mean() < 2.0


RECIPE = PersonalizeRecipe(num_steps=2, batch_size=1, num_pairs=3, report_every=1)


@pytest.fixture(scope="module")
def weights(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headpose") / "weights"
    shutil.copytree(small_weights, folder)
    torch.manual_seed(6)
    embedding = IdentityEmbedding(IdentityEmbeddingConfig(widths=(8, 8), size=6))
    save_weights(folder / f"{EMBEDDING}.safetensors", embedding, embedding.config.to_metadata())
    network = HeadposeNetwork(
        HeadposeConfig(
            widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), items=4, actor_items=2, identity_size=6, spatial_widths=(4, 4, 4, 4)
        )
    )
    fill_zero_weights(network)
    digest = {EMBEDDING: file_sha256(folder / f"{EMBEDDING}.safetensors")}
    save_weights(folder / "headpose.safetensors", network, network.config.to_metadata(), **digest)
    return folder


def job(bank: MouthBank, weights: Path, *, seed: int = 0, num_steps: int = 0) -> PersonalizeJob:
    return PersonalizeJob(bank=bank, drawing=drawing(), weights=weights, seed=seed, num_steps=num_steps)


@pytest.fixture(scope="module")
def reports(bank: MouthBank, weights: Path) -> list[PersonalizeProgress]:
    """Reports of a whole bank with seed 0."""
    return list(personalize_headpose(job(bank, weights), RECIPE))


def test_state_learns_from_a_seed(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    """The state learns and holds items and key pictures, and the same seed gives the same bytes."""
    assert [(report.step, report.num_steps) for report in reports] == [(1, 2), (2, 2)]
    actor, keys = unpacked(reports[-1].state)
    network = load(weights / "headpose.safetensors")
    assert len(actor) == network.state_size
    assert actor[: network.film_size].any()
    items = actor[network.film_size :].reshape(2, -1)
    assert np.allclose(np.linalg.norm(items[0, :64]), 1.0, atol=1e-3)
    assert np.allclose(np.linalg.norm(items[0, 64:]), 1.0, atol=1e-3)
    assert np.array_equal(keys.pictures, choose_keys(bank, np.arange(bank.num_frames)).pictures)
    again, other = (list(personalize_headpose(job(bank, weights, seed=seed), RECIPE))[-1].state.tobytes() for seed in (0, 2))
    assert reports[-1].state.tobytes() == again
    assert again != other


def test_still_gives_key_picture(bank: MouthBank, weights: Path) -> None:
    one = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
    (report,) = personalize_headpose(job(one, weights))
    assert (report.step, report.num_steps) == (0, 0)
    actor, keys = unpacked(report.state)
    assert not actor[: load(weights / "headpose.safetensors").film_size].any()
    assert actor[load(weights / "headpose.safetensors").film_size :].any()
    assert np.array_equal(keys.pictures, np.repeat(bank.boxes[:1], len(keys.pictures), axis=0))


def test_few_frames_tuned_on_request(bank: MouthBank, weights: Path) -> None:
    assert bank.num_frames < FEWEST_FRAMES
    (report,) = personalize_headpose(job(bank, weights))
    assert (report.step, report.num_steps) == (0, 0)
    assert not unpacked(report.state)[0][: load(weights / "headpose.safetensors").film_size].any()
    assert [each.step for each in personalize_headpose(job(bank, weights, num_steps=1), RECIPE)] == [1]


def test_another_embedding_is_refused(bank: MouthBank, weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    embedding = IdentityEmbedding(IdentityEmbeddingConfig(widths=(8, 8), size=6))
    save_weights(other / f"{EMBEDDING}.safetensors", embedding, embedding.config.to_metadata())
    with pytest.raises(ModelNotFoundError, match="was trained with the identity embedding"):
        next(personalize_headpose(job(bank, other)))
    (other / f"{EMBEDDING}.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="no identity_embedding"):
        embedding_of(other / "headpose.safetensors")
