"""The training of the sync network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from research.motion.networks import SYNC
from research.motion.sync import SyncTrainingConfig, contrastive_loss
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError
from tests.unit.motion.brief_training import opened
from tests.unit.motion.made_clips import made_clip, small_set, write_set
from tests.unit.research.motion.tiny import TINY_SYNC


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return small_set(tmp_path_factory.mktemp("sync") / "set")


def test_a_batch_depends_on_step_and_index_alone(data: TrainSet) -> None:
    training, again = opened(SYNC, data, TINY_SYNC), opened(SYNC, data, TINY_SYNC)
    again.batch(0, 0)
    for one, other in zip(training.batch(3, 1), again.batch(3, 1), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (training.batch(3, 1).mouth != training.batch(3, 0).mouth).any()
    assert training.batch(0, 0).content.shape == (2, 40, 4, 25)


def test_too_short_clips_refused(tmp_path: Path) -> None:
    """Clips that are shorter than a span are refused."""
    data = write_set(tmp_path / "set", [made_clip(0, num_frames=60), made_clip(1, "val")])
    with pytest.raises(InvalidRequestError, match=r"70 frames \(2.8 s\)"):
        opened(SYNC, data, SyncTrainingConfig())


def test_the_right_lag_costs_least() -> None:
    seen = torch.nn.functional.normalize(torch.randn(2, 60, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    usable, scale = torch.ones(2, 60), torch.tensor(8.0)
    right, late = (contrastive_loss(seen.roll(lag, dims=1), seen, usable, scale) for lag in (0, 3))
    assert float(right) < 0.1 * float(late)
