"""A person in footage, and what a bank of the person holds beside pictures."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dubstage.common.v1alpha1 import common_pb2
from gateway.media.types import MediaInfo
from gateway.pipeline.coefficients import fitted_expressions
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.records import RecordFile
from gateway.pipeline.spoken import Spoken
from gateway.stages.interface import Stages
from services.common.array_types import Float32


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BankExtras:
    """What some renderers are adapted with, beside the pictures of a bank. N frames.

    Attributes:
        speech: float32 [N, 20, 40], features of the footage's own sound at each frame; None: the footage has no sound.
        expression: float32 [N, E], fitted expression on the identity's morphable model; None: not fitted.
    """

    speech: Float32 | None = None
    expression: Float32 | None = None

    def of(self, place: int) -> dict[str, Float32]:
        """Return the arrays of one frame, by the names of BankFrame's attributes."""
        arrays = {"speech": self.speech, "expression": self.expression}
        return {name: array[place] for name, array in arrays.items() if array is not None}


@dataclass(frozen=True, slots=True)
class Seen:
    """A person in footage.

    Attributes:
        info: the footage.
        faces: FACE_RECORDs of the footage.
        rows: record rows of the person, N of them, in the order of the footage.
        max_frames: most frames that a bank of the person keeps; 0: the texture stage's own number.
    """

    info: MediaInfo
    faces: RecordFile
    rows: list[int]
    max_frames: int = 0


async def bank_extras(
    stages: Stages, seen: Seen, identity: common_pb2.ArtefactRef, spoken: Spoken | None, on_step: OnProgress
) -> BankExtras:
    """Return what the bank holds of a person's frames beside their pictures.

    Args:
        stages: the stages.
        seen: the person.
        identity: the person on the morphable model.
        spoken: the footage's own sound; None: the footage has no sound.
        on_step: called with every fitted frame.

    Raises:
        NoUsableFootage: the face stage finds the person in no frame.
        MediaUnsupported: the footage breaks off.
        DubstageError: from the face stage.
    """
    expression = await fitted_expressions(stages, seen.info, seen.faces, seen.rows, identity, on_step)
    speech: Float32 | None = None
    if spoken is not None:
        speech = await asyncio.to_thread(lambda: spoken.around(seen.faces.read_rows(seen.rows)["frame"]))
    return BankExtras(speech=speech, expression=expression)
