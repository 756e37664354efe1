"""The texture bank of a person, built by the texture stage from render boxes of the footage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.ahead import in_thread
from gateway.media.reader import VideoReader
from gateway.pipeline.bank_extras import BankExtras, Seen
from gateway.pipeline.messages import geometry_from_proto
from gateway.pipeline.native_boxes import native_boxes, scale_of
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.records import pose_of
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.face.actor_geometry import ActorGeometry
from services.common.wire.pose_messages import pose_to_proto


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
        with VideoReader(seen.info) as reader:  # which opens the footage with the first picture that is asked for
            natives = native_boxes(reader, faces, rows, scale) if scale > 1 else None
            for done, row in enumerate(rows):
                (record,) = faces.read(row, row + 1)
                on_step("bank", done + 1, len(rows))
                pose = pose_to_proto(pose_of(record))
                frame, pixels, landmarks = int(record["frame"]), record["pixels"], record["landmarks"]
                native = await in_thread(next, natives) if natives is not None else None
                yield made.item(texture_client.BankFrame(frame, pixels, landmarks, pose, native=native, **extras.of(done)))

    reply = await until_done(lambda: stages.upload(rpcs.texture.BUILD_BANK, requests()))
    return reply.bank, geometry_from_proto(reply.geometry)
