"""Trainer of the prior of `ugc`: all five losses of services/render/losses.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from services.render.losses import (
    adversarial_loss,
    compose,
    discriminator_loss,
    unjudged_terms,
)
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.weights import save_weights
from services.render.renderers.ugc.network import WEIGHTS, UgcNetwork
from services.render.renderers.ugc.train.footage import UgcBatch, UgcSource
from services.render.renderers.ugc.train.recipes import UgcRecipe
from services.render.train.trainer import Drawn, Trainer, TrainerInputs

FRAME_DISCRIMINATOR: Final = "frame_discriminator.safetensors"
"""Name of the file with the discriminator of frames, which personalisation needs."""
SEQUENCE_FRAMES: Final = 6
"""Frames that the discriminator of sequences sees at once (paper, Sec. III-C)."""


@dataclass(frozen=True, slots=True, eq=False)
class UgcDrawn(Drawn):
    """Pictures of one step.

    Attributes:
        num_sequence: the first `num_sequence` pictures are consecutive frames of one clip.
    """

    num_sequence: int


class UgcTrainer(Trainer[UgcRecipe, UgcNetwork, UgcBatch, UgcDrawn]):
    """Trainer of the network with a discriminator of frames and a discriminator of sequences."""

    def __init__(self, recipe: UgcRecipe, inputs: TrainerInputs) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = UgcNetwork(recipe.network)
        self._frame = PatchDiscriminator(3)
        self._sequence = PatchDiscriminator(3 * SEQUENCE_FRAMES)
        assert isinstance(inputs.source, UgcSource)
        self._source = inputs.source
        super().__init__(recipe, inputs, network, {"frame": self._frame, "sequence": self._sequence})

    def batch(self, step: int, index: int) -> UgcBatch:
        """See Training.batch."""
        num_sequence = 0 if step < self.recipe.warm_steps else SEQUENCE_FRAMES
        return self._source.batch_with_sequence(step, index, self.recipe.batch_of(step), num_sequence)

    def _drawn(self, batch: UgcBatch) -> UgcDrawn:
        inputs, targets = self._tensor(batch.pictures), self._tensor(batch.targets)
        with self._autocast():
            residual = self.network(inputs, self._default_states(len(inputs)))
        return UgcDrawn(compose(inputs, residual.float(), targets), batch.num_sequence)

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

    def write(self, folder: Path) -> None:
        """Write `ugc.safetensors` and `frame_discriminator.safetensors`."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())
        save_weights(folder / FRAME_DISCRIMINATOR, self._frame, {"in_channels": 3}, **self.facts())


def _sequence(pictures: Tensor, drawn: UgcDrawn) -> Tensor:
    """Return the consecutive frames, stacked along the channels: float [1, 3 T, h, w]."""
    return torch.flatten(pictures[None, : drawn.num_sequence], 1, 2)
