"""The identity of a person on the morphable model, fitted by the face stage on frames of the footage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np

from dubstage.client import face as face_client
from dubstage.client import rpcs
from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2
from gateway.ahead import in_thread
from gateway.media.reader import VideoReader
from gateway.media.types import MediaInfo
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.record_pictures import record_pictures
from gateway.pipeline.records import RecordFile, pose_of
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.array_types import UInt8
from services.common.wire.arrays import to_tensor
from services.common.wire.pose_messages import pose_to_proto

IDENTITY_FRAMES: Final = 48
"""Most frames that an identity is fitted on, evenly spread. More frames cost time and improve nothing."""


async def fit_identity(
    stages: Stages, info: MediaInfo, faces: RecordFile, rows: list[int], on_step: OnProgress, *, three_stage: bool = False
) -> common_pb2.ArtefactRef:
    """Return the identity of the person whom the face records `rows` show, on the face model of this installation.

    Args:
        stages: the stages.
        info: the footage.
        faces: FACE_RECORDs of the footage.
        rows: record rows of the person.
        on_step: called with every sent frame.
        three_stage: fit albedo and light by the three-stage fit; False: by Gauss-Newton steps.

    Raises:
        MediaUnsupported: the footage breaks off.
        InvalidRequest: the face model lacks what a method needs that draws the person.
        DubstageError: from the face stage.
    """
    count = min(len(rows), IDENTITY_FRAMES)
    chosen = [rows[place] for place in np.linspace(0, len(rows) - 1, count).round().astype(int)]

    async def requests() -> AsyncIterator[face_pb2.FitIdentityRequest]:
        yield face_client.fit_identity.requests(morphable_model=stages.face_model, three_stage=three_stage).config
        with VideoReader(info) as reader:
            pictures = record_pictures(reader, faces, chosen)
            for done in range(count):
                record, picture = await in_thread(next, pictures)
                on_step("identity", done + 1, count)
                yield _message(picture, record)

    return (await until_done(lambda: stages.upload(rpcs.face.FIT_IDENTITY, requests()))).identity


def _message(picture: UInt8, record: Any) -> face_pb2.FitIdentityRequest:
    face = face_pb2.FaceTrack(
        face_id=int(record["face_id"]),
        box=record["box"].tolist(),
        landmarks=to_tensor(np.ascontiguousarray(record["landmarks"])),
        pose=pose_to_proto(pose_of(record)),
        mouth_landmarks=to_tensor(np.ascontiguousarray(record["mouth"])),
        confidence=float(record["confidence"]),
        mouth_visibility=float(record["visibility"]),
        blink=float(record["blink"]),
        reason=int(record["reason"]),  # type: ignore[arg-type]
    )
    return face_client.fit_identity.requests().item((picture, face))
