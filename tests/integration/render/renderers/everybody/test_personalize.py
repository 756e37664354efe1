import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.key_pictures import KeyPictures, choose_keys, unpacked
from services.render.networks.weights import save_weights
from services.render.personalization import PersonalizeRecipe
from services.render.renderer import PersonalizeJob
from services.render.renderers.everybody.network import EverybodyConfig, EverybodyNetwork, load
from services.render.renderers.everybody.personalize import actor_windows, personalize_everybody
from services.render.types import PersonalizeProgress
from tests.unit.render.zero_weights import fill_zero_weights

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
