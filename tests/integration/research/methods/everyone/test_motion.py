"""A training of a few steps, and its export."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.methods.everyone.motion import NETWORK
from research.motion.training import BEST
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError
from services.motion.models import WEIGHTS
from services.motion.predictors.everyone.predictor import EveryoneModel
from tests.integration.motion.predictors.runs import change_landmark_basis, figures_of, killed_and_resumed
from tests.unit.motion.brief_training import train_briefly
from tests.unit.research.methods.everyone.tiny import TINY


@pytest.mark.long
def test_killed_run_same_bytes(data: TrainSet, whole: Path, tmp_path: Path) -> None:
    resumed = killed_and_resumed(NETWORK, data, TINY, tmp_path)
    assert (resumed / BEST).read_bytes() == (whole / BEST).read_bytes()
    assert figures_of(whole) >= {"total", "closure", "score", "new r_opening", "baseline new r_opening"}


def test_export_includes_training_basis(whole: Path, tmp_path: Path) -> None:
    """Trained weights are exported beside the basis that they were trained on."""
    out = tmp_path / "motion"
    shutil.copytree(WEIGHTS, out)
    paths = NETWORK.export(whole, out)
    names = {f"everyone_motion{ending}" for ending in (".onnx", ".json", "_constants.safetensors", ".card.md")}
    assert {path.name for path in paths} == names
    model = EveryoneModel(out)
    assert model.predict(np.zeros((36, 192), np.float32)).shape == (4,)
    sheet = json.loads((out / "everyone_motion.json").read_text())
    assert sheet["version"] == model.version
    assert sheet["training"]["config"]["network"]["channels"] == 8

    change_landmark_basis(out)
    with pytest.raises(InvalidRequestError, match="another landmark basis"):
        NETWORK.export(whole, out)


def test_paper_input_run_not_exported(data: TrainSet, tmp_path: Path) -> None:
    config = replace(TINY, network=replace(TINY.network, heard="phones"))
    train_briefly(NETWORK, data, config, tmp_path / "run")
    with pytest.raises(InvalidRequestError, match=r"network\.heard is 'phones'"):
        NETWORK.export(tmp_path / "run", tmp_path / "motion")
