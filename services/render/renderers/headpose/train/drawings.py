"""Drawings of the people of a training set, from the identities that the set holds."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.morphable_models import MorphableModels
from services.render.train.identities import read_drawing
from services.training.trainset.reader import TrainSet


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """Two drawings of one person.

    Attributes:
        film: drawing fitted on many frames.
        still: drawing fitted on a single frame.
    """

    film: IdentityDrawing
    still: IdentityDrawing


def read_drawings(data: TrainSet, speaker: str) -> Drawings:
    """Return the drawings of a person, from the identities that `dubstage trainset` fitted.

    Raises:
        InvalidRequest: the set has no identity of this person, or a file holds something else.
    """
    models = MorphableModels()
    return Drawings(*(read_drawing(data, speaker, still=still, models=models) for still in (False, True)))
