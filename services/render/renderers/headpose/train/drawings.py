"""Drawings of the people of a training set, from the identities that the set holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.common.errors import InvalidRequest
from services.common.face.identity import identity_from_arrays, model_of_identity
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.morphable_models import MorphableModels
from services.common.store.tensor_bytes import decode_arrays
from services.training.trainset.layout import identity_path
from services.training.trainset.reader import TrainSet

HOW_TO_GET_IDENTITIES: Final = "`dubstage trainset` fits the identities of the people, from the clips that the set was made of"


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """Two drawings of one person.

    Attributes:
        film: drawing fitted on many frames.
        still: drawing fitted on a single frame.
    """

    film: IdentityDrawing
    still: IdentityDrawing


def has_drawings(data: TrainSet, speaker: str) -> bool:
    """Return whether the training set has both identities of a person."""
    return all(identity_path(data.folder, speaker, still=still).is_file() for still in (False, True))


def read_drawings(data: TrainSet, speaker: str) -> Drawings:
    """Return the drawings of a person, from the identities that `dubstage trainset` fitted.

    Raises:
        InvalidRequest: the set has no identity of this person, or a file holds something else.
    """
    models = MorphableModels()

    def read(*, still: bool) -> IdentityDrawing:
        path = identity_path(data.folder, speaker, still=still)
        try:
            stored = decode_arrays(path.read_bytes())
        except FileNotFoundError as problem:
            raise InvalidRequest(f"{path} is missing: {HOW_TO_GET_IDENTITIES}", field="data") from problem
        model = models.get(model_of_identity(stored))
        return IdentityDrawing(identity_from_arrays(stored, model), model)

    return Drawings(read(still=False), read(still=True))
