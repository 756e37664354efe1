"""`dubstage train` and `dubstage export`: a whole run on a tiny set of a drawn person."""

import json
from pathlib import Path

import pytest

from gateway.cli.app import run
from tests.refusals import error_line
from tests.unit.research.cli.train_command import tiny_set, train

TINY = "batch = 1\nnum_held_out = 1\n[loop]\nsteps = 2\ncheck_every = 2\n[network]\nhidden = 4\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_set(tmp_path_factory.mktemp("set"))


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning")
def test_a_network_is_trained_continued_and_exported(data, tmp_path, config, capsys) -> None:
    output, weights = tmp_path / "run", tmp_path / "weights"
    assert train(data, output, "--config", config) == 0
    assert {"CARD.md", "config.json", "curves.csv", "curves.png"} <= {path.name for path in output.iterdir()}
    assert "| drawn | CC0-1.0 | 1 | 1 | 0.0 |" in (output / "CARD.md").read_text()
    capsys.readouterr()
    assert train(data, output, "--config", config) == 10
    assert "holds a run already: go on with it by --resume" in error_line(capsys)
    assert train(data, output, "--config", config, "--resume") == 0
    capsys.readouterr()
    assert train(data, output, "--config", config, "--resume", "--steps", "3") == 10
    assert "loop.steps: 2, now 3" in error_line(capsys)
    assert run(["export", "temporal_warp", "--run", str(output), "--output", str(weights)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert {Path(line).name for line in written} == {"temporal_warp.onnx", "temporal_warp.json", "temporal_warp.card.md"}
    assert json.loads((weights / "texture" / "temporal_warp.json").read_text())["training"]["config"]["network"]["hidden"] == 4
