from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.renderer import PersonalizeJob
from services.render.renderers.everyone.network import load
from services.render.renderers.everyone.personalize import (
    TextureRecipe,
    TextureSearch,
    actor_windows,
    bank_texture,
    personalize_everyone,
)
from services.render.renderers.everyone.renderer import packed, reference_row, unpacked
from services.render.types import PersonalizeProgress
from tests.unit.render.drawn_person import drawing
from tests.unit.render.renderers.everyone.person import speaking, surface, write_weights

RECIPE = TextureRecipe(num_steps=2, batch_size=1, num_windows=4, report_every=1, learning_rate=0.05)


@pytest.fixture(scope="module")
def weights(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(small_weights, tmp_path_factory.mktemp("everyone") / "weights")


def job(bank: MouthBank, weights: Path, *, seed: int = 0, num_steps: int = 0, train: bool = True) -> PersonalizeJob:
    return PersonalizeJob(bank=bank, drawing=drawing(), weights=weights, seed=seed, num_steps=num_steps, train=train)


@pytest.fixture(scope="module")
def reports(bank: MouthBank, weights: Path) -> list[PersonalizeProgress]:
    """Reports with seed 0."""
    return list(personalize_everyone(job(bank, weights), RECIPE))


def test_person_is_texture_and_state(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    before = (weights / "everyone.safetensors").read_bytes()
    assert [(report.step, report.num_steps) for report in reports] == [(1, 2), (2, 2)]
    texture = reports[-1].texture
    assert texture.shape == (256, 256, 16)
    assert texture.dtype == np.uint8
    assert texture.min() >= 1
    assert not np.array_equal(texture, bank_texture(bank, surface(), 0))
    style, reference = unpacked(reports[-1].state)
    assert len(style) == load(weights / "everyone.safetensors").state_size
    assert style.any()
    assert np.array_equal(reference, bank.boxes[reference_row(bank)])
    assert (weights / "everyone.safetensors").read_bytes() == before


def test_same_seed_same_bytes(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    """The same seed gives the same bytes, also of two searches that take turns."""
    again, other = (list(personalize_everyone(job(bank, weights, seed=seed), RECIPE))[-1] for seed in (0, 2))
    assert other.texture is not None
    assert reports[-1].texture.tobytes() == again.texture.tobytes()
    assert reports[-1].state.tobytes() == again.state.tobytes()
    assert again.texture.tobytes() != other.texture.tobytes()
    alone = reports[-1]
    turns = zip(*(personalize_everyone(job(bank, weights, seed=seed), RECIPE) for seed in (0, 2)), strict=True)
    *_, (beside, _) = turns
    assert beside.texture.tobytes() == alone.texture.tobytes()
    assert beside.state.tobytes() == alone.state.tobytes()


def test_wrong_model_and_missing_weights(bank: MouthBank, weights: Path, tmp_path: Path) -> None:
    """Expressions of another model than the identity are refused, and missing weights are named."""
    other = replace(bank, expression=np.zeros((bank.num_frames, 500), np.float32))
    with pytest.raises(InvalidRequestError, match="the bank has 500 expression coefficients a frame"):
        next(personalize_everyone(job(other, weights), RECIPE))
    with pytest.raises(ModelNotFoundError, match=r"everyone\.safetensors"):
        next(personalize_everyone(job(bank, tmp_path)))


def test_the_search_lowers_the_error(bank: MouthBank, weights: Path) -> None:
    recipe = TextureRecipe(num_steps=24, batch_size=1, num_windows=4, report_every=4, learning_rate=0.03)
    losses = [report.loss for report in personalize_everyone(job(bank, weights), recipe)]
    assert losses[-1] < losses[0]


def test_one_picture_gives_first_texture(bank: MouthBank, weights: Path) -> None:
    """Without training and from one picture, the first texture comes at once."""
    one = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
    for given, train in ((bank, False), (one, True)):
        (report,) = personalize_everyone(job(given, weights, train=train), RECIPE)
        assert (report.step, report.num_steps) == (0, 0)
        assert report.texture is not None
        assert np.array_equal(report.texture, bank_texture(given, surface(), 0))
        assert not unpacked(report.state)[0].any()


def test_bank_speech_and_expressions_used(bank: MouthBank) -> None:
    spoken = speaking(bank)
    windows = actor_windows(spoken, surface(), 12, 0)
    assert any(window.speech.any() for window in windows)
    assert not any(window.speech.any() for window in actor_windows(bank, surface(), 12, 0))
    rest = np.stack([surface().expression_of(bank.mouth[0])] * bank.num_frames)
    fitted = replace(bank, expression=rest)
    assert not np.array_equal(bank_texture(fitted, surface(), 0), bank_texture(bank, surface(), 0))


def test_reference_picture_from_other_moment(bank: MouthBank) -> None:
    """The reference picture of a window shows another moment."""
    # A pixel that no mask covers says which frame a picture is.
    boxes = bank.boxes.copy()
    boxes[:, 0, 0, 0] = np.arange(bank.num_frames)
    for window in actor_windows(replace(bank, boxes=boxes), surface(), 12, 0):
        assert abs(int(window.boxes[1, 0, 0, 0]) - int(window.reference[0, 0, 0])) > 10


def test_an_all_zero_state_shows_nobody() -> None:
    style, reference = unpacked(np.zeros(8 + 160 * 160 * 3, np.float32))
    assert not style.any()
    assert (reference == 128).all()
    picture = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    assert np.array_equal(unpacked(packed(style, picture))[1], picture)


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_network_learns_only_on_request(bank: MouthBank, weights: Path, rate: float) -> None:
    network = load(weights / "everyone.safetensors")
    before = {name: values.clone() for name, values in network.state_dict().items()}
    recipe = replace(RECIPE, network_learning_rate=rate)
    search = TextureSearch(network, bank_texture(bank, surface(), 0), recipe, 1, weights)
    list(search.run(actor_windows(bank, surface(), 2, 0), 0))
    same = [torch.equal(before[name], values) for name, values in network.state_dict().items()]
    assert all(same) == (rate == 0.0)
