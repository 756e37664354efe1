"""A training of one small linear network with dropout, on numbers that follow from seed, step and index."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from research.training.device import CPU, Device, open_device
from research.training.loop import train
from research.training.run_folder import RunFolder, TrainingProgress
from research.training.training import Check, LoopSettings, OptimiserSettings, Supervised
from research.training.trainset import ClipRow

RESULT = "tiny.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyConfig:
    """Configuration. `scores`: score of each check in turn; empty: no check has a score."""

    loop: LoopSettings
    optimiser: OptimiserSettings
    width: int = 4
    scores: tuple[float, ...] = ()


CONFIG = TinyConfig(loop=LoopSettings(steps=12, check_every=4), optimiser=OptimiserSettings(learning_rate=0.05, warm_up_steps=3))


def with_loop(**settings: object) -> TinyConfig:
    """Return CONFIG with other settings of the loop."""
    return replace(CONFIG, loop=replace(CONFIG.loop, **settings))


class QuickFolder(RunFolder):
    """A run folder without pictures, which take longer than these trainings."""

    def draw_curves(self) -> None:
        """Draw nothing."""


class KilledError(Exception):
    """Stands for the end of the process."""


class Tiny(Supervised[Tensor]):
    """The training. `killed_at`: step at which the process ends."""

    def __init__(self, config: TinyConfig, device: Device = CPU, clips: Sequence[ClipRow] = (), killed_at: int = -1) -> None:
        torch.manual_seed(config.loop.seed)
        module = nn.Sequential(nn.Linear(config.width, config.width), nn.Dropout(0.5), nn.Linear(config.width, 1))
        super().__init__(config.loop, device, clips, module, config.optimiser)
        self._config, self._killed_at = config, killed_at
        self.made: list[tuple[int, int]] = []

    def batch(self, step: int, index: int) -> Tensor:
        self.made.append((step, index))
        rng = np.random.default_rng((self.settings.seed, step, index))
        return torch.from_numpy(rng.normal(size=(8, self._config.width)).astype(np.float32))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        error = self.module(batch) - batch.sum(1, keepdim=True)
        return {"total": error.square().mean()}

    def learn(self, step: int, batches: Sequence[Tensor]) -> Mapping[str, float]:
        if step == self._killed_at:
            raise KilledError
        return super().learn(step, batches)

    def check(self, step: int, folder: Path) -> Check:
        number = -(-step // self.settings.check_every)
        weight = float(sum(value.double().abs().sum() for value in self.average.parameters()))
        return Check({"weight": weight}, self._config.scores[number] if self._config.scores else None)

    def write(self, folder: Path) -> None:
        save_file(self.average.state_dict(), folder / RESULT)


def run(folder: Path, config: TinyConfig = CONFIG, *, resume: bool = False, training: Tiny | None = None) -> TrainingProgress:
    """Train in a folder."""
    opened = QuickFolder(folder, "tiny", asdict(config))
    return train(training or Tiny(config), opened, resume=resume, title="tiny", console=Console(quiet=True))


def main(folder: Path, config: TinyConfig) -> None:
    """Train as one of the processes that the environment tells of."""
    with open_device("cpu") as device:
        run(folder, config, training=Tiny(config, device))


if __name__ == "__main__":
    main(Path(sys.argv[1]), with_loop(batches=2))
