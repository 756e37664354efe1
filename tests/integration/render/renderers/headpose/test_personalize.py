import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.errors import ModelNotFoundError
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.backends.model_files import file_sha256
from services.render.key_pictures import choose_keys, unpacked
from services.render.networks.weights import save_weights
from services.render.personalization import PersonalizeRecipe
from services.render.renderer import PersonalizeJob
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityEmbedding, IdentityEmbeddingConfig, embedding_of
from services.render.renderers.headpose.network import HeadposeConfig, HeadposeNetwork, load
from services.render.renderers.headpose.personalize import FEWEST_FRAMES, personalize_headpose
from services.render.types import PersonalizeProgress
from tests.unit.render.drawn_person import drawing
from tests.unit.render.zero_weights import fill_zero_weights

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
