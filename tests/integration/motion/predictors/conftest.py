"""The small training set and a short run, for the tests of all predictors."""

from pathlib import Path

import pytest

from research.training.trainset import TrainSet
from tests.unit.motion.brief_training import train_briefly
from tests.unit.motion.made_clips import small_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    """The small training set."""
    return small_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, data: TrainSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not interrupted: NETWORK with the settings TINY, both of the test's module."""
    run = tmp_path_factory.mktemp("run") / "run"
    train_briefly(request.module.NETWORK, data, request.module.TINY, run)
    return run
