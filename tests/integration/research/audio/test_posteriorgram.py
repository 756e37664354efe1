"""The training of the posteriorgram network, from a tiny set to the file that the stage serves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from research.audio.networks import NETWORKS
from research.audio.posteriorgram import (
    DEFAULT,
    PosteriorgramConfig,
    PosteriorgramTraining,
    PpgConfig,
    ServedPpg,
    export,
    random_windows,
)
from research.training.device import CPU
from research.training.networks import Opening
from research.training.trainset import TrainSet
from services.audio.models import WEIGHTS
from services.audio.posteriorgram import PosteriorgramModel
from services.common.errors import InvalidRequestError
from tests.refusals import raised
from tests.unit.research.audio.runs import trained
from tests.unit.research.audio.speech_sets import speech_set, write_rows

TINY = replace(
    DEFAULT,
    loop=replace(DEFAULT.loop, steps=4, check_every=2),
    network=PpgConfig(projection=8, hidden=8),
    batch_windows=96,
    windows_of_a_recording=96,
    check_s=1.0,
)
(NETWORK,) = (network for network in NETWORKS if network.name == "posteriorgram")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    speech_set(folder)
    return folder


def opened(folder: Path, config: PosteriorgramConfig = TINY) -> PosteriorgramTraining:
    return PosteriorgramTraining(Opening(config, TrainSet(folder), CPU, {}))


def test_run_exports_served_file(data: Path, tmp_path: Path) -> None:
    """A run becomes the file that the stage serves."""
    progress = trained(NETWORK, TINY, data, tmp_path / "run")
    assert progress.step == 4
    assert 0.0 <= (progress.figures or {})["accuracy_new"] <= 1.0
    paths = export(tmp_path / "run", tmp_path / "weights")
    assert {path.name for path in paths} == {"ppg.onnx", "ppg.json", "ppg.card.md"}
    assert json.loads((tmp_path / "weights" / "ppg.json").read_text())["training"]["network"] == "posteriorgram"
    rows = PosteriorgramModel(tmp_path / "weights").run(np.zeros((1, 58, 20), np.float32))
    np.testing.assert_allclose(rows.sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.long
def test_interrupted_run_same_bytes(data: Path, tmp_path: Path) -> None:
    trained(NETWORK, TINY, data, tmp_path / "whole")
    trained(NETWORK, TINY, data, tmp_path / "cut", stop_after=3)
    trained(NETWORK, TINY, data, tmp_path / "cut", resume=True)
    for name in ("network.safetensors", "curves.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_network_learns_to_tell_chords_apart(tmp_path: Path) -> None:
    speech_set(tmp_path / "set", clips=2)
    config = replace(
        TINY,
        loop=replace(TINY.loop, steps=30, check_every=30),
        optimiser=replace(TINY.optimiser, learning_rate=2e-2, warm_up_steps=5, averaging=0.8),
        network=PpgConfig(projection=24, hidden=24, layers=1, dropout=0.0),
    )
    progress = trained(NETWORK, config, tmp_path / "set", tmp_path / "run")
    assert progress.best_score is not None
    assert progress.best_score > 0.3  # six classes


def test_fine_tuning_starts_from_committed(data: Path, tmp_path: Path) -> None:
    """Fine tuning begins with the network that comes with dubstage."""
    training = opened(data, replace(TINY, network=PpgConfig(), fine_tune=True))
    windows = random_windows(np.random.default_rng(3), 4)
    probabilities = ServedPpg(training.average)(torch.from_numpy(windows)).numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(probabilities, PosteriorgramModel(WEIGHTS).run(windows), atol=1e-5)
    training.learn(0, [training.batch(0, 0)])
    assert np.isfinite(training.check(1, tmp_path).score or np.nan)


def test_fine_tuning_other_size_refused(data: Path) -> None:
    with raised(InvalidRequestError, match=r"ppg\.onnx cannot be trained further: .*set fine_tune = false", field="config"):
        opened(data, replace(TINY, fine_tune=True))


def test_batch_from_seed_step_index(data: Path) -> None:
    config = replace(TINY, windows_of_a_recording=95)
    first, again = opened(data, config), opened(data, config)
    first.batch(9, 9)
    one, same, other = first.batch(5, 1), again.batch(5, 1), again.batch(5, 2)
    assert one.cepstra.shape == (96, 58, 20)
    assert one.cepstra.tobytes() == same.cepstra.tobytes()
    assert one.cepstra.tobytes() != other.cepstra.tobytes()


def test_unusable_sets_and_runs(tmp_path: Path) -> None:
    rows = speech_set(tmp_path)
    write_rows(tmp_path, [replace(row, phones="" if row.split == "val" else row.phones) for row in rows])
    with raised(InvalidRequestError, match="no clip of split 'val' with phones", field="data"):
        opened(tmp_path)
    write_rows(tmp_path, [replace(row, seconds=0.3) for row in speech_set(tmp_path)])
    with pytest.raises(InvalidRequestError, match=r"0\.5 s of sound"):
        opened(tmp_path)
    with pytest.raises(InvalidRequestError, match="holds no training run"):
        export(tmp_path, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
