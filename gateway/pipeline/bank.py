"""The texture bank of a person, built by the texture stage from render boxes of the footage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.ahead import in_thread
from gateway.media.types import MediaInfo
from gateway.pipeline.coefficients import fitted_expressions
from gateway.pipeline.messages import geometry_from_proto
from gateway.pipeline.native_boxes import native_boxes, scale_of
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.records import RecordFile, pose_of
from gateway.pipeline.spoken import Spoken
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Float32
from services.common.face.actor_geometry import ActorGeometry
from services.common.wire.pose_messages import pose_to_proto


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


async def build_bank(
    stages: Stages, seen: Seen, on_step: OnProgress, extras: BankExtras = BankExtras()
) -> tuple[common_pb2.ArtefactRef, ActorGeometry]:
    """Return the texture bank and the lower face of a person.

    If the footage shows the face with more pixels than a render box has, the footage is decoded again for the fine detail.

    Args:
        stages: the stages.
        seen: the person in the footage.
        on_step: called with every frame.
        extras: what the bank holds of these frames beside their pictures.

    Raises:
        MediaUnsupported: the footage breaks off.
        DubstageError: from the texture stage.
    """
    faces, rows = seen.faces, seen.rows
    scale = await asyncio.to_thread(scale_of, faces, rows)

    async def requests() -> AsyncIterator[texture_pb2.BuildBankRequest]:
        made = texture_client.build_bank.requests(max_frames=seen.max_frames)
        yield made.config
        natives = native_boxes(seen.info, faces, rows, scale) if scale > 1 else None
        for done, row in enumerate(rows):
            (record,) = faces.read(row, row + 1)
            on_step("bank", done + 1, len(rows))
            pose = pose_to_proto(pose_of(record))
            frame, pixels, landmarks = int(record["frame"]), record["pixels"], record["landmarks"]
            native = await in_thread(next, natives) if natives is not None else None
            yield made.item(texture_client.BankFrame(frame, pixels, landmarks, pose, native=native, **extras.of(done)))

    reply = await until_done(lambda: stages.upload(rpcs.texture.BUILD_BANK, requests()))
    return reply.bank, geometry_from_proto(reply.geometry)
