"""A live stream: a chain of the stages. Each stage pulls from the stage before, and little is buffered beyond look-ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.client import audio as audio_client
from dubstage.client import motion as motion_client
from dubstage.client import render as render_client
from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.actors.stored import StoredActor
from gateway.ahead import close, read_ahead
from gateway.live.performance import Performance
from gateway.methods import TextureInput, method_named
from gateway.pipeline.plan import SILENT_BELOW
from gateway.pipeline.window_config import window_config
from gateway.pipeline.windows import BOX
from gateway.stages.interface import Stages
from services.common.array_types import Float32, UInt8
from services.common.wire.arrays import from_image
from services.common.wire.pose_messages import pose_to_proto
from services.common.wire.timeline import MOTION_RATE

T = TypeVar("T")

AHEAD: Final = 2
"""Replies of a stage that may wait for the next stage: enough that all stages work at the same time, too few to add delay."""


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One dubbed frame.

    Attributes:
        index: frame on the grid of 25 frames/s.
        picture: uint8 [H, W, 3], RGB.
        silent: whether nobody speaks.
    """

    index: int
    picture: UInt8
    silent: bool


@dataclass(frozen=True, slots=True)
class LiveSound:
    """Speech of a live stream, as it comes.

    Attributes:
        chunks: consecutive pieces of the speech.
        sample_rate_hz: samples per second and channel.
        channels: number of channels.
    """

    chunks: AsyncIterator[audio_pb2.AudioChunk]
    sample_rate_hz: int
    channels: int


async def live_frames(
    stages: Stages, actor: StoredActor, performance: Performance, sound: LiveSound
) -> AsyncGenerator[LiveFrame, None]:
    """Yield the dubbed frames of an actor while the sound comes. The last frames follow when the sound ends.

    The streams of the stages are open, and the artefacts of the actor are loaded, before the first chunk is asked for. Closing the
    generator cancels the streams.

    Args:
        stages: the stages.
        actor: enrolled for a method that can be used live.
        performance: footage of the actor that the stream shows.
        sound: the speech.

    Raises:
        InvalidRequest: chunks out of order, or samples that are not finite.
        DubstageError: from the stages.
    """
    chain = _Chain(actor, performance, sound)
    async with AsyncExitStack() as stack:

        def closed(source: AsyncIterator[T]) -> AsyncIterator[T]:
            stack.push_async_callback(close, source)
            return source

        def ahead(replies: AsyncIterator[T]) -> AsyncIterator[T]:
            return closed(read_ahead(closed(replies), AHEAD))

        features = ahead(stages.stream(rpcs.audio.EXTRACT_FEATURES, closed(chain.audio_requests())))
        motions = ahead(stages.stream(rpcs.motion.PREDICT_MOTION, closed(chain.motion_requests(features))))
        warps = ahead(stages.stream(rpcs.texture.RETRIEVE_WARP, closed(chain.warp_requests(motions))))
        async for reply in ahead(stages.stream(rpcs.render.RENDER, closed(chain.render_requests(warps)))):
            picture = await asyncio.to_thread(chain.finished, reply)
            yield LiveFrame(reply.frame_index, picture, chain.silent.popleft())


class _Chain:
    """Requests of one live stream to each stage, made from the answers of the stage before.

    Attributes:
        silent: whether nobody speaks, of the frames that the motion stage has answered and `live_frames` has not yielded.
    """

    def __init__(self, actor: StoredActor, performance: Performance, sound: LiveSound) -> None:
        self._method = method_named(actor.method)
        self._style = actor.enrolled.style
        self._config = window_config(self._method, actor.enrolled, texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK)
        self._performance = performance
        self._sound = sound
        # One entry per frame that the renderer was sent and that is not finished.
        self._shifts: deque[Float32] = deque()
        self.silent: deque[bool] = deque()

    async def audio_requests(self) -> AsyncIterator[audio_pb2.ExtractFeaturesRequest]:
        """Yield the requests to the audio stage."""
        requests = audio_client.extract_features.requests(
            sample_rate_hz=self._sound.sample_rate_hz,
            channels=self._sound.channels,
            timeline=MOTION_RATE,
            kinds=self._method.features,
        )
        yield requests.config
        async for chunk in self._sound.chunks:
            yield requests.item(chunk)

    async def motion_requests(
        self, features: AsyncIterator[audio_pb2.ExtractFeaturesResponse]
    ) -> AsyncIterator[motion_pb2.PredictMotionRequest]:
        """Yield the requests to the motion stage."""
        requests = motion_client.predict_motion.requests(method=self._method.motion.name, style=self._style, timeline=MOTION_RATE)
        yield requests.config
        async for reply in features:
            yield requests.item(reply.block)

    async def warp_requests(
        self, motions: AsyncIterator[motion_pb2.PredictMotionResponse]
    ) -> AsyncIterator[texture_pb2.RetrieveWarpRequest]:
        """Yield the requests to the texture stage."""
        performance = self._performance
        requests = texture_client.retrieve_warp.requests(
            bank=self._config.bank, mode=self._config.mode, identity=self._config.identity
        )
        yield requests.config
        async for reply in motions:
            for frame in reply.frames:
                self.silent.append(frame.speech_probability < SILENT_BELOW)
                pose = pose_to_proto(performance.poses[performance.at(frame.frame_index)])
                yield requests.item(texture_client.Target(frame.frame_index, frame, pose))

    async def render_requests(
        self, warps: AsyncIterator[texture_pb2.RetrieveWarpResponse]
    ) -> AsyncIterator[render_pb2.RenderRequest]:
        """Yield the requests to the render stage."""
        performance = self._performance
        requests = render_client.render.requests(model=self._method.renderer.name, actor=self._config.state)
        yield requests.config
        async for reply in warps:
            place = performance.at(reply.frame_index)
            wanted = np.frombuffer(reply.box_landmarks.data, "<f4").reshape(-1, 2)
            shift = await asyncio.to_thread(performance.shift, reply.frame_index, wanted)
            self._shifts.append(shift)
            yield requests.item(
                render_client.Conditions(
                    frame_index=reply.frame_index,
                    background=performance.background(reply.frame_index, shift),
                    texture=reply.warped if self._config.texture is not TextureInput.NONE else None,
                    mask=performance.masks[place],
                    box_landmarks=reply.box_landmarks,
                )
            )

    def finished(self, reply: render_pb2.RenderResponse) -> UInt8:
        """Return the frame of the performance with the rendered box in it, uint8 [H, W, 3], RGB."""
        box = from_image(reply.box, "box", channels=3, size=BOX)
        mask = from_image(reply.mask, "mask", channels=1, size=BOX)
        return self._performance.with_mouth(reply.frame_index, box, mask, self._shifts.popleft())
