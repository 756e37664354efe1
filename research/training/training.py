"""Training of one network as the loop sees it, settings, and the usual form: one module, one loss, AdamW, averaged weights."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from research.training.device import Device
from research.training.trainset import ClipRow

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """Length, pace and machinery of a training.

    Attributes:
        steps: optimiser steps.
        seed: seed of the weights, of the batches and of all noise.
        batches: batches whose gradients one step averages, over all processes (gradient accumulation). Several processes share
            them, so the number must be a multiple of the number of processes.
        check_every: steps between checks on held-out clips. Each check writes a checkpoint.
        patience: checks without a better score after which the training ends early; 0: never.
        workers: processes that prepare batches; 0: one thread that prepares the next batch.
        threads: threads of PyTorch.
        bfloat16: compute forward passes in bfloat16 where PyTorch allows that (autocast). A processor without instructions for
            bfloat16 computes in float32.
    """

    steps: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)] = 0
    batches: Annotated[int, Field(ge=1)] = 1
    check_every: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] = 1
    bfloat16: bool = False


class Stateful(Protocol):
    """Part of a training that a checkpoint holds: a module or an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take over a state."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of a check on held-out clips.

    Attributes:
        metrics: metrics by name, for curves and card.
        score: number to select the best step by, larger is better; None: the last step is kept, whatever the metrics.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None


class Training(ABC, Generic[BatchT]):
    """Training of one network. The loop asks for batches, steps and checks, and writes checkpoints.

    Args:
        device: where this process computes.
        clips: rows of the training set that the network learns from, for the card.
    """

    def __init__(self, settings: LoopSettings, device: Device, clips: Sequence[ClipRow]) -> None:
        self.settings, self.device, self.clips = settings, device, tuple(clips)

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """Return what a checkpoint holds, by name: modules, optimisers, averages. All other state follows from step and seed."""

    @abstractmethod
    def batch(self, step: int, index: int) -> BatchT:
        """Return a batch, always the same for the same seed, step and index. Worker processes and threads call this function.

        Args:
            step: step of the training, from 0.
            index: number of the batch within the step, from 0 to `settings.batches` - 1.
        """

    @abstractmethod
    def learn(self, step: int, batches: Sequence[BatchT]) -> Mapping[str, float]:
        """Make one step with this process's batches, and return metrics for the curves.

        Call `seed_pass` before each pass over a batch, so that noise does not depend on the number of processes.
        """

    @abstractmethod
    def check(self, step: int, folder: Path) -> Check:
        """Measure on held-out clips. Process 0 alone calls this function.

        Args:
            step: steps done.
            folder: the run's folder, for pictures.
        """

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the present network into the run's folder, in the files that the network's export reads."""

    def finish(self, folder: Path) -> None:
        """Do what follows the last step. The files of the best step lie in the folder."""

    def seed_pass(self, step: int, batch: int) -> None:
        """Seed PyTorch's noise for a pass over this process's batch number `batch` of a step."""
        index = batch * self.device.num_processes + self.device.rank
        torch.manual_seed((self.settings.seed * 1_000_003 + step) * 1_009 + index)


class Supervised(Training[BatchT]):
    """Training of one module with one sum of losses: AdamW, warm-up and half a cosine, clipped gradients, averaged weights.

    Args:
        device: where this process computes.
        clips: rows that the network learns from.
        module: the module, on the CPU. The training moves it to the device.
        optimiser: rates and decays.
    """

    def __init__(
        self, settings: LoopSettings, device: Device, clips: Sequence[ClipRow], module: nn.Module, optimiser: OptimiserSettings
    ) -> None:
        super().__init__(settings, device, clips)
        self.module = module.to(device.torch_device)
        self.average = copy.deepcopy(self.module).requires_grad_(False).eval()
        self._rates = optimiser
        self._optimiser = torch.optim.AdamW(
            [value for value in self.module.parameters() if value.requires_grad],
            lr=optimiser.learning_rate,
            weight_decay=optimiser.weight_decay,
        )
        self._objective = device.parallel(self.module, self.losses)

    @abstractmethod
    def losses(self, batch: BatchT) -> dict[str, Tensor]:
        """Return the parts of the loss, scalars. The module learns from the part `total`.

        Args:
            batch: a batch as `batch` made it, still on the CPU.
        """

    def parts(self) -> Mapping[str, Stateful]:
        """Return module, average and optimiser."""
        return {"module": self.module, "average": self.average, "optimiser": self._optimiser}

    def learn(self, step: int, batches: Sequence[BatchT]) -> Mapping[str, float]:
        """Make one step; return the parts of the loss, means over the batches."""
        self.module.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self._rates.at(step, self.settings.steps)
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for number, batch in enumerate(batches):
            self.seed_pass(step, number)
            with self.device.without_exchange(self._objective, last=number == len(batches) - 1):
                with self.device.autocast(bfloat16=self.settings.bfloat16):
                    losses: dict[str, Tensor] = self._objective(batch)
                torch.autograd.backward(losses["total"].float() / len(batches))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        nn.utils.clip_grad_norm_(self.module.parameters(), self._rates.gradient_norm)
        self._optimiser.step()
        follow(self.average, self.module, self._rates.averaging, step)
        return sums


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserSettings:
    """Rates of AdamW, and the average of the weights.

    Attributes:
        learning_rate: the largest learning rate.
        warm_up_steps: steps in which the learning rate rises linearly. Then the rate falls by half a cosine.
        last_share: learning rate of the last step as a share of the largest.
        gradient_norm: largest norm of the gradient.
        averaging: decay of the exponential moving average of the weights. The average is the result.
    """

    learning_rate: Annotated[float, Field(gt=0)]
    warm_up_steps: Annotated[int, Field(ge=0)] = 100
    last_share: Annotated[float, Field(ge=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    averaging: Annotated[float, Field(ge=0, le=1)] = 0.99

    def at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step of `steps`."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        done = min(1.0, (step - self.warm_up_steps) / max(1, steps - self.warm_up_steps))
        return self.learning_rate * (self.last_share + (1.0 - self.last_share) * 0.5 * (1.0 + math.cos(math.pi * done)))


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Move averaged weights towards a module's weights, faster in the first steps. Buffers are copied."""
    share = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
    for mean, value in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(value.detach(), share)
    for kept, own in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(own)
