"""Adapt the renderer to one person: find the actor's state, with the prior's weights untouched (paper `ugc`, Sec. III-C).

The paper fine-tunes its whole network for 25 minutes. Here only the scales and shifts of the FiLM layers move, which is an input of
the served network, so nothing has to be loaded anew for an actor; and a few thousand numbers can't learn ten seconds by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from services.common.calls import check_still_wanted
from services.common.mouth_bank import MouthBank
from services.render.adapt.pairs import NEAREST_FRAMES, LandmarkNoise, Pair, choose_sources, make_pair, perturbed
from services.render.identity_features import EMBEDDING, IdentityFeatures, embedding_of
from services.render.losses import (
    LossWeights,
    adversarial_loss,
    compose,
    critic_view,
    discriminator_loss,
    perceptual_loss,
    reconstruction_loss,
    total_variation_loss,
)
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.everybody import EverybodyNetwork
from services.render.networks.headpose import HeadposeNetwork
from services.render.networks.perceptual import PerceptualNetwork
from services.render.networks.refine import RefineNetwork
from services.render.networks.weights import (
    load_discriminator,
    load_everybody,
    load_headpose,
    load_perceptual,
    load_refine,
    metadata_of,
)
from services.render.types import PersonalizeProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonalizeRecipe:
    """How an actor's state is found.

    Attributes:
        num_steps: of the optimiser.
        batch_size: pairs a step.
        num_pairs: pairs that are made beforehand, spread over the bank.
        learning_rate: of the state (Adam), falling to a tenth by half a cosine.
        judge_learning_rate: of the frame discriminator, which learns the person's own look beside it.
        average_decay: of the moving average that is the result.
        blended: textures that retrieval blends.
        report_every: steps between reports.
        weights: of the losses. There is no sequence term, since frames are drawn at random. The frame term counts little: a few
            thousand free numbers and one discriminator that has seen ten seconds soon find pictures that fool it and nobody else.
    """

    num_steps: int = 120
    batch_size: int = 4
    num_pairs: int = 160
    learning_rate: float = 2e-3
    judge_learning_rate: float = 5e-4
    average_decay: float = 0.95
    blended: int = 3
    report_every: int = 10
    weights: LossWeights = field(default_factory=lambda: LossWeights(frame=0.08))


@dataclass(frozen=True, slots=True, eq=False)
class PersonalizeModels:
    """Files that personalisation needs, in one folder (.safetensors): refine, everybody or headpose (with identity_embedding),
    perceptual, frame_discriminator."""

    folder: Path

    def refine(self) -> RefineNetwork:
        """The prior; raises ModelNotFound."""
        return load_refine(self.folder / "refine.safetensors")

    def everybody(self) -> EverybodyNetwork:
        """The prior of `everybody`; raises ModelNotFound."""
        return load_everybody(self.folder / "everybody.safetensors")

    def headpose(self) -> HeadposeNetwork:
        """The prior of `headpose`; raises ModelNotFound."""
        return load_headpose(self.folder / "headpose.safetensors")

    def identity_features(self) -> IdentityFeatures:
        """The embedding that the prior of `headpose` was trained with; raises ModelNotFound where another one lies there."""
        return embedding_of(self.folder, metadata_of(self.folder / "headpose.safetensors").get(EMBEDDING, ""))

    def perceptual(self) -> PerceptualNetwork:
        """Features of L_vgg; raises ModelNotFound."""
        return load_perceptual(self.folder / "perceptual.safetensors")

    def judge(self) -> PatchDiscriminator:
        """The frame discriminator as the prior's training left it, trainable; raises ModelNotFound."""
        return load_discriminator(self.folder / "frame_discriminator.safetensors")


def personalize(
    bank: MouthBank,
    models: PersonalizeModels,
    *,
    num_steps: int = 0,
    seed: int = 0,
    num_threads: int = 1,
    train: bool = True,
    recipe: PersonalizeRecipe | None = None,
) -> Iterator[PersonalizeProgress]:
    """Find the state of the bank's person; reports progress, the last report holds the result.

    Deterministic for a seed and a number of threads. A bank whose frames all lie within a few of each other has no pair to
    learn from: then the only report, of step 0 of 0, holds the prior's own state.

    Args:
        bank: textures and landmarks.
        models: the prior and what judges it.
        num_steps: 0 takes the recipe's.
        seed: of the choice of frames and noise.
        num_threads: of the thread that draws the reports, as long as it lives.
        train: False: no step; the only report holds the prior's own state.
        recipe: all else.

    Raises:
        Cancelled: the call that this is done for is over; looked at before every step.
        ModelNotFound: a weight file is missing.
    """
    torch.set_num_threads(num_threads)
    recipe = recipe or PersonalizeRecipe()
    steps = num_steps or recipe.num_steps
    network = models.refine()
    pairs = actor_pairs(bank, recipe, seed) if train else []
    if not pairs:
        yield PersonalizeProgress(0, 0, 0.0, network.default_state().numpy())
        return
    search = StateSearch(network, models.perceptual(), models.judge(), recipe, steps)
    yield from search.run(pairs, seed)


