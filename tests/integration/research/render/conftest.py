"""A small training set, and runs of other networks, for the trainings of all renderers."""

from pathlib import Path

import pytest

from research.training.trainset import TrainSet
from services.common.face.mouth_bank import MouthBank
from tests.unit.render.conftest import bank, frames, mask, small_weights
from tests.unit.research.render.tiny_training import perceptual_run, small_set

__all__ = ["bank", "frames", "mask", "small_weights"]


@pytest.fixture(scope="module")
def data(bank: MouthBank, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    """The small training set."""
    return small_set(tmp_path_factory.mktemp("set"), bank)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of other networks that a training needs."""
    return {"perceptual": perceptual_run(tmp_path_factory.mktemp("perceptual"))}
