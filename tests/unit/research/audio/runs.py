"""Short training runs."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from research.training.device import CPU
from research.training.loop import train
from research.training.networks import Opening, TrainableNetwork
from research.training.run_folder import RunFolder, TrainingProgress
from research.training.trainset import TrainSet


class _StopError(Exception):
    """The run is interrupted."""


def trained(
    network: TrainableNetwork, config: Any, data: Path, run: Path, *, resume: bool = False, stop_after: int | None = None
) -> TrainingProgress:
    """Train on the CPU. With `stop_after`, the run is interrupted in the step after so many steps."""
    training = network.open(Opening(config, TrainSet(data), CPU, {}))
    learn = training.learn

    def interrupted(step: int, batches: Any) -> Any:
        if step == stop_after:
            raise _StopError
        return learn(step, batches)

    training.learn = interrupted  # type: ignore[method-assign]
    folder = RunFolder(run, network.name, asdict(config))
    # Drawing takes longer than the training.
    folder.draw_curves = lambda: None  # type: ignore[method-assign]
    try:
        return train(training, folder, resume=resume, title=network.name, console=Console(file=io.StringIO()))
    except _StopError:
        return TrainingProgress()
