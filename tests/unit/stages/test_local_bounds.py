"""Stages inside the process refuse what their servers would refuse, before the stage sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.stages.local import LocalStages
from services.common.errors import InvalidRequest
from services.common.stage import StageParts


class Seen:
    """A servicer of any stage that keeps what comes."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def Track(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self.requests.append(request)
            yield face_pb2.TrackResponse()

    async def Personalize(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        yield render_pb2.PersonalizeResponse()


def stages(seen: Seen) -> LocalStages:
    parts = StageParts(servicer=seen, register=lambda server: None, services=(), warm_up=lambda: None, workers=())
    return LocalStages({"face": parts, "render": parts})


async def test_a_stream_is_checked_message_by_message() -> None:
    good = face_pb2.TrackRequest(config=face_pb2.TrackConfig(max_faces=1))
    bad = face_pb2.TrackRequest(frame=face_pb2.FrameChunk(frame_index=-1, image=common_pb2.Image(width=1, height=1)))

    async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
        yield good
        yield bad

    seen = Seen()
    with pytest.raises(InvalidRequest) as caught:
        _ = [reply async for reply in stages(seen).track(requests())]
    assert caught.value.field == "frame.frame_index"
    assert seen.requests == [good]


async def test_a_single_request_is_checked() -> None:
    seen = Seen()
    with pytest.raises(InvalidRequest, match="num_steps: 4294967295 is not within 0"):
        _ = [
            reply
            async for reply in stages(seen).personalize_renderer(
                render_pb2.PersonalizeRequest(model="ugc", num_steps=(1 << 32) - 1)
            )
        ]
    assert seen.requests == []
