"""Trainer of the prior of `everybody`: Eq. 4 of the paper, in the units of services/render/losses.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from services.render.losses import (
    Features,
    LossWeights,
    adversarial_loss,
    compose,
    critic_view,
    discriminator_loss,
    gradient_penalty,
    unjudged_terms,
)
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.tensors import to_tensor
from services.render.networks.weights import save_weights
from services.render.renderers.everybody.network import WEIGHTS, EverybodyConfig, EverybodyNetwork
from services.render.renderers.everybody.train.footage import WindowBatch
from services.render.renderers.everybody.train.full_network import WindowDiscriminator, WindowDiscriminatorConfig
from services.render.train.recipe import Recipe
from services.render.train.trainer import Drawn, Trainer


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyRecipe(Recipe):
    """How the committed prior was trained; see Recipe.

    Attributes:
        penalty: weight of L_gp.
        penalty_every: steps from one gradient penalty to the next. The penalty counts `penalty_every` times as much instead.
        network: shape of the network.
        windows: shape of the discriminator of windows.
        weights: weights of the other losses.
    """

    steps: int = 700
    warm_steps: int = 400
    warm_batch: int = 6
    batch: int = 5
    adversarial_learning_rate: float = 4e-4
    penalty: float = 0.1
    penalty_every: int = 4
    network: EverybodyConfig = field(default_factory=EverybodyConfig)
    windows: WindowDiscriminatorConfig = field(
        default_factory=lambda: WindowDiscriminatorConfig(widths=(32, 64, 96, 128), scores=1)
    )
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 20265


@dataclass(frozen=True, slots=True, eq=False)
class WindowDrawn(Drawn):
    """Pictures of one step.

    Attributes:
        past: float [B, 18, h, w], the filmed frames t-6 to t-1, as far as discriminators see them.
    """

    past: Tensor


class EverybodyTrainer(Trainer[EverybodyRecipe, EverybodyNetwork, WindowBatch, WindowDrawn]):
    """Trainer of the network with a discriminator of frames and a discriminator of windows."""

    def __init__(self, recipe: EverybodyRecipe, features: Features) -> None:
        torch.manual_seed(recipe.seed)
        network = EverybodyNetwork(recipe.network)
        self._frame = PatchDiscriminator(3)
        self._windows = WindowDiscriminator(recipe.windows)
        super().__init__(recipe, network, {"frame": self._frame, "windows": self._windows}, features)

    def _drawn(self, batch: WindowBatch) -> WindowDrawn:
        inputs, targets = to_tensor(batch.pictures), to_tensor(batch.targets)
        with torch.autocast("cpu", torch.bfloat16):
            residual = self.network(inputs, self.network.default_state().expand(len(inputs), -1))
        return WindowDrawn(compose(inputs, residual.float(), targets), {}, critic_view(to_tensor(batch.past)))

    def _terms(self, drawn: WindowDrawn) -> dict[str, Tensor]:
        return unjudged_terms(drawn.made, self.recipe.weights)

    def _judged_terms(self, drawn: WindowDrawn, view: Tensor) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "frame": weights.frame * adversarial_loss(self._frame(view)),
            "windows": weights.sequence * adversarial_loss(self._windows(torch.cat([drawn.past, view], dim=1))),
        }

    def _judge_losses(self, drawn: WindowDrawn, view: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        filmed, made = (torch.cat([drawn.past, last], dim=1) for last in (wanted, view))
        return {
            "frame_judge": discriminator_loss(self._frame(wanted), self._frame(view)),
            "windows_judge": discriminator_loss(self._windows(filmed), self._windows(made)),
        }

    def _judge_penalties(self, drawn: WindowDrawn, view: Tensor, wanted: Tensor) -> dict[str, tuple[float, Tensor]]:
        recipe = self.recipe
        if self.step % recipe.penalty_every:
            return {}
        filmed, made = (torch.cat([drawn.past, last], dim=1) for last in (wanted, view))
        shares = torch.from_numpy(np.random.default_rng((recipe.seed, self.step)).random((len(view), 1, 1, 1), np.float32))
        return {"penalty": (recipe.penalty * recipe.penalty_every, gradient_penalty(self._windows, filmed, made, shares))}

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, out: Path) -> None:
        """Write `everybody.safetensors` and `everybody_discriminator.safetensors`."""
        save_weights(out / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())
        save_weights(out / "everybody_discriminator.safetensors", self._frame, {"in_channels": 3}, **self.facts())
