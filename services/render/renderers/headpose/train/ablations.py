"""Pictures of the network's parts: faces without the memory, attention masks, and faces with the key pictures' detail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from services.common.array_types import Float32, UInt8
from services.render.networks.tensors import to_tensor
from services.render.pairs import MASK, Pair
from services.render.renderers.headpose.detail import with_detail
from services.render.renderers.headpose.inputs import RENDERED, keys_shown_in
from services.render.renderers.headpose.network import HeadposeNetwork, refined
from services.render.train.shown import Faces, Shown


def detailed_as_keys(shown: Shown) -> Shown:
    """Return drawn faces with the strength of detail of their key pictures."""
    pairs = zip(shown.clip.pairs, shown.faces, strict=True)
    return Shown(shown.clip, [with_detail(face, keys_shown_in(pair.picture), pair.picture[..., MASK]) for pair, face in pairs])


@torch.no_grad()
def draw_with(network: HeadposeNetwork, pairs: Sequence[Pair], actor: Float32, identity: torch.Tensor) -> Faces:
    """Return faces drawn with an identity feature that does not come from the memory.

    Args:
        network: the prior.
        pairs: the pairs.
        actor: float32 [S], actor's state without key pictures.
        identity: float [1, D], the identity feature.
    """
    faces = []
    for pair in pairs:
        pictures = to_tensor(pair.picture[None])
        masks = network.masks(pictures, torch.from_numpy(actor[None, : network.film_size]), identity)
        made = refined(pictures[:, RENDERED], masks)
        faces.append(np.clip(np.rint(made[0].permute(1, 2, 0).numpy() * 255.0), 0, 255).astype(np.uint8))
    return faces


@torch.no_grad()
def attention_of(network: HeadposeNetwork, pair: Pair, actor: Float32) -> UInt8:
    """Return the attention mask A of a pair as a grey picture: uint8 [160, 160, 3].

    Args:
        network: the prior.
        pair: the pair.
        actor: float32 [S], actor's state without key pictures.
    """
    pictures, state = to_tensor(pair.picture[None]), torch.from_numpy(actor[None])
    masks = network.masks(pictures, state[:, : network.film_size], network.identity_of(pictures, state))
    levels = np.rint(masks.attention[0].permute(1, 2, 0).numpy() * 255.0).astype(np.uint8)
    return np.repeat(levels, 3, axis=2)
