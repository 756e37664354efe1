"""A training of a few steps, and its export."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from research.methods.headpose.motion import NETWORK, HeadposeTrainingConfig, export, spec_of
from research.training.training import LoopSettings
from research.training.trainset import TrainSet
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.motion.head_network import HeadModel
from services.motion.models import WEIGHTS
from tests.unit.motion.brief_training import train_briefly
from tests.unit.motion.predictors.headpose.tiny import SMALL

SERVED = replace(SMALL, past=1, ahead=2)
TINY = HeadposeTrainingConfig(network=SERVED, loop=LoopSettings(steps=2, check_every=2), batch_size=2, length=40)


def test_export_includes_head_motion(data: TrainSet, tmp_path: Path) -> None:
    """Trained weights are exported with the statistics of head motion."""
    run, out = tmp_path / "run", tmp_path / "motion"
    train_briefly(NETWORK, data, TINY, run)
    shutil.copytree(WEIGHTS, out)
    before = (out / "audio_to_head_motion.onnx").read_bytes()
    with pytest.raises(ContractBrokenError, match="refused"):
        export(run, out, replace(spec_of(SERVED), parity_runs=2, tolerance=-1.0))
    assert (out / "audio_to_head_motion.onnx").read_bytes() == before
    paths = export(run, out, replace(spec_of(SERVED), parity_runs=5))
    assert "audio_to_head_motion.card.md" in {path.name for path in paths}
    model = HeadModel(out)
    assert (model.past, model.ahead, model.hidden) == (1, 2, 8)
    assert (model.general.quantiles[:, -1] > 0.0).all()


def test_ablation_and_unfinished_not_exported(data: TrainSet, tmp_path: Path) -> None:
    out = tmp_path / "motion"
    shutil.copytree(WEIGHTS, out)
    with pytest.raises(KeyboardInterrupt):
        train_briefly(NETWORK, data, replace(TINY, network=replace(SERVED, heard="phones")), tmp_path / "ablation", killed_at=0)
    with pytest.raises(InvalidRequestError, match="ablation"):
        export(tmp_path / "ablation", out)
    with pytest.raises(KeyboardInterrupt):
        train_briefly(NETWORK, data, TINY, tmp_path / "killed", killed_at=1)
    with pytest.raises(InvalidRequestError, match="not finished"):
        export(tmp_path / "killed", out)
