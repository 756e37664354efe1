"""The training of the sync network."""

from pathlib import Path

import pytest

from research.motion.networks import SYNC
from research.motion.training import BEST
from tests.unit.motion.brief_training import train_briefly
from tests.unit.motion.made_clips import small_set
from tests.unit.research.motion.tiny import TINY_SYNC


@pytest.mark.long
def test_killed_run_same_bytes(tmp_path: Path) -> None:
    data = small_set(tmp_path / "set")
    train_briefly(SYNC, data, TINY_SYNC, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_briefly(SYNC, data, TINY_SYNC, tmp_path / "killed", killed_at=3)
    train_briefly(SYNC, data, TINY_SYNC, tmp_path / "killed", resume=True)
    assert (tmp_path / "killed" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