def actor_pairs(bank: MouthBank, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Pairs of the bank as retrieval would serve them if the target's own moment were not in it."""
    rng = np.random.default_rng((seed, 0))
    index = bank.frame_index
    reachable = np.flatnonzero(np.maximum(index - index[0], index[-1] - index) > NEAREST_FRAMES)
    if not len(reachable):
        return []
    rows = reachable[np.unique(np.linspace(0, len(reachable) - 1, recipe.num_pairs).round().astype(int))]
    everything, noise = np.arange(bank.num_frames), LandmarkNoise()
    pairs = []
    for row in rows:
        check_still_wanted()
        sources = choose_sources(bank, int(row), everything, recipe.blended)
        pairs.append(make_pair(bank, int(row), sources, perturbed(bank.mouth[row], noise, rng)))
    return pairs


class DrawsFromState(Protocol):
    """A network whose pictures are laid out as those of losses.compose: what to add, from pictures and states."""

    def default_state(self) -> torch.Tensor:
        """The prior's own state, float32 [S]."""

    def __call__(self, pictures: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Pictures [B, C, 160, 160] and states [B, S] to residuals [B, 3, 160, 160]."""


class StateSearch:
    """The optimisation: one state, one discriminator."""

    def __init__(
        self,
        network: DrawsFromState,
        perceptual: PerceptualNetwork,
        judge: PatchDiscriminator,
        recipe: PersonalizeRecipe,
        num_steps: int,
    ) -> None:
        if isinstance(network, nn.Module):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network
        self._features = perceptual.features
        self._judge = judge
        self._recipe = recipe
        self._num_steps = num_steps
        self._state = network.default_state().requires_grad_(True)
        self.average = network.default_state()
        self._optimiser = torch.optim.Adam([self._state], recipe.learning_rate, betas=(0.9, 0.99))
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, num_steps, recipe.learning_rate * 0.1)
        self._judge_optimiser = torch.optim.Adam(judge.parameters(), recipe.judge_learning_rate, betas=(0.5, 0.99))

    def run(self, pairs: Sequence[Pair], seed: int) -> Iterator[PersonalizeProgress]:
        """All steps, each on a batch of the pairs in random order; see `personalize`."""
        recipe, steps = self._recipe, self._num_steps
        rng = np.random.default_rng((seed, 1))
        losses: list[float] = []
        order: list[int] = []
        for step in range(1, steps + 1):
            check_still_wanted()
            while len(order) < recipe.batch_size:
                order.extend(rng.permutation(len(pairs)).tolist())
            chosen, order = order[: recipe.batch_size], order[recipe.batch_size :]
            losses.append(self.step([pairs[index] for index in chosen]))
            if step % recipe.report_every == 0 or step == steps:
                yield PersonalizeProgress(step, steps, float(np.mean(losses)), self.average.numpy().copy())
                losses.clear()

    def step(self, pairs: Sequence[Pair]) -> float:
        """One step on a batch; the mean absolute error inside the mask, grey levels."""
        weights = self._recipe.weights
        inputs = _to_tensor(np.stack([pair.picture for pair in pairs]))
        targets = _to_tensor(np.stack([pair.target for pair in pairs]))
        with torch.autocast("cpu", torch.bfloat16):
            residual = self._network(inputs, self._state.expand(len(pairs), -1))
        made = compose(inputs, residual.float(), targets)
        drawn, wanted = critic_view(made.pictures), critic_view(targets)
        reconstruction = reconstruction_loss(made)
        loss = weights.reconstruction * reconstruction + weights.total_variation * total_variation_loss(made)
        with torch.autocast("cpu", torch.bfloat16):
            self._judge.requires_grad_(False)
            judged = adversarial_loss(self._judge(drawn))
            self._judge.requires_grad_(True)
            loss = loss + weights.perceptual * perceptual_loss(self._features, drawn, wanted) + weights.frame * judged
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.float())
        self._optimiser.step()
        self._schedule.step()
        with torch.autocast("cpu", torch.bfloat16):
            judge_loss = discriminator_loss(self._judge(wanted), self._judge(drawn.detach()))
        self._judge_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(judge_loss.float())
        self._judge_optimiser.step()
        with torch.no_grad():
            self.average.lerp_(self._state, 1.0 - self._recipe.average_decay)
        return float(reconstruction.detach()) * 255.0


def _to_tensor(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255.0)
