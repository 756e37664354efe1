"""A face drawn by a network that is not exported, by PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from services.common.array_types import Float32, UInt8
from services.render.networks.tensors import to_tensor
from services.render.pairs import BASE
from services.render.renderers.everyone.network import EveryoneNetwork


@torch.no_grad()
def drawn_face(network: EveryoneNetwork, picture: UInt8, style: Float32) -> UInt8:
    """Return the face of frame t, uint8 [160, 160, 3].

    Args:
        network: the network.
        picture: uint8 [160, 160, PICTURE_CHANNELS], as inputs.network_picture lays out.
        style: float32 [S], offset of W.
    """
    made = network(to_tensor(picture[None]), torch.from_numpy(style)[None])[0].permute(1, 2, 0).numpy() * 255.0
    return np.asarray(np.clip(np.rint(picture[..., BASE] + made), 0, 255), np.uint8)
