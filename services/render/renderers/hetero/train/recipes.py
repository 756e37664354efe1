"""How the prior of `hetero` is trained: the committed prior, and a large one for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.render.renderers.hetero.network import HeteroConfig
from services.render.train.people import PeopleSettings
from services.render.train.recipe import Recipe, for_a_gpu
from services.training.loop_settings import LoopSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroWeights:
    """Weights of Eq. 4 (L_r = perceptual, lambda_s = spatial, lambda_t = temporal), then of the added losses.

    L_s and L_t have two terms each: the least-squares adversarial loss, and `matching` times the feature matching loss. Added are
    the absolute error in the mask, because the small perceptual network hardly sees colour, and the strength of fine detail.
    """

    perceptual: float = 1.0
    spatial: float = 1.0
    temporal: float = 0.5
    matching: float = 1.0
    reconstruction: float = 10.0
    detail: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroRecipe(Recipe):
    """How the prior is trained; see Recipe. In the second phase, `batch` counts sequences of consecutive frames.

    The landmark translator needs no sound, so the training takes all footage with sharp pixels, most of it close-ups.

    Attributes:
        sequence: frames of a sequence that the temporal discriminator sees.
        network: shape of the network.
        weights: weights of the losses. With `temporal` 0 there is no temporal discriminator.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=900, seed=20271, bfloat16=True))
    warm_steps: int = 600
    warm_batch: int = 6
    batch: int = 2
    learning_rate: float = 2e-3
    adversarial_learning_rate: float = 5e-4
    people: PeopleSettings = field(default_factory=lambda: PeopleSettings(sharp_share=0.6))
    sequence: int = 3
    network: HeteroConfig = field(default_factory=HeteroConfig)
    weights: HeteroWeights = field(default_factory=HeteroWeights)


CONFIGS: Final = {
    "default": HeteroRecipe(),
    "large": for_a_gpu(
        HeteroRecipe(),
        batch=12,
        network=HeteroConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4), embedder_widths=(32, 64, 128, 256), rank=8),
    ),
}
