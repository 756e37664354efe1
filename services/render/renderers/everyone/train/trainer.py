"""Trainer of the prior of `everyone`: network and textures together by Eq. 1, in the units of services/render/losses.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.render.losses import Features, adversarial_loss, discriminator_loss, reconstruction_loss
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.weights import save_weights
from services.render.pairs import LIPS
from services.render.renderers.everyone.inputs import WINDOW_FRAMES
from services.render.renderers.everyone.learned_textures import ShownWindow, as_parameter, made_frames, shown
from services.render.renderers.everyone.network import WEIGHTS, EveryoneNetwork
from services.render.renderers.everyone.style_features import with_style
from services.render.renderers.everyone.train.footage import WindowBatch, WindowSource
from services.render.renderers.everyone.train.recipes import EveryoneRecipe
from services.render.renderers.everyone.train.textures import PersonTextures
from services.render.train.trainer import Drawn, Trainer, TrainerInputs


@dataclass(frozen=True, slots=True, eq=False)
class WindowDrawn(Drawn):
    """Pictures of one step: three frames of each window, t-1 to t+1.

    Attributes:
        texture_error: scalar, L_reg.
    """

    texture_error: Tensor


class EveryoneTrainer(Trainer[EveryoneRecipe, Any, WindowBatch, WindowDrawn]):
    """Trainer of the network and of one texture for each person, with a discriminator that sees all frames of a window."""

    more_parts = ("textures", "texture_optimiser")

    def __init__(self, recipe: EveryoneRecipe, inputs: TrainerInputs) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = EveryoneNetwork(recipe.network)
        self._frames = recipe.network.frames
        self._judge = PatchDiscriminator(3 * self._frames)
        features = _of_served(inputs.features, self._frames)
        super().__init__(recipe, replace(inputs, features=features), network, {"judge": self._judge})
        assert isinstance(inputs.source, WindowSource)
        self.textures = PersonTextures(inputs.source.textured.firsts).to(self.device.torch_device)
        self.texture_optimiser = torch.optim.Adam(self.textures.parameters(), recipe.texture_learning_rate, betas=(0.9, 0.99))

    def _drawn(self, batch: WindowBatch) -> WindowDrawn:
        place = self.device.torch_device
        textures = [
            as_parameter(first).detach().to(place) if is_fresh else self.textures.of(number)
            for number, first, is_fresh in zip(batch.people, batch.firsts, batch.fresh, strict=True)
        ]
        seen = shown(batch.windows, textures, place, batch.colours)
        pictures = seen.pictures.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            residuals = self.network.window(pictures, self._default_states(len(textures)))
        lips = seen.pictures[:, LIPS : LIPS + 1].detach()
        drawn = seen if self._frames == WINDOW_FRAMES else _middle(seen)
        return WindowDrawn(made_frames(drawn.bases, residuals.float(), drawn, lips), seen.texture_error)

    def _terms(self, drawn: WindowDrawn) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "reconstruction": weights.reconstruction * reconstruction_loss(drawn.made),
            "texture": weights.texture * drawn.texture_error,
        }

    def _judged_terms(self, drawn: WindowDrawn, view: Tensor) -> dict[str, Tensor]:
        return {"adversarial": self.recipe.weights.adversarial * adversarial_loss(self._judge(self._windows(view)))}

    def _judge_losses(self, drawn: WindowDrawn, view: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        return {"judge": discriminator_loss(self._judge(self._windows(wanted)), self._judge(self._windows(view)))}

    def _after_descent(self, drawings: Sequence[WindowDrawn]) -> dict[str, float]:
        """Do the textures' step. Adam leaves textures without a gradient as they are."""
        share = self.optimiser.param_groups[0]["lr"] / (self.recipe.learning_rate * self.optimiser.param_groups[0]["rate_scale"])
        self.textures.exchange(self.device)
        for group in self.texture_optimiser.param_groups:
            group["lr"] = self.recipe.texture_learning_rate * share
        self.texture_optimiser.step()
        self.textures.clamp()
        self.texture_optimiser.zero_grad(set_to_none=True)
        return {}

    def _windows(self, frames: Tensor) -> Tensor:
        """Return frames of windows, stacked along the channels: float [B, 3 T, h, w] from [B T, 3, h, w]."""
        return frames.reshape(-1, 3 * self._frames, *frames.shape[2:])

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, folder: Path) -> None:
        """Write `everyone.safetensors`: the network alone, without any person's texture."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())


def _middle(window: ShownWindow) -> ShownWindow:
    """Return the frames t of windows: bases, targets and masks have one frame."""
    middle = slice(WINDOW_FRAMES // 2, WINDOW_FRAMES // 2 + 1)
    return window._replace(bases=window.bases[:, middle], targets=window.targets[:, middle], masks=window.masks[:, middle])


def _of_served(features: Features, num_frames: int) -> Features:
    """Return a function that returns features and Gram matrices of the middle frames of windows, which serving draws.

    The paper takes the mean over all frames of the window, at three times the cost.
    """
    both = with_style(features)
    return lambda frames: both(frames[num_frames // 2 :: num_frames])
