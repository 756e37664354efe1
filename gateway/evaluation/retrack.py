"""Tracking of faces in crops, for measures on rendered mouths."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction

import numpy as np

from dubstage.client import rpcs
from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2
from gateway.stages.host import StageHost
from services.common.array_types import Float32, UInt8
from services.common.face.landmarks import NUM_LANDMARKS
from services.common.wire.arrays import from_tensor, to_rgb_image
from services.common.wire.timeline import MOTION_RATE
from services.common.wire.timeline_messages import rational_to_proto


class StageRetrack:
    """Face tracker for crops: the face stage without smoothing."""

    def __init__(self, host: StageHost) -> None:
        self._host = host

    def __call__(self, crops: UInt8) -> Float32:
        """Return the landmarks of crops, float32 [T, 478, 3]; NaN: the crop shows no face.

        Args:
            crops: uint8 [T, 256, 256, 3], RGB.

        Raises:
            DubstageError: from the face stage.
        """
        return self._host.run(self._track(crops))

    async def _track(self, crops: UInt8) -> Float32:
        async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
            timeline = common_pb2.Timeline(frame_rate=rational_to_proto(Fraction(MOTION_RATE)))
            config = face_pb2.TrackConfig(timeline=timeline, max_faces=1, smoothing_half_width=0)
            yield face_pb2.TrackRequest(config=config)
            for index, crop in enumerate(crops):
                chunk = face_pb2.FrameChunk(frame_index=index, image=to_rgb_image(np.ascontiguousarray(crop)))
                yield face_pb2.TrackRequest(frame=chunk)

        landmarks = np.full((len(crops), NUM_LANDMARKS, 3), np.nan, np.float32)
        async for reply in self._host.stages.stream(rpcs.face.TRACK, requests()):
            for frame in reply.frames:
                if frame.faces:
                    landmarks[frame.frame_index] = from_tensor(
                        frame.faces[0].landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3)
                    )
        return landmarks
