"""Search for one person's texture and offset of the style vector, with the network fixed: Eq. 1 for frame t."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from services.common.array_types import Float32, UInt8
from services.render.losses import critic_view, perceptual_loss, reconstruction_loss
from services.render.networks.discriminators import load_discriminator
from services.render.networks.perceptual import load_perceptual
from services.render.pairs import LIPS
from services.render.renderers.everyone.learned_textures import LOWEST, as_bytes, as_parameter, made_frames, shown
from services.render.renderers.everyone.loss_weights import EveryoneWeights
from services.render.renderers.everyone.network import EveryoneNetwork
from services.render.renderers.everyone.pairs import SeenWindow, stacked
from services.render.renderers.everyone.style_features import with_style
from services.render.search import FrameJudge, forward_pass, shuffled_batches, step_reports


@dataclass(frozen=True, kw_only=True, slots=True)
class TextureRecipe:
    """Settings of the search.

    Attributes:
        num_steps: steps of the optimiser, unless a job gives a number.
        batch_size: windows per step.
        num_windows: windows that are made before the search, spread over the bank.
        learning_rate: learning rate of the texture (Adam), unit: the full range. It falls to a tenth by half a cosine.
        style_learning_rate: learning rate of the offset of W, which falls too.
        network_learning_rate: learning rate of the network's weights, which falls too. 0: the network stays as it is, as one loaded
            model for all actors must. The measurement of what the prior earns (train/prior_gain.py) trains the network.
        judge_learning_rate: learning rate of the discriminator of frames.
        average_decay: decay of the moving averages of texture and offset. The averages are the result.
        report_every: steps between reports.
        weights: weights of the losses. The adversarial loss counts little: a discriminator that has seen ten seconds of one person
            would soon be fooled by pictures that fool no viewer.
    """

    num_steps: int = 70
    batch_size: int = 4
    num_windows: int = 120
    learning_rate: float = 4e-3
    style_learning_rate: float = 5e-3
    network_learning_rate: float = 0.0
    judge_learning_rate: float = 5e-4
    average_decay: float = 0.9
    report_every: int = 10
    weights: EveryoneWeights = field(default_factory=lambda: EveryoneWeights(adversarial=0.08))


@dataclass(frozen=True, slots=True, eq=False)
class SearchProgress:
    """One report of the search.

    Attributes:
        step: steps done.
        loss: mean absolute error inside the mask since the last report, grey levels.
        style: float32 [S], offset of W.
        texture: uint8 [256, 256, 16].
    """

    step: int
    loss: float
    style: Float32
    texture: UInt8


class TextureSearch:
    """Optimisation of one texture and one offset of W.

    Args:
        network: the prior.
        texture: uint8 [256, 256, 16], the first texture.
        recipe: settings.
        num_steps: steps of the optimiser.
        weights: folder with the perceptual network and the discriminator of frames.

    Raises:
        ModelNotFound: a weights file is missing.
    """

    def __init__(self, network: EveryoneNetwork, texture: UInt8, recipe: TextureRecipe, num_steps: int, weights: Path) -> None:
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._features = with_style(load_perceptual(weights / "perceptual.safetensors").features)
        self._judge = FrameJudge(load_discriminator(weights / "frame_discriminator.safetensors"), recipe.judge_learning_rate)
        self._recipe, self._num_steps = recipe, num_steps
        self._texture, self._style = as_parameter(texture), nn.Parameter(network.default_state())
        self._average = [part.detach().clone() for part in (self._texture, self._style)]
        groups: list[dict[str, Any]] = [
            {"params": [self._texture], "lr": recipe.learning_rate},
            {"params": [self._style], "lr": recipe.style_learning_rate},
        ]
        if recipe.network_learning_rate:
            groups.append({"params": list(network.requires_grad_(True).parameters()), "lr": recipe.network_learning_rate})
        self._optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._noise = torch.Generator()
        falling = lambda step: 0.1 + 0.9 * 0.5 * (1.0 + np.cos(np.pi * step / num_steps))  # noqa: E731
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, falling)

    def run(self, windows: Sequence[SeenWindow], seed: int) -> Iterator[SearchProgress]:
        """Run all steps, each on a batch of the windows in random order; yield progress.

        Raises:
            Cancelled: the call that this is done for is over. The search looks before every step.
        """
        # A generator of its own: searches of other calls take turns with this one.
        self._noise.manual_seed(seed)
        rng = np.random.default_rng((seed, 1))
        batches = shuffled_batches(len(windows), self._recipe.batch_size, self._num_steps, rng)
        losses = (self.step([windows[place] for place in chosen]) for chosen in batches)
        for report in step_reports(losses, self._num_steps, self._recipe.report_every):
            texture, style = self._average
            yield SearchProgress(report.step, report.loss, style.numpy().copy(), as_bytes(texture))

    def step(self, windows: Sequence[SeenWindow]) -> float:
        """Do one step on a batch; return the mean absolute error inside the mask, grey levels."""
        weights = self._recipe.weights
        seen = shown(stacked(windows), [self._texture] * len(windows), generator=self._noise)
        pictures = seen.pictures.contiguous(memory_format=torch.channels_last)
        with forward_pass():
            residual = self._network(pictures, self._style.expand(len(windows), -1))
        middle = slice(1, 2)
        now = seen._replace(targets=seen.targets[:, middle], masks=seen.masks[:, middle])
        made = made_frames(seen.bases[:, middle], residual.float()[:, None], now, seen.pictures[:, LIPS : LIPS + 1].detach())
        drawn, wanted = critic_view(made.pictures), critic_view(made.target)
        reconstruction = reconstruction_loss(made)
        loss = weights.reconstruction * reconstruction + weights.texture * seen.texture_error
        with forward_pass():
            judged = self._judge.fooled(drawn)
            loss = loss + weights.perceptual * perceptual_loss(self._features, drawn, wanted) + weights.adversarial * judged
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.float())
        self._optimiser.step()
        self._schedule.step()
        with torch.no_grad():
            self._texture.clamp_(LOWEST, 1.0)
            for average, part in zip(self._average, (self._texture, self._style), strict=True):
                average.lerp_(part, 1.0 - self._recipe.average_decay)
        self._judge.learn(wanted, drawn)
        return float(reconstruction.detach()) * 255.0
