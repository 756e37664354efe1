"""Stages with a clock: which calls are counted, under which names, and for how many frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from dubstage.client import rpcs
from dubstage.client.rpcs import Stream
from dubstage.face.v1alpha1 import face_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.ahead import close
from gateway.stages.interface import STAGE_NAMES, stage_of
from gateway.stages.timed import LABELS, TimedStages
from gateway.stages.times import StageClock
from tests.unit.stages.test_local import TRACK, Seen, sent, stages


def test_every_rpc_of_a_stage_is_timed_but_the_lists_of_models() -> None:
    of_stages = {rpc for rpc in rpcs.ALL if rpc.service.startswith("dubstage.") and stage_of(rpc) in STAGE_NAMES}
    assert {rpc.method for rpc in of_stages - set(LABELS)} == {"ListModels"}
    assert set(LABELS) <= of_stages


def test_names_are_different_and_only_streams_count_frames() -> None:
    names = [label.name for label in LABELS.values()]
    assert len(set(names)) == len(names)
    assert {type(rpc) for rpc, label in LABELS.items() if label.frames_a_reply} == {Stream}


async def test_calls_are_counted_under_their_names() -> None:
    clock = StageClock()
    timed = TimedStages(stages(Seen()), clock)
    _ = [reply async for reply in timed.stream(rpcs.face.TRACK, sent(TRACK, TRACK, TRACK))]
    await timed.upload(rpcs.face.FIT_IDENTITY, sent(face_pb2.FitIdentityRequest()))
    _ = [reply async for reply in timed.download(rpcs.render.PERSONALIZE, render_pb2.PersonalizeRequest(model="toy"))]
    await timed.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())
    assert [(stage.name, stage.frames) for stage in clock.stages()] == [("face", 3), ("identity", 0), ("personalize renderer", 0)]


class Endless(Seen):
    """A servicer that answers for ever, and notes that its answers were closed."""

    async def Track(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield face_pb2.TrackResponse()
        finally:
            self.requests.append("closed")


async def test_who_closes_a_timed_stream_closes_the_stream_of_the_stage() -> None:
    endless = Endless()
    replies = TimedStages(stages(endless), StageClock()).stream(rpcs.face.TRACK, sent(TRACK))
    await anext(replies)
    await close(replies)
    assert endless.requests == ["closed"]
