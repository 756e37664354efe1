"""How the prior of `ugc` is trained: the committed prior, and a large one for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.render.losses import LossWeights
from services.render.renderers.ugc.network import UgcConfig
from services.render.train.people import PeopleSettings
from services.render.train.recipe import Recipe, for_a_gpu
from services.training.loop_settings import LoopSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcRecipe(Recipe):
    """How the prior is trained; see Recipe.

    Attributes:
        batch: single examples beside the sequence, per batch in the second phase.
        network: shape of the network.
        weights: weights of the losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=750, seed=20262, bfloat16=True))
    warm_steps: int = 400
    warm_batch: int = 8
    batch: int = 2
    adversarial_learning_rate: float = 3e-4
    average_decay: float = 0.995
    people: PeopleSettings = field(default_factory=lambda: PeopleSettings(sharp_share=0.6))
    network: UgcConfig = field(default_factory=UgcConfig)
    weights: LossWeights = field(default_factory=LossWeights)


CONFIGS: Final = {
    "default": UgcRecipe(),
    # Widths of the first four levels of the U-Net of pix2pix (Isola et al. 2017, App. 6.1): 64, 128, 256, 512.
    "large": for_a_gpu(
        UgcRecipe(),
        batch=26,
        network=UgcConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4)),
    ),
}
