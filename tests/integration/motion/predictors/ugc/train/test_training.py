"""A training of a few steps."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from services.motion.predictors.ugc.train.network import NETWORK
from services.motion.train.run_files import BEST
from services.training.trainset.reader import TrainSet
from tests.unit.motion.brief_training import train_briefly
from tests.unit.motion.made_clips import small_set
from tests.unit.motion.predictors.ugc.train.tiny import TINY


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return small_set(tmp_path_factory.mktemp("ugc") / "set")


def test_a_run_that_was_killed_ends_with_the_same_bytes(data: TrainSet, tmp_path: Path) -> None:
    train_briefly(NETWORK, data, TINY, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_briefly(NETWORK, data, TINY, tmp_path / "killed", killed_at=3)
    train_briefly(NETWORK, data, TINY, tmp_path / "killed", resume=True)
    assert (tmp_path / "killed" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
    with (tmp_path / "whole" / "curves.csv").open(newline="") as curves:
        figures = {row["figure"] for row in csv.DictReader(curves)}
    assert figures >= {"total", "closure", "score", "new r_opening"}
