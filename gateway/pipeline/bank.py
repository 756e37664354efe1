"""The texture bank of a person, built by the texture stage from render boxes of the footage."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.pipeline.messages import geometry_from_proto
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.records import RecordFile, pose_of
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.face.actor_geometry import ActorGeometry
from services.common.wire.pose_messages import pose_to_proto


async def build_bank(
    stages: Stages, faces: RecordFile, rows: list[int], on_step: OnProgress
) -> tuple[common_pb2.ArtefactRef, ActorGeometry]:
    """Return the texture bank and the lower face of the person whom the face records `rows` show.

    Raises:
        DubstageError: from the texture stage.
    """

    async def requests() -> AsyncIterator[texture_pb2.BuildBankRequest]:
        made = texture_client.build_bank.requests()
        yield made.config
        for done, row in enumerate(rows):
            (record,) = faces.read(row, row + 1)
            on_step("bank", done + 1, len(rows))
            pose = pose_to_proto(pose_of(record))
            yield made.item(texture_client.BankFrame(int(record["frame"]), record["pixels"], record["landmarks"], pose))

    reply = await until_done(lambda: stages.upload(rpcs.texture.BUILD_BANK, requests()))
    return reply.bank, geometry_from_proto(reply.geometry)
