"""The stage's export command on tiny trained networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from services.motion import export as command
from services.motion.models import MotionModels
from services.motion.networks.sync import SyncConfig, SyncNetwork
from services.motion.predictors.ugc.grid import UgcGrid
from services.motion.predictors.ugc.network import UgcConfig, UgcNetwork
from tests.unit.motion.synthesised import random_features


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    return command.main()


@pytest.fixture
def runs(models: MotionModels, tmp_path: Path) -> Path:
    """Training runs of `ugc` and of the sync network with random weights, in the default folders below a folder."""
    torch.manual_seed(0)
    style, sync = UgcNetwork(UgcConfig()), SyncNetwork(SyncConfig())
    kept = {
        "style": {"state": style.state_dict(), "code": torch.zeros(8), "basis": models.basis, "scores": {"new": {}}},
        "sync": {"state": sync.state_dict(), "basis": models.sync_basis, "scores": {"recovery": {}}},
    }
    for name, config in (("style", UgcConfig()), ("sync", SyncConfig())):
        folder = tmp_path / "build" / "motion" / name
        folder.mkdir(parents=True)
        network = {field: getattr(config, field) for field in config.__dataclass_fields__}
        torch.save({**kept[name], "config": {"network": network}, "step": 1}, folder / "best.pt")
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # of the exporter, which warns of itself and of tracing
@pytest.mark.parametrize("arguments", [[], ["--predictor", "ugc"]])
def test_what_is_trained_is_exported_and_can_be_served(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Sequence[str]
) -> None:
    monkeypatch.chdir(runs)
    assert run(monkeypatch, *arguments, "--out", "weights") == 0
    assert "skipped" in capsys.readouterr().err or arguments
    models = MotionModels(runs / "weights")
    assert len(UgcGrid(models, models.neutral_style()).push(random_features(5)).mouth_landmarks) == 3
    assert np.isfinite(models.embed_audio(np.zeros((40, 4, 25), np.float32))).all()
    assert {path.name for path in (runs / "weights").iterdir()} >= {"export.json", "motion_constants.safetensors"}


def test_nothing_trained_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--out", "weights") == 1
    assert "train first" in capsys.readouterr().err
    assert run(monkeypatch, "--predictor", "headpose", "--out", "weights") == 1
    assert "run=build/motion/head_motion" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()


def test_a_run_that_a_predictor_lacks_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--predictor", "ugc", "--run", "other=x") == 1
    assert "['style', 'sync']" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "--run", "style=x")
