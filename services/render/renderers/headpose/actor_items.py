"""Part of an actor's state that one look at the bank gives: the person's items of the memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from services.common.chassis.calls import check_still_wanted
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures
from services.render.networks.tensors import to_tensor
from services.render.pairs import NO_NOISE
from services.render.renderers.headpose.identity_features import IdentityFeatures
from services.render.renderers.headpose.identity_memory import IdentityMemory
from services.render.renderers.headpose.inputs import DRAWN_WINDOW, RENDERED
from services.render.renderers.headpose.mouth_interior import MouthInterior
from services.render.renderers.headpose.network import HeadposeNetwork
from services.render.renderers.headpose.pairs import DrawnView, drawn_pair

_ITEM_FRAMES: Final = 12


class ActorNetwork(nn.Module):
    """Network with one actor's items of the memory. Scales and shifts are the part of the actor's state that is left to be found.

    Args:
        network: generator and memory.
        items: float [actor_items * item_size], the actor's items.
    """

    def __init__(self, network: HeadposeNetwork, items: Tensor) -> None:
        super().__init__()
        self.network = network
        self.items = items

    def default_state(self) -> Tensor:
        """Return scales and shifts that change nothing: zeros, float32 [film_size]."""
        return torch.zeros(self.network.film_size)

    def forward(self, pictures: Tensor, film: Tensor) -> Tensor:
        """Return HeadposeNetwork.forward for scales and shifts, float [B, film_size]."""
        made: Tensor = self.network(pictures, torch.cat([film, self.items.expand(len(film), -1)], dim=1))
        return made


@dataclass(frozen=True, slots=True, eq=False)
class ActorFootage:
    """Footage of the person of an actor.

    Attributes:
        bank: textures and landmarks of the person.
        keys: key pictures of the bank.
        drawing: draws the person.
        mean: mean open mouth; None: the one that comes with dubstage.
    """

    bank: MouthBank
    keys: KeyPictures
    drawing: IdentityDrawing
    mean: MouthInterior | None = None

    def view(self, rows: tuple[int, ...], keys: KeyPictures, *, detailed: bool) -> DrawnView:
        """Return the window of some rows with key pictures; see DrawnView."""
        return DrawnView(rows, self.bank.boxes[list(rows)], keys, self.drawing, detailed, self.mean)


def actor_items(footage: ActorFootage, network: HeadposeNetwork, identity: IdentityFeatures) -> Tensor:
    """Return the person's items of the memory, float32 [actor_items * item_size].

    Frames of the bank, evenly spread, are written into an empty memory. A frame gives a pair: the spatial feature of the rendered
    frame and the identity feature of the filmed frame.

    Args:
        footage: footage of the person.
        network: the prior.
        identity: the identity embedding.

    Raises:
        Cancelled: the call that this is done for is over.
    """
    rows = np.unique(np.linspace(0, footage.bank.num_frames - 1, _ITEM_FRAMES).round().astype(int))
    memory = IdentityMemory(replace(network.memory.config, items=network.config.actor_items))
    for row in rows:
        check_still_wanted()
        for detailed in (False, True)[: 1 + footage.drawing.has_detail]:
            alone = footage.view((int(row),) * DRAWN_WINDOW, footage.keys, detailed=detailed)
            pair = drawn_pair(footage.bank, alone, NO_NOISE, 0)
            with torch.no_grad():
                query = network.spatial(to_tensor(pair.picture[None, ..., RENDERED]))
            memory.update(query, torch.from_numpy(identity.of(pair.target[None])))
    return torch.cat([memory.spatial, memory.identity], dim=1).flatten()
