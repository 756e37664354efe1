"""Identities of the people of a training set on a morphable model, as `dubstage trainset` fitted them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from services.common.errors import InvalidRequest
from services.common.face.identity import identity_from_arrays, model_of_identity
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.morphable_models import MorphableModels
from services.common.store.tensor_bytes import decode_arrays
from services.training.trainset.layout import identity_path
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet

_REMEDY: Final = "`dubstage trainset` fits the identities of the people, from the clips that the set was made of"


class IdentifiedRows(NamedTuple):
    """Clips of the people who have an identity.

    Attributes:
        rows: training clips with pixels.
        without: names of the people of the set who have no identity.
    """

    rows: Sequence[ClipRow]
    without: set[str]


def identified_rows(data: TrainSet, *, needs_still: bool = False) -> IdentifiedRows:
    """Return the training clips of the people who have an identity.

    Args:
        data: the training set.
        needs_still: whether a person needs the identity fitted on a single frame as well.

    Raises:
        InvalidRequest: nobody has an identity.
    """
    kinds = (False, True) if needs_still else (False,)

    def is_identified(speaker: str) -> bool:
        return all(identity_path(data.folder, speaker, still=still).is_file() for still in kinds)

    without = {row.speaker for row in data.rows if not is_identified(row.speaker)}
    rows = [row for row in data.of("train", pixels=True) if row.speaker not in without]
    if not rows:
        raise InvalidRequest(f"{data.folder}/identities: nobody has an identity: {_REMEDY}", field="data")
    return IdentifiedRows(rows, without)


def read_drawing(data: TrainSet, speaker: str, *, still: bool = False, models: MorphableModels | None = None) -> IdentityDrawing:
    """Return the drawing of a person.

    Args:
        data: the training set.
        speaker: name of the person.
        still: whether to read the identity fitted on a single frame. Otherwise it was fitted on many frames.
        models: the morphable models; None: a new object.

    Raises:
        InvalidRequest: the set has no such identity of this person, or the file holds something else.
    """
    path = identity_path(data.folder, speaker, still=still)
    try:
        stored = decode_arrays(path.read_bytes())
    except FileNotFoundError as problem:
        raise InvalidRequest(f"{path} is missing: {_REMEDY}", field="data") from problem
    model = (models or MorphableModels()).get(model_of_identity(stored))
    return IdentityDrawing(identity_from_arrays(stored, model), model)
