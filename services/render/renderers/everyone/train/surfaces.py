"""Surfaces of the people of a training set, from the identities that the set holds."""

from __future__ import annotations

from typing import Final

from services.common.errors import InvalidRequest
from services.common.face.identity import identity_from_arrays, model_of_identity
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.morphable_models import MorphableModels
from services.common.face.neural_texture import NeuralSurface
from services.common.store.tensor_bytes import decode_arrays
from services.training.trainset.layout import identity_path
from services.training.trainset.reader import TrainSet

HOW_TO_GET_IDENTITIES: Final = "`dubstage trainset` fits the identities of the people, from the clips that the set was made of"


def has_identity(data: TrainSet, speaker: str) -> bool:
    """Return whether the training set has the identity of a person."""
    return identity_path(data.folder, speaker, still=False).is_file()


def read_drawing(data: TrainSet, speaker: str) -> IdentityDrawing:
    """Return the identity of a person with its model, fitted on many frames.

    Raises:
        InvalidRequest: the set has no identity of this person, or the file holds something else.
    """
    path = identity_path(data.folder, speaker, still=False)
    try:
        stored = decode_arrays(path.read_bytes())
    except FileNotFoundError as problem:
        raise InvalidRequest(f"{path} is missing: {HOW_TO_GET_IDENTITIES}", field="data") from problem
    model = MorphableModels().get(model_of_identity(stored))
    return IdentityDrawing(identity_from_arrays(stored, model), model)


def surface_of(drawing: IdentityDrawing) -> NeuralSurface:
    """Return the surface that holds a person's neural texture."""
    return NeuralSurface(drawing.identity, drawing.mesh.model)
