"""A training of a few steps, and its export."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.motion.models import WEIGHTS
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.train.network import NETWORK
from services.motion.train.run_files import BEST
from services.training.trainset.reader import TrainSet
from tests.unit.motion.brief_training import train_briefly
from tests.unit.motion.made_clips import small_set
from tests.unit.motion.predictors.everyone.train.tiny import TINY


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return small_set(tmp_path_factory.mktemp("everyone") / "set")


@pytest.fixture(scope="module")
def whole(data: TrainSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("everyone") / "run"
    train_briefly(NETWORK, data, TINY, run)
    return run


def test_a_run_that_was_killed_ends_with_the_same_bytes(data: TrainSet, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_briefly(NETWORK, data, TINY, tmp_path, killed_at=3)
    train_briefly(NETWORK, data, TINY, tmp_path, resume=True)
    assert (tmp_path / BEST).read_bytes() == (whole / BEST).read_bytes()
    with (whole / "curves.csv").open(newline="") as curves:
        figures = {row["figure"] for row in csv.DictReader(curves)}
    assert figures >= {"total", "closure", "score", "new r_opening", "baseline new r_opening"}


def test_what_was_trained_is_exported_beside_the_basis_that_it_was_trained_on(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "motion"
    assert NETWORK.export is not None
    shutil.copytree(WEIGHTS, out)
    paths = NETWORK.export(whole, out)
    names = {f"everyone_motion{ending}" for ending in (".onnx", ".json", "_constants.safetensors", ".card.md")}
    assert {path.name for path in paths} == names
    model = EveryoneModel(out)
    assert model.predict(np.zeros((36, 4, 44), np.float32)).shape == (4,)
    sheet = json.loads((out / "everyone_motion.json").read_text())
    assert sheet["version"] == model.version
    assert sheet["training"]["config"]["network"]["channels"] == 8

    constants = out / "motion_constants.safetensors"
    (out / "export.json").unlink()  # which holds the digest of these constants
    held = decode_arrays(constants.read_bytes())
    constants.write_bytes(encode_arrays({**held.arrays, "typical_spread": 2.0 * held["typical_spread"]}, held.metadata))
    with pytest.raises(InvalidRequest, match="another landmark basis"):
        NETWORK.export(whole, out)
