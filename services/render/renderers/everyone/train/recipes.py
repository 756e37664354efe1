"""How the prior of `everyone` is trained: the committed prior, and a large one for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.render.renderers.everyone.loss_weights import EveryoneWeights
from services.render.renderers.everyone.network import EveryoneConfig
from services.render.train.recipe import Recipe, for_a_gpu
from services.training.loop_settings import LoopSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneRecipe(Recipe):
    """How the prior is trained; see Recipe.

    Attributes:
        texture_learning_rate: learning rate of the people's textures (Adam), unit: the full range. It follows the network's rate.
        network: shape of the network.
        weights: weights of the losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=600, seed=20250, check_every=300, bfloat16=True))
    warm_steps: int = 300
    warm_batch: int = 4
    batch: int = 4
    adversarial_learning_rate: float = 4e-4
    texture_learning_rate: float = 1e-2
    network: EveryoneConfig = field(default_factory=EveryoneConfig)
    weights: EveryoneWeights = field(default_factory=EveryoneWeights)


CONFIGS: Final = {
    "default": EveryoneRecipe(),
    # Channels of StyleGAN2 (Karras et al. 2020) at these sizes, and its W of 512 numbers for face and audio each. The batch and the
    # rate are the paper's (Sec. 4).
    "large": for_a_gpu(
        EveryoneRecipe(),
        warm_batch=4,
        batch=4,
        learning_rate=1e-4,
        adversarial_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        network=EveryoneConfig(widths=(256, 512, 512, 512), face_size=512, audio_size=512, audio_widths=(64, 128, 256)),
    ),
}
