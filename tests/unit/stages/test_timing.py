"""Stages with a clock: which calls are counted, under which names, and for how many frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message

from dubstage.audio.v1 import audio_pb2
from dubstage.client import rpcs
from dubstage.client.rpcs import Stream
from dubstage.face.v1 import face_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from gateway.async_utilities import close
from gateway.stages.interface import STAGE_NAMES, stage_of
from gateway.stages.timing import LABELS, StageClock, TimedStages
from tests.unit.stages.test_local import TRACK, Seen, sent, stages


def test_every_rpc_timed_except_lists() -> None:
    """Every RPC of a stage is timed but the lists of models."""
    of_stages = {rpc for rpc in rpcs.ALL if rpc.service.startswith("dubstage.") and stage_of(rpc) in STAGE_NAMES}
    assert {rpc.method for rpc in of_stages - set(LABELS)} == {"ListModels"}
    assert set(LABELS) <= of_stages


def test_names_are_different_and_only_streams_count_frames() -> None:
    names = [label.name for label in LABELS.values()]
    assert len(set(names)) == len(names)
    assert {type(rpc) for rpc, label in LABELS.items() if label.frames_in is not None} == {Stream}


@pytest.mark.parametrize(
    ("rpc", "reply", "frames"),
    [
        (rpcs.audio.EXTRACT_FEATURES, audio_pb2.ExtractFeaturesResponse(block=audio_pb2.AudioFeatureBlock(num_frames=3)), 3),
        (rpcs.face.TRACK, face_pb2.TrackResponse(frames=[face_pb2.FrameFaces()] * 2), 2),
        (rpcs.motion.PREDICT_MOTION, motion_pb2.PredictMotionResponse(frames=[motion_pb2.MotionFrame()] * 25), 25),
        (rpcs.render.RENDER, render_pb2.RenderResponse(), 1),
    ],
)
def test_a_reply_counts_the_frames_that_it_answers(rpc: Stream[Any, Any], reply: Message, frames: int) -> None:
    counted = LABELS[rpc].frames_in
    assert counted is not None
    assert counted(reply) == frames


class TwoAReply(Seen):
    """A servicer that answers two frames in each reply."""

    async def Track(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield face_pb2.TrackResponse(frames=[face_pb2.FrameFaces()] * 2)


async def test_calls_are_counted_under_their_names() -> None:
    clock = StageClock()
    timed = TimedStages(stages(TwoAReply()), clock)
    _ = [reply async for reply in timed.stream(rpcs.face.TRACK, sent(TRACK, TRACK, TRACK))]
    await timed.upload(rpcs.face.FIT_IDENTITY, sent(face_pb2.FitIdentityRequest()))
    _ = [reply async for reply in timed.download(rpcs.render.PERSONALIZE, render_pb2.PersonalizeRequest(model="toy"))]
    await timed.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())
    assert [(stage.name, stage.frames) for stage in clock.stages()] == [("face", 6), ("identity", 0), ("personalize renderer", 0)]


class Endless(Seen):
    """A servicer that answers for ever, and notes that its answers were closed."""

    async def Track(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield face_pb2.TrackResponse()
        finally:
            self.requests.append("closed")


async def test_timed_stream_closes_stage_stream() -> None:
    """Closing a timed stream closes the stream of the stage."""
    endless = Endless()
    replies = TimedStages(stages(endless), StageClock()).stream(rpcs.face.TRACK, sent(TRACK))
    await anext(replies)
    await close(replies)
    assert endless.requests == ["closed"]
