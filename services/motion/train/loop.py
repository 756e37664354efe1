"""What the trainings share: seeds, checkpoints that resume, the choice of the best step, the learning-rate schedule, curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

Scores = dict[str, dict[str, float]]
"""Group of clips -> name of a score -> mean over the clips of the group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """Length and pace of a training."""

    seed: int = 0
    steps: int = 3000
    learning_rate: float = 2.5e-3
    warm_up_steps: int = 100
    weight_decay: float = 1e-2
    gradient_norm: float = 1.0
    evaluate_every: int = 250
    averaging: float = 0.99
    """Decay of the exponential moving average of the weights. The average is exported."""
    threads: int = 1


@dataclass(slots=True)
class Curves:
    """Values by name over steps."""

    values: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, step: int, **values: float) -> None:
        """Append one value to each name."""
        for name, value in values.items():
            self.values.setdefault(name, []).append((step, float(value)))

    def draw(self, path: Path) -> None:
        """Draw one small plot per name into a PNG file."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        columns = 3
        rows = math.ceil(len(self.values) / columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False)
        for axis, (name, points) in zip(axes.flat, self.values.items(), strict=False):
            axis.plot(*zip(*points, strict=True))
            axis.set_title(name, fontsize=9)
        figure.tight_layout()
        figure.savefig(path, dpi=90)
        pyplot.close(figure)


class Averaged:
    """Exponential moving average of a module's weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights, faster in the first steps."""
        decay = min(self._decay, (1.0 + step) / (10.0 + step))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[name].lerp_(value.detach(), 1.0 - decay)
            else:
                self.state[name].copy_(value)


def learning_rate(config: LoopConfig, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to a hundredth."""
    if step < config.warm_up_steps:
        return config.learning_rate * (step + 1) / config.warm_up_steps
    done = (step - config.warm_up_steps) / max(1, config.steps - config.warm_up_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))


def set_up(config: LoopConfig) -> None:
    """Seed PyTorch and set the number of threads; to be called before the network is made."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)


class TrainingRun:
    """Optimiser, averaged weights, curves and random state of one training, saved and restored as one file."""

    def __init__(self, folder: Path, module: nn.Module, config: LoopConfig, description: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "checkpoint.pt"
        self.folder, self.module, self.config, self.description = folder, module, config, description
        self.optimiser = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.averaged = Averaged(module, config.averaging)
        self.curves = Curves()
        self.rng = np.random.default_rng(config.seed)
        self.step = 0
        self.best = -math.inf

    def resume(self) -> None:
        """Continue from the checkpoint in the folder if its configuration is the same."""
        if not self._file.is_file():
            return
        saved = torch.load(self._file, weights_only=False)
        if saved["description"] != self.description:
            return
        self.module.load_state_dict(saved["module"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.averaged.state = saved["averaged"]
        self.curves.values = saved["curves"]
        self.rng.bit_generator.state = saved["rng"]
        self.step, self.best = saved["step"], saved["best"]
        torch.set_rng_state(saved["torch_rng"])

    def save(self) -> None:
        """Write the checkpoint and the curves."""
        state = {
            "description": self.description,
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "averaged": self.averaged.state,
            "curves": self.curves.values,
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "best": self.best,
        }
        partial = self._file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._file)
        self.curves.draw(self.folder / "curves.png")

    def update(self, loss: torch.Tensor) -> None:
        """Make one optimiser step."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.gradient_norm)
        self.optimiser.step()
        self.averaged.update(self.module, self.step)
        self.step += 1

    def _record(self, scores: Scores, value: float) -> bool:
        """Add the scores of each group and the number to select on to the curves; return whether the number is the best so far."""
        self.curves.add(self.step, score=value)
        for group, values in scores.items():
            self.curves.add(self.step, **{f"{group} {name}": value for name, value in values.items()})
        if value > self.best:
            self.best = value
            return True
        return False

    def consider(
        self,
        averaged: nn.Module,
        evaluate: Callable[[], Scores],
        value: Callable[[Scores], float],
        beside: Callable[[], Mapping[str, Any]],
    ) -> Scores:
        """Evaluate the averaged weights, keep them in `best.pt` if they are the best so far, and save the checkpoint.

        Args:
            averaged: network that gets the averaged weights.
            evaluate: returns the scores of `averaged`.
            value: returns the number to select on.
            beside: returns what `best.pt` holds beside configuration, weights, scores and step.
        """
        averaged.load_state_dict(self.averaged.state)
        scores = evaluate()
        if self._record(scores, value(scores)):
            kept = {"config": self.description, "state": averaged.state_dict(), "scores": scores, "step": self.step}
            torch.save({**kept, **beside()}, self.folder / "best.pt")
        self.save()
        return scores

    def train(self, title: str, losses_of_step: Callable[[], dict[str, Tensor]], describe: Callable[[list[float]], str]) -> None:
        """Make all remaining steps.

        Args:
            title: text beside the progress bar.
            losses_of_step: draws a batch and returns the parts of its loss. The network learns from the part `total`.
            describe: evaluates and returns a line of text, given the mean of each part since the last evaluation.
        """
        sums: list[list[float]] = []
        with progress() as bar:
            task = bar.add_task(title, total=self.config.steps, completed=self.step)
            while self.step < self.config.steps:
                self.module.train()
                losses = losses_of_step()
                self.update(losses["total"])
                sums.append([float(part.detach()) for part in losses.values()])
                bar.update(task, completed=self.step)
                if self.step % self.config.evaluate_every == 0 or self.step == self.config.steps:
                    means = [fmean(column) for column in zip(*sums, strict=True)]
                    self.curves.add(self.step, **dict(zip([f"loss {name}" for name in losses], means, strict=True)))
                    sums = []
                    bar.console.print(f"{self.step:5d} {describe(means)}")


def progress() -> Progress:
    """Return a progress bar."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
