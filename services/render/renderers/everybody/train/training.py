"""Training part of `everybody`, for the tools of training (services.render.train.rooms)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.render.renderers.everybody.train.footage import WindowSource
from services.render.renderers.everybody.train.held_out import read_windows
from services.render.renderers.everybody.train.reenact import reenact
from services.render.renderers.everybody.train.trainer import EverybodyRecipe
from services.render.train.footage import Person
from services.render.train.held_out import ClipName, HeldOut
from services.render.train.rooms import Training

_RECIPE: Final = EverybodyRecipe()


def _source(people: Sequence[Person], _identities: Path | None) -> WindowSource:
    return WindowSource(people, sharp_share=_RECIPE.sharp_share, seed=_RECIPE.seed)


def _held_out(clip: ClipName, num_frames: int, _identities: Path | None) -> HeldOut:
    return read_windows(clip, num_frames)


TRAINING: Final = Training(recipe=_RECIPE, source=_source, held_out=_held_out, reenact=reenact)
