"""Training of the temporal warp on drawn clips: steps, selection, export."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import save_file

from research.texture.networks import NETWORKS
from research.texture.temporal_warp import CONFIGS, TemporalWarp, TemporalWarpTraining, WarpExportSpec, export
from research.training.device import CPU
from research.training.loop import train
from research.training.networks import Opening
from research.training.run_folder import RunFolder
from research.training.trainset import TrainSet
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.texture.temporal_warp import TemporalWarpModel
from tests.unit.research.training.tiny import QuickFolder
from tests.unit.texture.train_sets import drawn_set

DEFAULT = CONFIGS["default"]
SMALL = replace(
    DEFAULT,
    loop=replace(DEFAULT.loop, steps=12, check_every=6),
    optimiser=replace(DEFAULT.optimiser, learning_rate=2e-3, last_share=1.0, averaging=0.5),
    batch=4,
    num_held_out=4,
)


@pytest.fixture(scope="module")
def data(person, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    clips = {"a": ("drawn", "train", 90), "b": ("drawn", "train", 90), "c": ("other", "train", 50), "d": ("new", "val", 50)}
    return drawn_set(tmp_path_factory.mktemp("set"), person, clips)


@pytest.fixture(scope="module")
def run(data: TrainSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    folder = QuickFolder(path, "temporal_warp", asdict(SMALL))
    training = TemporalWarpTraining(Opening(SMALL, data, CPU, {}))
    train(training, folder, resume=False, title="temporal_warp", console=Console(quiet=True))
    return path


def test_training_lowers_spline_energies(run: Path) -> None:
    """The first check is the plain spline and training lowers the energies."""
    rows = [line.split(",") for line in (run / "curves.csv").read_text().splitlines()[1:]]
    total = {int(step): float(value) for step, name, value in rows if name == "held_out_total"}
    assert sorted(total) == [0, 6, 12]
    assert total[12] < 0.995 * total[0]
    assert "new" not in (run / "CARD.md").read_text(), "nothing was learned from the held-out speaker"


@pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning")
def test_what_is_exported_is_what_was_trained(run: Path, tmp_path: Path) -> None:
    (network,) = NETWORKS
    assert network.export is not None
    written = export(run, tmp_path, WarpExportSpec(parity_runs=2))
    assert sorted(path.name for path in written) == ["temporal_warp.card.md", "temporal_warp.json", "temporal_warp.onnx"]
    sheet = json.loads((tmp_path / "temporal_warp.json").read_text())
    assert sheet["sha256"].startswith(TemporalWarpModel(tmp_path).version)
    assert sheet["training"]["config"]["batch"] == 4
    assert (tmp_path / "temporal_warp.card.md").read_bytes() == (run / "CARD.md").read_bytes()


@pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning")
def test_a_network_of_any_size_is_exported(tmp_path: Path) -> None:
    run, size = tmp_path / "run", CONFIGS["large"].network
    RunFolder(run, "temporal_warp", {"network": asdict(size)}).begin(resume=False)
    save_file(TemporalWarp(size).state_dict(), run / "temporal_warp.safetensors")
    network, *_ = export(run, tmp_path / "weights", WarpExportSpec(parity_runs=1))
    assert network.stat().st_size > 10_000_000


@pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning")
def test_refused_export_keeps_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractBrokenError, match=r"temporal_warp\.onnx was not written"):
        export(run, tmp_path, WarpExportSpec(parity_runs=1, tolerance_px=-1.0))
    assert list(tmp_path.iterdir()) == []


def _without_weights(run: Path) -> None:
    (run / "temporal_warp.safetensors").unlink()


def _with_half_a_file(run: Path) -> None:
    path = run / "temporal_warp.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def _with_another_size(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["config"]["network"]["hidden"] = 8
    (run / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("damage", [_without_weights, _with_half_a_file, _with_another_size])
def test_a_damaged_run_is_named(run: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    damage(copy)
    with pytest.raises(InvalidRequestError, match=r"run/temporal_warp\.safetensors"):
        export(copy, tmp_path / "weights")
