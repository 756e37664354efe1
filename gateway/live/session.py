"""A live stream: the stages chained, each pulling from the one before, so that little is buffered beyond what they look ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.actors.stored import StoredActor
from gateway.ahead import close, read_ahead
from gateway.compositing.paste import paste_box
from gateway.live.performance import Performance
from gateway.methods import method_named
from gateway.pipeline.messages import pose_message, rational
from gateway.pipeline.plan import SILENT_BELOW
from gateway.pipeline.windows import blend_box
from gateway.stages.interface import Stages
from services.common.arrays import from_image, to_gray_image, to_rgb_image
from services.common.crops import BOX_SIZE
from services.common.timeline import MOTION_RATE

T = TypeVar("T")

_BOX: Final = (BOX_SIZE, BOX_SIZE)
AHEAD: Final = 2
"""Replies of a stage that may wait for the next one: enough that all work at once, too few to add up."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One dubbed frame: index on the 25 frames/s grid, picture uint8 RGB [H, W, 3], whether nobody speaks."""

    index: int
    picture: npt.NDArray[np.uint8]
    silent: bool


async def live_frames(
    stages: Stages,
    actor: StoredActor,
    performance: Performance,
    audio: AsyncIterator[audio_pb2.AudioChunk],
    *,
    sample_rate_hz: int,
    channels: int,
) -> AsyncGenerator[LiveFrame, None]:
    """Dubbed frames of an actor while `audio` comes; the last ones follow when it ends.

    The stages' streams are open, with what they load for the actor, before `audio` is first asked for sound. Closing the iterator
    cancels them.

    Raises:
        InvalidRequest: chunks out of order, samples that are not finite.
        DubstageError: from the stages.
    """
    method = method_named(actor.method)
    rate = rational(MOTION_RATE)
    silent: deque[bool] = deque()

    async def audio_requests() -> AsyncIterator[audio_pb2.ExtractFeaturesRequest]:
        yield audio_pb2.ExtractFeaturesRequest(
            config=audio_pb2.ExtractFeaturesConfig(
                sample_rate_hz=sample_rate_hz,
                channels=channels,
                timeline=common_pb2.Timeline(frame_rate=rate),
                kinds=method.features,
            )
        )
        async for chunk in audio:
            yield audio_pb2.ExtractFeaturesRequest(chunk=chunk)

    async def motion_requests(
        features: AsyncIterator[audio_pb2.ExtractFeaturesResponse],
    ) -> AsyncIterator[motion_pb2.PredictMotionRequest]:
        yield motion_pb2.PredictMotionRequest(
            config=motion_pb2.PredictMotionConfig(
                method=method.motion,
                style=actor.enrolled.style,
                feature_rate=rate,
                output_timeline=common_pb2.Timeline(frame_rate=rate),
            )
        )
        async for reply in features:
            yield motion_pb2.PredictMotionRequest(features=reply.block)

    async def warp_requests(
        motions: AsyncIterator[motion_pb2.PredictMotionResponse],
    ) -> AsyncIterator[texture_pb2.RetrieveWarpRequest]:
        config = texture_pb2.RetrieveWarpConfig(bank=actor.enrolled.bank, mode=texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK)
        yield texture_pb2.RetrieveWarpRequest(config=config)
        async for reply in motions:
            for frame in reply.frames:
                silent.append(frame.speech_probability < SILENT_BELOW)
                pose = pose_message(performance.poses[performance.at(frame.frame_index)])
                target = texture_pb2.TargetFrame(frame_index=frame.frame_index, motion=frame, pose=pose)
                yield texture_pb2.RetrieveWarpRequest(frame=target)

    async def render_requests(
        warps: AsyncIterator[texture_pb2.RetrieveWarpResponse],
    ) -> AsyncIterator[render_pb2.RenderRequest]:
        yield render_pb2.RenderRequest(config=render_pb2.RenderConfig(model=method.renderer, actor=actor.enrolled.renderer))
        async for reply in warps:
            place = performance.at(reply.frame_index)
            yield render_pb2.RenderRequest(
                frame=render_pb2.RenderFrame(
                    frame_index=reply.frame_index,
                    background=to_rgb_image(performance.boxes[place]),
                    texture=reply.warped,
                    mask=to_gray_image(performance.masks[place]),
                    box_landmarks=reply.box_landmarks,
                )
            )

    def finished(reply: render_pb2.RenderResponse) -> npt.NDArray[np.uint8]:
        place = performance.at(reply.frame_index)
        box = from_image(reply.box, "box", channels=3, size=_BOX)
        mask = from_image(reply.mask, "mask", channels=1, size=_BOX)
        blended = blend_box(box, performance.boxes[place], mask)
        weight = mask.astype(np.float32) / 255.0
        return paste_box(performance.frames[place], performance.poses[place], blended, weight)

    async with AsyncExitStack() as stack:

        def closed(source: AsyncIterator[T]) -> AsyncIterator[T]:
            stack.push_async_callback(close, source)
            return source

        def ahead(replies: AsyncIterator[T]) -> AsyncIterator[T]:
            return closed(read_ahead(closed(replies), AHEAD))

        features = ahead(stages.extract_features(closed(audio_requests())))
        motions = ahead(stages.predict_motion(closed(motion_requests(features))))
        warps = ahead(stages.retrieve_warp(closed(warp_requests(motions))))
        async for reply in ahead(stages.render(closed(render_requests(warps)))):
            picture = await asyncio.to_thread(finished, reply)
            yield LiveFrame(reply.frame_index, picture, silent.popleft())
