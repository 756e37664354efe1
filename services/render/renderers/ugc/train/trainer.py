"""Trainer of the prior of `ugc`: all five losses of services/render/losses.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from services.render.losses import (
    Features,
    LossWeights,
    adversarial_loss,
    compose,
    discriminator_loss,
    unjudged_terms,
)
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.tensors import to_tensor
from services.render.networks.weights import save_weights
from services.render.renderers.ugc.network import WEIGHTS, UgcConfig, UgcNetwork
from services.render.renderers.ugc.train.footage import UgcBatch
from services.render.train.recipe import Recipe
from services.render.train.trainer import Drawn, Trainer

SEQUENCE_FRAMES: Final = 6
"""Frames that the discriminator of sequences sees at once (paper, Sec. III-C)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcRecipe(Recipe):
    """How the committed prior was trained; see Recipe.

    Attributes:
        batch: single examples beside the sequence, per step in the second phase.
        network: shape of the network.
        weights: weights of the losses.
    """

    steps: int = 750
    warm_steps: int = 400
    warm_batch: int = 8
    batch: int = 2
    adversarial_learning_rate: float = 3e-4
    average_decay: float = 0.995
    sharp_share: float = 0.6
    network: UgcConfig = field(default_factory=UgcConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 20262
    report_every: int = 50


@dataclass(frozen=True, slots=True, eq=False)
class UgcDrawn(Drawn):
    """Pictures of one step.

    Attributes:
        num_sequence: the first `num_sequence` pictures are consecutive frames of one clip.
    """

    num_sequence: int


class UgcTrainer(Trainer[UgcRecipe, UgcNetwork, UgcBatch, UgcDrawn]):
    """Trainer of the network with a discriminator of frames and a discriminator of sequences."""

    def __init__(self, recipe: UgcRecipe, features: Features) -> None:
        torch.manual_seed(recipe.seed)
        network = UgcNetwork(recipe.network)
        self._frame = PatchDiscriminator(3)
        self._sequence = PatchDiscriminator(3 * SEQUENCE_FRAMES)
        super().__init__(recipe, network, {"frame": self._frame, "sequence": self._sequence}, features)

    def _drawn(self, batch: UgcBatch) -> UgcDrawn:
        inputs, targets = to_tensor(batch.pictures), to_tensor(batch.targets)
        states = self.network.default_state().expand(len(inputs), -1)
        with torch.autocast("cpu", torch.bfloat16):
            residual = self.network(inputs, states)
        return UgcDrawn(compose(inputs, residual.float(), targets), {}, batch.num_sequence)

    def _terms(self, drawn: UgcDrawn) -> dict[str, Tensor]:
        return unjudged_terms(drawn.made, self.recipe.weights)

    def _judged_terms(self, drawn: UgcDrawn, view: Tensor) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "frame": weights.frame * adversarial_loss(self._frame(view)),
            "sequence": weights.sequence * adversarial_loss(self._sequence(_sequence(view, drawn))),
        }

    def _judge_losses(self, drawn: UgcDrawn, view: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        filmed, made = _sequence(wanted, drawn), _sequence(view, drawn)
        return {
            "frame_judge": discriminator_loss(self._frame(wanted), self._frame(view)),
            "sequence_judge": discriminator_loss(self._sequence(filmed), self._sequence(made)),
        }

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, out: Path) -> None:
        """Write `ugc.safetensors` and `frame_discriminator.safetensors`."""
        save_weights(out / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())
        save_weights(out / "frame_discriminator.safetensors", self._frame, {"in_channels": 3}, **self.facts())


def _sequence(pictures: Tensor, drawn: UgcDrawn) -> Tensor:
    """Return the consecutive frames, stacked along the channels: float [1, 3 T, h, w]."""
    return torch.flatten(pictures[None, : drawn.num_sequence], 1, 2)
