"""What the searches of personalisations share: random batches, precision, reports, and a discriminator that learns as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from services.common.chassis.calls import check_still_wanted
from services.common.chassis.cpu import computes_bfloat16, cpu_flags
from services.render.losses import adversarial_loss, discriminator_loss
from services.render.networks.discriminators import PatchDiscriminator


def shuffled_batches(count: int, batch_size: int, num_steps: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield `num_steps` batches of the numbers 0 to count - 1. Every number comes once before a number comes again.

    Args:
        count: numbers to choose from, at least 1.
        batch_size: numbers of a batch.
        num_steps: batches.
        rng: random numbers. The same state gives the same batches.

    Raises:
        Cancelled: the call that this is done for is over. The search looks before every batch.
    """
    order: list[int] = []
    for _ in range(num_steps):
        while len(order) < batch_size:
            order.extend(rng.permutation(count).tolist())
        chosen, order = order[:batch_size], order[batch_size:]
        check_still_wanted()
        yield chosen


def forward_pass() -> torch.autocast:
    """Return the context of a search's forward passes: bfloat16 on processors with instructions for it, float32 on all others."""
    return torch.autocast("cpu", torch.bfloat16, enabled=computes_bfloat16(cpu_flags()))


class StepReport(NamedTuple):
    """Number of a step, and the mean loss of the steps since the last report."""

    step: int
    loss: float


def step_reports(losses: Iterable[float], num_steps: int, report_every: int) -> Iterator[StepReport]:
    """Yield a report every few steps and after the last step.

    Args:
        losses: loss of each step. A step is done when its loss is asked for.
        num_steps: number of steps.
        report_every: steps between reports.
    """
    since: list[float] = []
    for step, loss in enumerate(losses, start=1):
        since.append(loss)
        if step % report_every == 0 or step == num_steps:
            yield StepReport(step, float(np.mean(since)))
            since.clear()


class FrameJudge:
    """The discriminator of frames in a search, as the prior's training left it. The search trains the discriminator further.

    Args:
        network: the discriminator.
        learning_rate: learning rate (Adam).
    """

    def __init__(self, network: PatchDiscriminator, learning_rate: float) -> None:
        self._network = network
        self._optimiser = torch.optim.Adam(network.parameters(), learning_rate, betas=(0.5, 0.99))

    def fooled(self, drawn: Tensor) -> Tensor:
        """Return the adversarial loss of drawn pictures, float [B, 3, h, w]: a scalar without gradients of the discriminator."""
        self._network.requires_grad_(False)
        loss = adversarial_loss(self._network(drawn))
        self._network.requires_grad_(True)
        return loss

    def learn(self, wanted: Tensor, drawn: Tensor) -> None:
        """Do one step of the discriminator on footage and drawn pictures, float [B, 3, h, w]."""
        with forward_pass():
            loss = discriminator_loss(self._network(wanted), self._network(drawn.detach()))
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.float())
        self._optimiser.step()
