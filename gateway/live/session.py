"""A live stream: a chain of the stages. Each stage pulls from the stage before, and few frames wait beyond look-ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

from dubstage.client import rpcs
from gateway.actors.stored import StoredActor
from gateway.ahead import ReadAhead, close
from gateway.live.admission import LiveStream
from gateway.live.chain import Chain, LiveSound
from gateway.live.performance import Performance
from gateway.media.pixels import ColourTags
from gateway.stages.interface import Stages
from services.common.array_types import UInt8

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
        colour: colour tags for a film of the frames.
    """

    index: int
    picture: UInt8
    silent: bool
    colour: ColourTags = ColourTags()


async def live_frames(
    stages: Stages,
    actor: StoredActor,
    performance: Performance,
    sound: LiveSound,
    stream: LiveStream,
    *,
    expressiveness: float = 1.0,
) -> AsyncGenerator[LiveFrame, None]:
    """Yield the dubbed frames of an actor while the sound comes. The last frames follow when the sound ends.

    The streams of the stages are open, and the artefacts of the actor are loaded, before the first chunk is asked for. Closing the
    generator cancels the streams.

    Args:
        stages: the stages.
        actor: enrolled for a method that can be used live.
        performance: footage of the actor that the stream shows.
        sound: the speech.
        stream: gets the time of each frame.
        expressiveness: factor of the mouth's movement.

    Raises:
        InvalidRequest: chunks out of order, or samples that are not finite.
        DubstageError: from the stages.
    """
    chain = Chain(actor, performance, sound, stream, expressiveness=expressiveness)
    async with AsyncExitStack() as stack:
        stack.callback(chain.end)

        def closed(source: AsyncIterator[T]) -> AsyncIterator[T]:
            stack.push_async_callback(close, source)
            return source

        def ahead(replies: AsyncIterator[T]) -> ReadAhead[T]:
            reader = ReadAhead(replies, AHEAD)
            stack.push_async_callback(close, reader)
            return reader

        features = ahead(stages.stream(rpcs.audio.EXTRACT_FEATURES, closed(chain.audio_requests())))
        motions = ahead(stages.stream(rpcs.motion.PREDICT_MOTION, closed(chain.motion_requests(features))))
        warps = ahead(stages.stream(rpcs.texture.RETRIEVE_WARP, closed(chain.warp_requests(motions))))
        replies = ahead(stages.stream(rpcs.render.RENDER, closed(chain.render_requests(warps))))
        async for reply in replies:
            frame, shift = chain.rendered()
            index = sound.begins + reply.frame_index
            if index < sound.first_frame:
                continue
            # A late frame is left out if a newer one is ready: a slow reader gets the newer frame at once.
            if replies.has_waiting and chain.may_skip(frame):
                stream.drop()
                continue
            picture = await asyncio.to_thread(chain.finished, reply, shift)
            stream.took(frame.begun)
            with stream.given():
                yield LiveFrame(index, picture, frame.silent, performance.colour)
