"""Training parts of the renderers, found by the renderers' names.

The registry of renderers is part of serving, which never reaches training code. So the training part of a renderer is found by its
place: the module `train.training` in the renderer's room, with an object TRAINING.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from services.common.errors import InvalidRequest
from services.render import renderers
from services.render.renderers.registry import RENDERERS, renderer_named
from services.render.train.footage import Batch, Person, Source
from services.render.train.held_out import ClipName, HeldOut
from services.render.train.recipe import Recipe
from services.render.train.reenactment import Reenactment, Rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What the tools of training need of one renderer.

    Attributes:
        recipe: how the committed prior was trained.
        source: returns the source of batches for people. The folder holds the people's identities (services.face.train.identities)
            and may be None for renderers that need no drawing of a person.
        held_out: returns a clip with a number of pairs, evenly spread, for an actor of the prior.
        reenact: returns the ways to draw a clip by title, one of them PERSONALISED (services.render.train.reenactment).
    """

    recipe: Recipe
    source: Callable[[Sequence[Person], Path | None], Source[Batch]]
    held_out: Callable[[ClipName, int, Path | None], HeldOut]
    reenact: Callable[[Reenactment], Rows]


def model_names() -> list[str]:
    """Return the names of all renderers, in the order of the alphabet."""
    return sorted(RENDERERS)


def training_named(name: str) -> Training:
    """Return the training part of a renderer.

    Raises:
        ModelNotFound: there is no renderer of this name; the message lists the names.
    """
    room: Any = import_module(f"{renderers.__name__}.{renderer_named(name).name}.train.training")
    training: Training = room.TRAINING
    return training


def identities_given(identities: Path | None, name: str) -> Path:
    """Return the folder of identities that a renderer needs.

    Args:
        identities: the folder, or None where none was given.
        name: name of the renderer.

    Raises:
        InvalidRequest: no folder was given.
    """
    if identities is None:
        raise InvalidRequest(f"renderer {name!r} needs identities: give --identities FOLDER", field="identities")
    return identities
