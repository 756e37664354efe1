"""How the prior of `everybody` is trained: the committed prior, and a large one for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.render.losses import LossWeights
from services.render.renderers.everybody.network import EverybodyConfig
from services.render.renderers.everybody.train.full_network import WindowDiscriminatorConfig
from services.render.train.recipe import Recipe, for_a_gpu
from services.training.loop_settings import LoopSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyRecipe(Recipe):
    """How the prior is trained; see Recipe.

    Attributes:
        penalty: weight of L_gp.
        penalty_every: steps from one gradient penalty to the next. The penalty counts `penalty_every` times as much instead.
        network: shape of the network.
        windows: shape of the discriminator of windows.
        weights: weights of the other losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=700, seed=20265, bfloat16=True))
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


CONFIGS: Final = {
    "default": EverybodyRecipe(),
    # Channels of the first four levels of the paper's U-Net (table 7), and of the first six levels of its discriminator (table 8):
    # the part of the box that the discriminator sees is too small for a seventh.
    "large": for_a_gpu(
        EverybodyRecipe(),
        network=EverybodyConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4)),
        windows=WindowDiscriminatorConfig(widths=(64, 128, 256, 512, 512, 512), scores=1),
    ),
}
