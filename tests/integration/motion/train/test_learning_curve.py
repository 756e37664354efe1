"""The command that trains on growing parts of a training set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.motion.predictors.ugc.train.network import NETWORK
from services.motion.train import learning_curve
from services.motion.train.learning_curve import CURVE, PICTURE, main, read_curve
from tests.unit.motion.made_clips import small_set
from tests.unit.motion.predictors.ugc.train.tiny import TINY


def test_the_command_measures_each_part_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder = small_set(tmp_path / "set").folder, tmp_path / "curve"
    command = ["--data", str(data), "--output", str(folder), "--steps", "2"]
    monkeypatch.setattr(learning_curve, "network_named", {"ugc_motion": replace(NETWORK, configs={"default": TINY})}.__getitem__)
    assert main(command) == 0
    measured = read_curve(folder / CURVE)
    assert [(each.axis, each.speakers, each.group) for each in measured] == [
        ("minutes", 2, "new"), ("speakers", 1, "new"), ("speakers", 2, "new"),
    ]  # fmt: skip
    assert all(-1.0 <= each.r_opening <= 1.0 and each.lmd_ratio > 0.0 for each in measured)
    assert (folder / PICTURE).stat().st_size > 10_000

    monkeypatch.setattr(learning_curve, "train", None)
    assert main(command) == 0
    assert read_curve(folder / CURVE) == measured
