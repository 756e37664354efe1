"""The face stage's RPCs. FitIdentity has no implementation in this release: the base class answers UNIMPLEMENTED."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from dubstage.face.v1alpha1 import face_pb2 as pb
from dubstage.face.v1alpha1 import face_pb2_grpc
from services.common.calls import count_frames, count_reason
from services.common.errors import InvalidRequest
from services.common.limits import WorkerPool
from services.face.convert import NumberedPicture, frames_to_proto, options_from_proto, picture_from_proto
from services.face.stream import FaceTracker, Networks
from services.face.types import FrameFaces


class FaceServicer(face_pb2_grpc.FaceServiceServicer):
    """Track over loaded networks."""

    def __init__(self, networks: Callable[[], Networks], workers: WorkerPool) -> None:
        """Compose.

        Args:
            networks: gives the loaded networks; called once a stream, after warm-up.
            workers: threads in which faces are tracked.
        """
        self._networks = networks
        self._workers = workers

    async def Track(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.TrackRequest], context: Any
    ) -> AsyncIterator[pb.TrackResponse]:
        """Config, then frames; each is answered once its smoothing window is complete."""
        requests = aiter(request_iterator)
        config = await anext(requests, None)
        if config is None:
            raise InvalidRequest("the stream ended before its config", field="config")
        options = options_from_proto(config)
        tracker: FaceTracker | None = None
        before: NumberedPicture | None = None
        async for request in requests:
            before = picture_from_proto(request, before)
            if tracker is None:
                tracker = FaceTracker(self._networks(), options, first_frame=before.frame_index)
            for reply in _replies(await self._workers.run(tracker.push, before.picture)):
                yield reply
        if tracker is not None:
            for reply in _replies(await self._workers.run(tracker.finish)):
                yield reply


def _replies(frames: Sequence[FrameFaces]) -> list[pb.TrackResponse]:
    count_frames(len(frames))
    for face in (face for frame in frames for face in frame.faces):
        count_reason(face.reason.value)
    return [frames_to_proto([frame]) for frame in frames]
