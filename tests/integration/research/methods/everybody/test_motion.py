"""A training of a few steps, and its export."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from research.methods.everybody.motion import NETWORK, EverybodyTrainingConfig
from research.training.training import LoopSettings
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError
from services.motion.models import WEIGHTS
from services.motion.predictors.everybody.network import EverybodyConfig
from services.motion.predictors.everybody.predictor import EverybodyModel
from tests.integration.motion.predictors.runs import change_landmark_basis, figures_of
from tests.unit.motion.brief_training import train_briefly

TINY = EverybodyTrainingConfig(
    network=EverybodyConfig(num_expression=6, projection=8, hidden=8), loop=LoopSettings(steps=2, check_every=2), batch_size=4
)


def test_export_includes_training_basis(data: TrainSet, tmp_path: Path) -> None:
    """Trained weights are exported beside the basis that they were trained on."""
    run, out = tmp_path / "run", tmp_path / "motion"
    train_briefly(NETWORK, data, TINY, run)
    assert figures_of(run) >= {"velocity", "baseline new r_opening"}
    shutil.copytree(WEIGHTS, out)
    paths = NETWORK.export(run, out)
    assert {path.name for path in paths} == {
        "audio_to_expression.onnx", "audio_to_expression.json", "expression_constants.safetensors", "audio_to_expression.card.md",
    }  # fmt: skip
    model = EverybodyModel(out)
    assert model.predict(np.zeros((25, 4, 24), np.float32)).shape == (6,)
    sheet = json.loads((out / "audio_to_expression.json").read_text())
    assert sheet["version"] == model.version
    assert sheet["training"]["config"]["network"]["hidden"] == 8
    assert not [path for path in out.iterdir() if path.name.startswith(".")]

    change_landmark_basis(out)
    with pytest.raises(InvalidRequestError, match="another landmark basis"):
        NETWORK.export(run, out)
