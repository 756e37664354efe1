"""Trainings of a few steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from research.training.device import CPU
from research.training.loop import train
from research.training.networks import Opening, TrainableNetwork
from research.training.run_folder import RunFolder
from research.training.training import Training
from research.training.trainset import TrainSet


def opened(network: TrainableNetwork, data: TrainSet, config: Any, runs: Mapping[str, Path] | None = None) -> Training[Any]:
    training: Training[Any] = network.open(Opening(config, data, CPU, runs or {}))
    return training


def train_briefly(
    network: TrainableNetwork,
    data: TrainSet,
    config: Any,
    folder: Path,
    *,
    runs: Mapping[str, Path] | None = None,
    resume: bool = False,
    killed_at: int | None = None,
) -> Training[Any]:
    """Train, and return the training; `killed_at` ends it in the middle of a step."""
    training = opened(network, data, config, runs)
    learn = training.learn

    def learn_or_die(step: int, batches: Any) -> Any:
        if step == killed_at:
            raise KeyboardInterrupt
        return learn(step, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "learn", learn_or_die)
        patch.setattr(RunFolder, "draw_curves", lambda self: None)
        run = RunFolder(folder, network.name, asdict(config))
        train(training, run, resume=resume, title=network.name, console=Console(quiet=True))
    return training
