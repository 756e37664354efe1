"""Training parts of the renderers, found by the renderers' names.

The registry of renderers is part of serving, which never reaches training code. So the training part of a renderer is found by its
place: the module `train.training` in the renderer's room, with an object TRAINING.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from services.render import renderers
from services.render.renderers.registry import RENDERERS, renderer_named
from services.render.train.held_out import Clip, HeldOut
from services.render.train.reenactment import Reenactment, Rows
from services.training.networks import TrainableNetwork


@dataclass(frozen=True, kw_only=True, slots=True)
class RendererTraining:
    """What training and the tools of training need of one renderer.

    Attributes:
        networks: networks of the renderer that are trained.
        held_out: returns a clip with a number of pairs, evenly spread, for an actor of the prior.
        reenact: returns the ways to draw a clip by title, one of them PERSONALISED (services.render.train.reenactment).
    """

    networks: tuple[TrainableNetwork, ...]
    held_out: Callable[[Clip, int], HeldOut]
    reenact: Callable[[Reenactment], Rows]


def model_names() -> list[str]:
    """Return the names of all renderers, in the order of the alphabet."""
    return sorted(RENDERERS)


def training_named(name: str) -> RendererTraining:
    """Return the training part of a renderer.

    Raises:
        ModelNotFound: there is no renderer of this name; the message lists the names.
    """
    room: Any = import_module(f"{renderers.__name__}.{renderer_named(name).name}.train.training")
    training: RendererTraining = room.TRAINING
    return training
