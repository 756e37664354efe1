"""A training that is interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.motion.predictors.ugc.network import UgcConfig
from services.motion.predictors.ugc.train.batches import BatchConfig
from services.motion.predictors.ugc.train.prior import PriorConfig
from services.motion.predictors.ugc.train.run import UgcTraining, train
from services.motion.train.clips import TrainingClip
from services.motion.train.loop import Curves, LoopConfig, TrainingRun
from tests.unit.motion.made_clips import made_clip


def test_a_run_that_was_interrupted_ends_with_the_same_weights(
    clips: list[TrainingClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curves, "draw", lambda self, path: None)
    config = UgcTraining(
        loop=LoopConfig(steps=4, evaluate_every=2, warm_up_steps=1),
        batches=BatchConfig(batch_size=2),
        network=UgcConfig(prior_width=3, channels=16, bank_channels=4),
        prior=PriorConfig(width=3),
    )

    def run(folder: str) -> dict[str, torch.Tensor]:
        train(config, clips[:3], [made_clip(7, "dev")], tmp_path / folder)
        weights: dict[str, torch.Tensor] = torch.load(tmp_path / folder / "checkpoint.pt", weights_only=False)["averaged"]
        return weights

    whole = run("whole")
    update = TrainingRun.update

    def killed(self: TrainingRun, loss: torch.Tensor) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        update(self, loss)

    monkeypatch.setattr(TrainingRun, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.setattr(TrainingRun, "update", update)
    resumed = run("killed")
    for name, value in whole.items():
        torch.testing.assert_close(value, resumed[name], rtol=0, atol=0)
