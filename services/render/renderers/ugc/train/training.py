"""Training part of `ugc`, for the tools of training (services.render.train.rooms)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.render.renderers.ugc.train.footage import UgcSource
from services.render.renderers.ugc.train.held_out import read_textured
from services.render.renderers.ugc.train.reenact import reenact
from services.render.renderers.ugc.train.trainer import UgcRecipe
from services.render.train.footage import Person
from services.render.train.held_out import ClipName, HeldOut
from services.render.train.rooms import Training

_RECIPE: Final = UgcRecipe()


def _source(people: Sequence[Person], _identities: Path | None) -> UgcSource:
    return UgcSource(people, sharp_share=_RECIPE.sharp_share, seed=_RECIPE.seed)


def _held_out(clip: ClipName, num_frames: int, _identities: Path | None) -> HeldOut:
    return read_textured(clip, num_frames)


TRAINING: Final = Training(recipe=_RECIPE, source=_source, held_out=_held_out, reenact=reenact)
