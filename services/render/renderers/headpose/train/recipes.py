"""How the prior of `headpose` is trained: the committed prior, and a large one for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.render.renderers.headpose.network import HeadposeConfig
from services.render.train.recipe import Recipe, for_a_gpu
from services.training.loop_settings import LoopSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeWeights:
    """Weights of Eq. 4, then of the added losses. The paper has 1 : 100 : 2 : 1e-5 in its units.

    With a heavier conditional discriminator and a lighter attention loss the generator soon hands the drawn face through, whose
    low-frequency albedo is smooth: A went from .28 to .74 within a hundred steps.
    """

    adversarial: float = 0.25
    reconstruction: float = 10.0
    attention: float = 0.4
    smoothness: float = 0.1
    perceptual: float = 1.0
    frame: float = 1.0
    detail: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeRecipe(Recipe):
    """How the prior is trained; see Recipe.

    Attributes:
        memory_learning_rate: learning rate of the spatial features' layer.
        arcface: path of your own ArcFace file (.onnx; services.render.renderers.headpose.identity_features) for the identity
            features; empty: the identity embedding.
        network: shape of the network. The sizes of the identity feature and of the spatial feature's network are those of the
            embedding and of the perceptual network.
        weights: weights of the losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=600, seed=20269, bfloat16=True))
    warm_steps: int = 300
    warm_batch: int = 6
    batch: int = 5
    adversarial_learning_rate: float = 3e-4
    memory_learning_rate: float = 2e-3
    arcface: str = ""
    network: HeadposeConfig = field(default_factory=HeadposeConfig)
    weights: HeadposeWeights = field(default_factory=HeadposeWeights)


CONFIGS: Final = {
    "default": HeadposeRecipe(),
    # Widths of the first four levels of the U-Net of pix2pix (Isola et al. 2017, App. 6.1): 64, 128, 256, 512. A memory for more
    # people has more items.
    "large": for_a_gpu(
        HeadposeRecipe(),
        network=HeadposeConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4), items=1024),
    ),
}
