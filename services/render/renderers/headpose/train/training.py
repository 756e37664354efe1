"""Training part of `headpose` (services.render.train.rooms): its networks, and what the tools of training need.

Eq. 4 of the paper, in the units of services/render/losses.py: adversarial loss (least squares, for the reason given there), L1, and
size and smoothness of the attention mask. The adversarial loss comes from a patch discriminator that sees the window of rendered
frames and the frame to judge. Three losses are added: perceptual, adversarial with a discriminator of single frames, and strength
of detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.render.renderers.headpose.identity_features import EMBEDDING
from services.render.renderers.headpose.train import identity_embedding, mouth_interior
from services.render.renderers.headpose.train.opening import open_headpose, read_held_out
from services.render.renderers.headpose.train.recipes import CONFIGS
from services.render.renderers.headpose.train.reenact import reenact
from services.render.train.renderer_network import renderer_network
from services.render.train.rooms import RendererTraining
from services.training.networks import TrainableNetwork


def _embedding_files(run: Path) -> Sequence[str]:
    return [path.name for suffix in (".onnx", ".safetensors") if (path := run / f"{EMBEDDING}{suffix}").is_file()]


NETWORK: Final[TrainableNetwork] = renderer_network(
    "headpose",
    summary="refines the drawn face of a frame with key pictures and a memory of identity features",
    configs=CONFIGS,
    open_training=open_headpose,
    more_needs=(identity_embedding.NETWORK.name,),
    more_files=_embedding_files,
)
TRAINING: Final = RendererTraining(
    networks=(identity_embedding.NETWORK, mouth_interior.NETWORK, NETWORK), held_out=read_held_out, reenact=reenact
)
