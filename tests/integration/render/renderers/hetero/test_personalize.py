import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.networks.weights import save_weights, to_tensor
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.hetero.network import HeteroConfig, HeteroNetwork, load
from services.render.renderers.hetero.personalize import FixedEmbedder, actor_pairs, personalize_hetero
from services.render.renderers.hetero.renderer import EMBEDDING_SIZE, NUM_CHANNELS, choose_references, unpacked
from services.render.types import PersonalizeProgress

RECIPE = PersonalizeRecipe(num_steps=2, batch_size=1, num_pairs=3, report_every=1)
FILE = "hetero.safetensors"


@pytest.fixture(scope="module")
def weights(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hetero") / "weights"
    shutil.copytree(small_weights, folder)
    torch.manual_seed(6)
    network = HeteroNetwork(
        HeteroConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), embedder_widths=(4, 4, 4, 4), rank=2, adain_levels=3)
    )
    for value in network.parameters():
        if value.ndim > 1 and not value.any():
            torch.nn.init.normal_(value, std=0.05)
    save_weights(folder / FILE, network, network.config.to_metadata())
    return folder


def job(bank: MouthBank, weights: Path, *, seed: int = 0, train: bool = True) -> PersonalizeJob:
    return PersonalizeJob(bank=bank, drawing=None, weights=weights, seed=seed, train=train)


@pytest.fixture(scope="module")
def reports(bank: MouthBank, weights: Path) -> list[PersonalizeProgress]:
    """Reports with seed 0."""
    return list(personalize_hetero(job(bank, weights), RECIPE))


def test_layers_learn_from_a_seed(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    """Layers learn, the state holds the reference, and the same seed gives the same bytes."""
    assert [(report.step, report.num_steps) for report in reports] == [(1, 2), (2, 2)]
    numbers, reference = unpacked(reports[-1].state)
    assert len(numbers) == load(weights / FILE).state_size
    assert numbers[:-EMBEDDING_SIZE].any()
    assert np.array_equal(reference, bank.boxes[choose_references(bank)[0]])
    again, other = (list(personalize_hetero(job(bank, weights, seed=seed), RECIPE))[-1].state.tobytes() for seed in (0, 2))
    assert reports[-1].state.tobytes() == again
    assert again != other


def test_fine_tuning_keeps_embedder(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    network, rows = load(weights / FILE), choose_references(bank)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator = FixedEmbedder(network, bank, rows)
    list(personalized(generator, actor_pairs(bank, rows, RECIPE.num_pairs, 0), job(bank, weights), RECIPE))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    (untrained,) = personalize_hetero(job(bank, weights, train=False), RECIPE)
    vectors = [unpacked(report.state)[0][-EMBEDDING_SIZE:] for report in (untrained, reports[-1])]
    assert np.array_equal(*vectors)
    assert vectors[0].any()


def test_vector_is_mean_over_references(bank: MouthBank, weights: Path) -> None:
    network, rows = load(weights / FILE), choose_references(bank)
    (report,) = personalize_hetero(job(bank, weights, train=False), RECIPE)
    numbers, reference = unpacked(report.state)
    own = network.embedder(to_tensor(reference[None])).vector[0].numpy()
    mean = network.embedder(to_tensor(bank.boxes[rows])).vector.mean(dim=0).numpy()
    np.testing.assert_allclose(own + numbers[-EMBEDDING_SIZE:], mean, atol=1e-5)


def test_fine_tuning_draws_as_network(bank: MouthBank, weights: Path) -> None:
    network, rows = load(weights / FILE), choose_references(bank)
    generator = FixedEmbedder(network, bank, rows)
    pictures = to_tensor(np.zeros((1, 160, 160, NUM_CHANNELS), np.uint8))
    layers = torch.full((1, network.layers_size), 0.01)
    vector = generator.mean - network.embedder(pictures[:, 3:6]).vector[0]
    torch.testing.assert_close(generator(pictures, layers), network(pictures, torch.cat([layers, vector[None]], dim=1)))


def test_untrained_bank_gives_reference(bank: MouthBank, weights: Path) -> None:
    """Without other moments or training, a bank gives its reference picture."""
    few = make_bank(bank.boxes[:5], bank.mouth[:5], bank.rotation[:5], bank.frame_index[:5], bank.geometry)
    for given, train in ((few, True), (bank, False)):
        (report,) = personalize_hetero(job(given, weights, train=train), RECIPE)
        assert (report.step, report.num_steps) == (0, 0)
        numbers, reference = unpacked(report.state)
        assert not numbers[:-EMBEDDING_SIZE].any()
        assert np.array_equal(reference, given.boxes[choose_references(given)[0]])


def test_examples_skip_own_reference(bank: MouthBank) -> None:
    """No example is shown a reference picture of its own moment."""
    # Pixels that no mask covers say which frame a picture is.
    boxes = bank.boxes.copy()
    boxes[:, 0, 0, 0] = np.arange(bank.num_frames)
    references = np.array([2, 25, 46])
    changed = boxes.copy()
    changed[2] = 255 - changed[2]
    recipe = replace(RECIPE, num_pairs=48)
    one, other = (actor_pairs(replace(bank, boxes=given), references, recipe.num_pairs, 0) for given in (boxes, changed))
    assert len(one) == 48
    for row, (pair, again) in enumerate(zip(one, other, strict=True)):
        if 4 < row <= 12:
            assert np.array_equal(pair.picture, again.picture)
    assert not all(np.array_equal(pair.picture, again.picture) for pair, again in zip(one[13:], other[13:], strict=True))
