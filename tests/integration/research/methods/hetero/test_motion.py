"""A training of a few steps, and its export."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.methods.hetero.motion import NETWORK
from research.motion.training import BEST
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError
from services.motion.models import WEIGHTS
from services.motion.predictors.hetero.predictor import HeteroModel
from tests.integration.motion.predictors.runs import figures_of, killed_and_resumed
from tests.unit.motion.brief_training import opened, train_briefly
from tests.unit.motion.predictors.hetero.made import STATES, TINY, heterogeneous_set, upper_face
from tests.unit.motion.synthesised import mouths


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return heterogeneous_set(tmp_path_factory.mktemp("hetero") / "set")


@pytest.mark.long
def test_killed_run_same_bytes(data: TrainSet, whole: Path, tmp_path: Path) -> None:
    resumed = killed_and_resumed(NETWORK, data, TINY, tmp_path)
    assert (resumed / BEST).read_bytes() == (whole / BEST).read_bytes()
    assert figures_of(whole) >= {"total", "phones", "taught", "score", "new r_opening"}


def test_what_was_trained_is_exported_and_served(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "motion"
    shutil.copytree(WEIGHTS, out)
    paths = NETWORK.export(whole, out)
    assert {path.name for path in paths} == {
        "hetero_generator.onnx", "hetero_person.onnx", "hetero_constants.safetensors", "hetero.json", "hetero.card.md",
    }  # fmt: skip
    model = HeteroModel(out)
    reference, pose = model.encode(mouths(np.zeros(30, np.float32)), upper_face(30))
    assert model.predict(np.zeros((19, 4, 80), np.float32), reference, pose).shape == (16,)
    sheet = json.loads((out / "hetero.json").read_text())
    assert sheet["version"] == model.version
    assert sheet["training"]["config"]["network"]["embedding"] == 8


def test_the_card_counts_speech_without_a_face(data: TrainSet) -> None:
    assert {row.speaker for row in opened(NETWORK, data, TINY).clips} == {"anna", "ben", "dora"}
    alone = replace(TINY, batches=replace(TINY.batches, heard=0))
    assert {row.speaker for row in opened(NETWORK, data, alone).clips} == {"anna", "ben"}


def test_a_run_on_states_is_not_exported(data: TrainSet, tmp_path: Path) -> None:
    """A run on states of the speech encoder is judged and not exported."""
    train_briefly(NETWORK, data, STATES, tmp_path / "run")
    shutil.copytree(WEIGHTS, tmp_path / "motion")
    with pytest.raises(InvalidRequestError, match=r"network\.heard is 'states'"):
        NETWORK.export(tmp_path / "run", tmp_path / "motion")
