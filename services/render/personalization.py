"""Personalisation: the search for one actor's state, with the prior's weights untouched (Song et al. 2023, Sec. III-C).

The paper fine-tunes its whole network for 25 minutes. Here only the scales and shifts of the FiLM layers move, which are an input
of the served network. So an actor needs no network of their own, and a few thousand numbers cannot learn ten seconds by heart.
Each method makes the pairs that the search learns from, in its own package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from services.common.array_types import Float32
from services.common.errors import BackendUnavailableError
from services.common.server.call_context import check_not_cancelled
from services.common.server.resources import computes_bfloat16, cpu_flags
from services.render.backends.base import Device
from services.render.backends.devices import DeviceChoice
from services.render.losses import (
    PatchDiscriminator,
    RenderLossWeights,
    adversarial_loss,
    compose,
    discriminator_loss,
    discriminator_view,
    load_discriminator,
    perceptual_loss,
    reconstruction_loss,
    total_variation_loss,
)
from services.render.networks.perceptual import PerceptualNetwork, load_perceptual
from services.render.networks.weights import to_tensor
from services.render.pairs import Pair
from services.render.renderer import PersonalizeJob
from services.render.types import PersonalizeProgress


def shuffled_batches(count: int, batch_size: int, num_steps: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield `num_steps` batches of the numbers 0 to count - 1. Every number comes once before a number comes again.

    Args:
        count: numbers to choose from, at least 1.
        batch_size: numbers of a batch.
        num_steps: batches.
        rng: random numbers. The same state gives the same batches.

    Raises:
        WorkCancelledError: the call that this is done for is over. The search looks before every batch.
    """
    order: list[int] = []
    for _ in range(num_steps):
        while len(order) < batch_size:
            order.extend(rng.permutation(count).tolist())
        chosen, order = order[:batch_size], order[batch_size:]
        check_not_cancelled()
        yield chosen


def forward_pass(device: Device) -> torch.autocast:
    """Return the context of a search's forward passes: bfloat16 where the GPU or processor computes in it, else float32."""
    enabled = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else computes_bfloat16(cpu_flags())
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def check_device(device: Device) -> None:
    """Check that PyTorch can compute on a device.

    Raises:
        BackendUnavailableError: PyTorch is a build without CUDA, or finds no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        why = (
            "finds no GPU: install the NVIDIA driver and give the process a GPU"
            if torch.version.cuda
            else "is a build without CUDA"
        )
        raise BackendUnavailableError(
            f"DUBSTAGE_PERSONALIZE_DEVICE=cuda: PyTorch {torch.__version__} {why}; or set DUBSTAGE_PERSONALIZE_DEVICE=cpu"
        )


def prepare_device(choice: DeviceChoice) -> Device:
    """Prepare PyTorch for a search, so that the search gives the same bytes each time, and return the device of the search.

    Args:
        choice: the setting; `auto` is the GPU if PyTorch computes there, otherwise the processor.

    Raises:
        BackendUnavailableError: see `check_device`.
    """
    device: Device = choice if choice != "auto" else "cuda" if _computes_on_gpu() else "cpu"
    check_device(device)
    if device == "cuda":
        # Other algorithms of cuDNN may add in another order each time.
        torch.backends.cudnn.deterministic = True
    return device


def _computes_on_gpu() -> bool:
    """Return whether PyTorch finds a GPU and has kernels for the GPU's architecture."""
    if not torch.cuda.is_available():
        return False
    try:
        return bool(torch.ones(1, device="cuda").add(1).item() == 2)
    except RuntimeError:
        return False


class StepReport(NamedTuple):
    """Number of a step, and the mean loss of the steps since the last report."""

    step: int
    loss: float


def step_reports(losses: Iterable[float], num_steps: int, report_every: int) -> Iterator[StepReport]:
    """Yield a report every few steps and after the last step.

    Args:
        losses: loss of each step. A step is done when its loss is asked for.
        report_every: steps between reports.
    """
    since: list[float] = []
    for step, loss in enumerate(losses, start=1):
        since.append(loss)
        if step % report_every == 0 or step == num_steps:
            yield StepReport(step, float(np.mean(since)))
            since.clear()


class SearchDiscriminator:
    """The discriminator of frames in a search, as the prior's training left it. The search trains the discriminator further.

    Args:
        network: the discriminator.
        learning_rate: learning rate (Adam).
        device: device of the search.
    """

    def __init__(self, network: PatchDiscriminator, learning_rate: float, device: Device) -> None:
        self._network, self._device = network.to(device), device
        self._optimiser = torch.optim.Adam(network.parameters(), learning_rate, betas=(0.5, 0.99))

    def fooled(self, drawn: Tensor) -> Tensor:
        """Return the adversarial loss of drawn pictures, float [B, 3, h, w]: a scalar without gradients of the discriminator."""
        self._network.requires_grad_(False)
        loss = adversarial_loss(self._network(drawn))
        self._network.requires_grad_(True)
        return loss

    def learn(self, target: Tensor, drawn: Tensor) -> None:
        """Do one step of the discriminator on footage and drawn pictures, float [B, 3, h, w]."""
        with forward_pass(self._device):
            loss = discriminator_loss(self._network(target), self._network(drawn.detach()))
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.float())
        self._optimiser.step()


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonalizeRecipe:
    """Settings of the search for an actor's state.

    Attributes:
        num_steps: steps of the optimiser, unless a job gives a number.
        batch_size: pairs per step.
        num_pairs: pairs that are made before the search, spread over the bank.
        learning_rate: learning rate of the state (Adam). It falls to a tenth by half a cosine.
        discriminator_learning_rate: learning rate of the frame discriminator, which learns the person's own look beside the state.
        average_decay: decay of the moving average of the state. The average is the result.
        report_every: steps between reports.
        weights: weights of the losses. There is no sequence term, because pairs are drawn at random. The frame term counts little:
            a few thousand free numbers, and one discriminator that has seen ten seconds, would soon find pictures that fool this
            discriminator and no viewer.
    """

    num_steps: int = 60
    batch_size: int = 4
    num_pairs: int = 160
    learning_rate: float = 2e-3
    discriminator_learning_rate: float = 5e-4
    average_decay: float = 0.9
    report_every: int = 2
    weights: RenderLossWeights = field(default_factory=lambda: RenderLossWeights(frame=0.08))


