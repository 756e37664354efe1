"""A training of a few steps."""

from pathlib import Path

from research.methods.ugc.motion import NETWORK
from research.motion.training import BEST
from research.training.trainset import TrainSet
from tests.integration.motion.predictors.runs import figures_of, killed_and_resumed
from tests.unit.research.methods.ugc.tiny import TINY


def test_killed_run_same_bytes(data: TrainSet, whole: Path, tmp_path: Path) -> None:
    resumed = killed_and_resumed(NETWORK, data, TINY, tmp_path)
    assert (resumed / BEST).read_bytes() == (whole / BEST).read_bytes()
    assert figures_of(whole) >= {"total", "closure", "score", "new r_opening"}
