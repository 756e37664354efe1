"""Requests of a live stream to each stage, made from the answers of the stage before."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.client import audio as audio_client
from dubstage.client import motion as motion_client
from dubstage.client import render as render_client
from dubstage.client import texture as texture_client
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.actors.stored import StoredActor
from gateway.live.admission import LiveStream
from gateway.live.performance import Performance
from gateway.methods import TextureInput, method_named
from gateway.pipeline.plan import SILENT_BELOW
from gateway.pipeline.window_config import window_config
from gateway.pipeline.windows import BOX
from services.common.array_types import Float32, UInt8
from services.common.wire.arrays import from_image
from services.common.wire.pose_messages import pose_to_proto
from services.common.wire.timeline import MOTION_RATE


@dataclass(frozen=True, slots=True)
class LiveSound:
    """Speech of a live stream, as it comes.

    Attributes:
        chunks: consecutive pieces of the speech. The first piece begins with sample 0.
        sample_rate_hz: samples per second and channel.
        channels: number of channels.
        begins: frame of the stream at which the speech begins.
        first_frame: first frame of the stream that is shown.
        is_late: returns whether it is too late to show a frame, counted from the beginning of the speech.
    """

    chunks: AsyncIterator[audio_pb2.AudioChunk]
    sample_rate_hz: int
    channels: int
    begins: int = 0
    first_frame: int = 0
    is_late: Callable[[int], bool] = lambda _: False


class Chain:
    """Requests of one live stream to each stage, made from the answers of the stage before."""

    def __init__(self, actor: StoredActor, performance: Performance, sound: LiveSound, stream: LiveStream) -> None:
        self._method = method_named(actor.method).streamed
        self._style = actor.enrolled.style
        self._config = window_config(self._method, actor.enrolled, texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK)
        self._performance = performance
        self._sound = sound
        self._stream = stream
        # One entry per frame that the texture stage was sent, or the renderer, and that is not rendered.
        self._begun: deque[tuple[float, bool]] = deque()
        self._shifts: deque[Float32] = deque()

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
                # From here on, a frame costs most. The stages begin anew after a gap.
                if self._stream.may_drop() and self._sound.is_late(frame.frame_index):
                    self._stream.drop()
                    continue
                self._begun.append((self._stream.begin(), frame.speech_probability < SILENT_BELOW))
                pose = pose_to_proto(performance.poses[performance.at(self._sound.begins + frame.frame_index)])
                yield requests.item(texture_client.Target(frame.frame_index, frame, pose))

    async def render_requests(
        self, warps: AsyncIterator[texture_pb2.RetrieveWarpResponse]
    ) -> AsyncIterator[render_pb2.RenderRequest]:
        """Yield the requests to the render stage."""
        performance = self._performance
        requests = render_client.render.requests(model=self._method.renderer.name, actor=self._config.state)
        yield requests.config
        async for reply in warps:
            index = self._sound.begins + reply.frame_index
            wanted = np.frombuffer(reply.box_landmarks.data, "<f4").reshape(-1, 2)
            shift = await asyncio.to_thread(performance.shift, index, wanted)
            self._shifts.append(shift)
            yield requests.item(
                render_client.Conditions(
                    frame_index=reply.frame_index,
                    background=performance.background(index, shift),
                    texture=reply.warped if self._config.texture is not TextureInput.NONE else None,
                    mask=performance.masks[performance.at(index)],
                    box_landmarks=reply.box_landmarks,
                )
            )

    def rendered(self) -> tuple[float, bool, Float32]:
        """Return when the frame that is rendered was begun, whether nobody speaks in it, and how its footage is moved."""
        return (*self._begun.popleft(), self._shifts.popleft())

    def finished(self, reply: render_pb2.RenderResponse, shift: Float32) -> UInt8:
        """Return the frame of the performance with the rendered box in it, uint8 [H, W, 3], RGB."""
        box = from_image(reply.box, "box", channels=3, size=BOX)
        mask = from_image(reply.mask, "mask", channels=1, size=BOX)
        return self._performance.with_mouth(self._sound.begins + reply.frame_index, box, mask, shift)
