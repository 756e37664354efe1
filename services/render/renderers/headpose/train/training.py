"""Training part of `headpose`, for the tools of training (services.render.train.rooms)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.render.renderers.headpose.train.footage import DrawnSource, read_drawings
from services.render.renderers.headpose.train.held_out import read_drawn
from services.render.renderers.headpose.train.reenact import reenact
from services.render.renderers.headpose.train.trainer import HeadposeRecipe
from services.render.train.footage import Person
from services.render.train.held_out import ClipName, HeldOut
from services.render.train.rooms import Training, identities_given

_NAME: Final = "headpose"
_RECIPE: Final = HeadposeRecipe()


def _source(people: Sequence[Person], identities: Path | None) -> DrawnSource:
    folder = identities_given(identities, _NAME)
    drawings = {person.name: read_drawings(folder, person.name) for person in people}
    return DrawnSource(people, drawings, sharp_share=_RECIPE.sharp_share, seed=_RECIPE.seed)


def _held_out(clip: ClipName, num_frames: int, identities: Path | None) -> HeldOut:
    drawing = read_drawings(identities_given(identities, _NAME), clip.name).film
    return read_drawn(clip, num_frames, drawing, detailed=False)


TRAINING: Final = Training(recipe=_RECIPE, source=_source, held_out=_held_out, reenact=reenact)
