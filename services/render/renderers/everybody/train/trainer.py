"""Trainer of the prior of `everybody`: Eq. 4 of the paper, in the units of services/render/losses.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from services.render.losses import (
    adversarial_loss,
    compose,
    critic_view,
    discriminator_loss,
    gradient_penalty,
    unjudged_terms,
)
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.weights import save_weights
from services.render.renderers.everybody.network import WEIGHTS, EverybodyNetwork
from services.render.renderers.everybody.train.footage import WindowBatch
from services.render.renderers.everybody.train.full_network import WindowDiscriminator
from services.render.renderers.everybody.train.recipes import EverybodyRecipe
from services.render.train.trainer import Drawn, Trainer, TrainerInputs


@dataclass(frozen=True, slots=True, eq=False)
class WindowDrawn(Drawn):
    """Pictures of one step.

    Attributes:
        past: float [B, 18, h, w], the filmed frames t-6 to t-1, as far as discriminators see them.
    """

    past: Tensor


class EverybodyTrainer(Trainer[EverybodyRecipe, EverybodyNetwork, WindowBatch, WindowDrawn]):
    """Trainer of the network with a discriminator of frames and a discriminator of windows."""

    def __init__(self, recipe: EverybodyRecipe, inputs: TrainerInputs) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = EverybodyNetwork(recipe.network)
        self._frame = PatchDiscriminator(3)
        self._windows = WindowDiscriminator(recipe.windows)
        super().__init__(recipe, inputs, network, {"frame": self._frame, "windows": self._windows})

    def _drawn(self, batch: WindowBatch) -> WindowDrawn:
        inputs, targets = self._tensor(batch.pictures), self._tensor(batch.targets)
        with self._autocast():
            residual = self.network(inputs, self._default_states(len(inputs)))
        return WindowDrawn(compose(inputs, residual.float(), targets), critic_view(self._tensor(batch.past)))

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

    def _judge_penalties(self, drawn: WindowDrawn, view: Tensor, wanted: Tensor, step: int) -> dict[str, Tensor]:
        recipe = self.recipe
        if step % recipe.penalty_every:
            return {}
        filmed, made = (torch.cat([drawn.past, last], dim=1) for last in (wanted, view))
        # From the CPU, so that the numbers are the same on every device.
        shares = torch.rand(len(view), 1, 1, 1).to(view.device)
        penalty = gradient_penalty(self._windows, filmed, made, shares)
        return {"penalty": recipe.penalty * recipe.penalty_every * penalty}

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, folder: Path) -> None:
        """Write `everybody.safetensors`."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())
