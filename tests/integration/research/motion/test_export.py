"""The exports of the sync network and of the networks of the style, into a folder of weights that they share."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from research.methods.ugc.motion import NETWORK as UGC
from research.motion.networks import SYNC
from research.training.networks import TrainableNetwork
from services.common.errors import InvalidRequestError
from services.common.store.tensor_bytes import NamedArrays, decode_arrays
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictors.ugc.predictor import UgcPredictor
from tests.unit.motion.brief_training import train_briefly
from tests.unit.motion.made_clips import small_set
from tests.unit.motion.synthesised import random_features
from tests.unit.research.methods.ugc.tiny import TINY as UGC_TINY
from tests.unit.research.motion.tiny import TINY_SYNC

CONSTANTS = "motion_constants.safetensors"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    data = small_set(folder / "set")
    train_briefly(SYNC, data, TINY_SYNC, folder / "sync")
    train_briefly(UGC, data, UGC_TINY, folder / "ugc_motion")
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return shutil.copytree(WEIGHTS, tmp_path / "motion")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def exported(network: TrainableNetwork, runs: Path, weights: Path) -> set[str]:
    return {path.name for path in network.export(runs / network.name, weights)}


def changed(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> set[str]:
    return {name for name in after if before.get(name) != after[name]}


def constants(folder: Path) -> NamedArrays:
    return decode_arrays((folder / CONSTANTS).read_bytes())


def test_exports_share_served_folder(runs: Path, weights: Path) -> None:
    """Each export replaces its own part and the folder can be served."""
    before, old = contents(weights), constants(weights)
    written = exported(SYNC, runs, weights)
    assert written == changed(before, contents(weights))
    assert written == {"sync_audio.onnx", "sync_mouth.onnx", "sync.card.md", "export.json", CONSTANTS}
    synced = constants(weights)
    np.testing.assert_array_equal(synced["components"], old["components"])
    assert synced["sync_components"].shape == (4, 59, 3)

    written = exported(UGC, runs, weights)
    assert written == {"motion.onnx", "style_encoder.onnx", "motion.card.md", "export.json", CONSTANTS}
    np.testing.assert_array_equal(constants(weights)["sync_components"], synced["sync_components"])

    models = MotionModels(weights)
    sheet = json.loads((weights / "export.json").read_text())
    assert models.version == sheet["version"] != old.metadata["version"]
    assert len(UgcPredictor(models, models.neutral_style()).push(random_features(5)).mouth_landmarks) == 3
    assert np.isfinite(models.embed_audio(np.zeros((40, 4, 25), np.float32))).all()
    assert sheet["sync_training"]["config"]["frames"] == TINY_SYNC.frames
    assert sheet["style_training"]["card"] == "motion.card.md"
    assert {each["name"] for each in sheet["specs"]} == set(sheet["parity"])


def test_wrong_run_or_folder_refused(runs: Path, weights: Path) -> None:
    """A run of another network and a folder that lacks weights are refused."""
    with pytest.raises(InvalidRequestError, match="not of 'sync'"):
        SYNC.export(runs / "ugc_motion", weights)
    (weights / "motion.onnx").unlink()
    before = contents(weights)
    with pytest.raises(InvalidRequestError, match="not a whole folder of weights"):
        SYNC.export(runs / "sync", weights)
    assert contents(weights) == before