class DrawsFromState(Protocol):
    """Network that draws a residual from pictures, laid out as losses.compose expects, and from states."""

    def default_state(self) -> torch.Tensor:
        """Return the prior's own state, float32 [S]."""

    def __call__(self, pictures: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Return residuals, float [B, 3, 160, 160], for pictures [B, C, 160, 160] and states [B, S]."""


def personalized(
    network: DrawsFromState,
    pairs: Sequence[Pair],
    job: PersonalizeJob,
    recipe: PersonalizeRecipe,
    packed: Callable[[Float32], Float32] = lambda state: state,
) -> Iterator[PersonalizeProgress]:
    """Search the state that draws the pairs best; yield progress. The last report holds the result.

    The result is the same for the same seed, device and number of threads. Without pairs there is nothing to learn from: then the
    only report, of step 0 of 0, holds the prior's own state.

    Args:
        network: the prior.
        pairs: examples of the person.
        job: number of steps (0: the recipe's), seed, folder of weights.
        recipe: all other settings.
        packed: returns an actor's state, given the state that the network takes.

    Raises:
        WorkCancelledError: the call that this is done for is over. The search looks before every step.
        ModelNotFoundError: a weights file is missing.
        BackendUnavailableError: PyTorch cannot compute on the job's device.
    """
    if not pairs:
        yield PersonalizeProgress(0, 0, 0.0, packed(network.default_state().numpy()))
        return
    device = prepare_device(job.device)
    perceptual = load_perceptual(job.weights / "perceptual.safetensors")
    discriminator = load_discriminator(job.weights / "frame_discriminator.safetensors")
    search = StateSearch(network, perceptual, discriminator, recipe, job.num_steps or recipe.num_steps, device)
    for report in search.run(pairs, job.seed):
        yield replace(report, state=packed(report.state))


class StateSearch:
    """Optimisation of one state against one discriminator.

    Args:
        network: the prior.
        perceptual: network of the perceptual loss.
        discriminator: the frame discriminator as the prior's training left it; the search trains the discriminator further.
        num_steps: steps of the optimiser.
        device: device of the search.
    """

    def __init__(
        self,
        network: DrawsFromState,
        perceptual: PerceptualNetwork,
        discriminator: PatchDiscriminator,
        recipe: PersonalizeRecipe,
        num_steps: int,
        device: Device = "cpu",
    ) -> None:
        if isinstance(network, nn.Module):
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network, self._device = network, device
        self._features = perceptual.to(device).features
        self._discriminator = SearchDiscriminator(discriminator, recipe.discriminator_learning_rate, device)
        self._recipe = recipe
        self._num_steps = num_steps
        self._state = network.default_state().to(device).requires_grad_(True)
        self.average = network.default_state().to(device)
        self._optimiser = torch.optim.Adam([self._state], recipe.learning_rate, betas=(0.9, 0.99))
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, num_steps, recipe.learning_rate * 0.1)

    def run(self, pairs: Sequence[Pair], seed: int) -> Iterator[PersonalizeProgress]:
        """Run all steps, each on a batch of the pairs in random order; yield progress, see `personalized`."""
        recipe, steps = self._recipe, self._num_steps
        batches = shuffled_batches(len(pairs), recipe.batch_size, steps, np.random.default_rng((seed, 1)))
        losses = (self.step([pairs[index] for index in chosen]) for chosen in batches)
        for report in step_reports(losses, steps, recipe.report_every):
            yield PersonalizeProgress(report.step, steps, report.loss, self.average.cpu().numpy().copy())

    def step(self, pairs: Sequence[Pair]) -> float:
        """Do one step on a batch; return the mean absolute error inside the mask, grey levels."""
        weights = self._recipe.weights
        device = torch.device(self._device)
        inputs = to_tensor(np.stack([pair.picture for pair in pairs]), device)
        targets = to_tensor(np.stack([pair.target for pair in pairs]), device)
        with forward_pass(self._device):
            residual = self._network(inputs, self._state.expand(len(pairs), -1))
        composed = compose(inputs, residual.float(), targets)
        drawn, target = discriminator_view(composed.pictures), discriminator_view(targets)
        reconstruction = reconstruction_loss(composed)
        loss = weights.reconstruction * reconstruction + weights.total_variation * total_variation_loss(composed)
        with forward_pass(self._device):
            adversarial = self._discriminator.fooled(drawn)
            loss = loss + weights.perceptual * perceptual_loss(self._features, drawn, target) + weights.frame * adversarial
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.float())
        self._optimiser.step()
        self._schedule.step()
        self._discriminator.learn(target, drawn)
        with torch.no_grad():
            self.average.lerp_(self._state, 1.0 - self._recipe.average_decay)
        return float(reconstruction.detach()) * 255.0
