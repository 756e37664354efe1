"""The RPCs of DubService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.longrunning import operations_pb2

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from dubstage.gateway.v1alpha1 import gateway_pb2_grpc
from gateway.api.dub_messages import check_dub
from gateway.api.job_context import JobContext
from gateway.api.live_messages import LiveAudioReader, live_options_from, live_response
from gateway.api.operation_messages import DUB, operation_message
from gateway.live.streams import LiveStreams
from gateway.operations.runner import JobRunner


class DubServicer(gateway_pb2_grpc.DubServiceServicer):
    """Dubs films as operations, and live.

    Args:
        context: what the operations work with.
        runner: runs the operations.
        live: opens live streams.
    """

    def __init__(self, context: JobContext, runner: JobRunner, live: LiveStreams) -> None:
        self._context = context
        self._runner = runner
        self._live = live

    async def CreateDub(self, request: pb.CreateDubRequest, context: Any) -> operations_pb2.Operation:  # noqa: N802
        """Begin a dub."""
        async with self._context.media.opened() as media:
            dub = await self._context.dub_request(request, media)
            await asyncio.to_thread(check_dub, dub)
            await asyncio.to_thread(media.check, overwrite=request.overwrite)
        gate = self._context.gate
        gate.check_frames()
        await gate.check_storage()
        record = await self._runner.submit(
            DUB, request.SerializeToString(), actor_id=request.actor_id, output=media.place_of(dub.output), admit=gate.check_dubs
        )
        return operation_message(record)

    async def Live(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.LiveRequest], context: Any
    ) -> AsyncIterator[pb.LiveResponse]:
        """Take the config, then sound. Answer each frame as soon as the frame is ready."""
        requests = aiter(request_iterator)
        options = live_options_from(await anext(requests, None))
        reader = LiveAudioReader(options)

        async def sound() -> AsyncIterator[audio_pb2.AudioChunk]:
            # The first sound is asked for once everything else is ready.
            await context.send_initial_metadata(())
            async for request in requests:
                yield reader.chunk(request)

        frames = self._live.frames(
            options.actor_id,
            sound(),
            sample_rate_hz=options.sample_rate_hz,
            channels=options.channels,
            use=options.use,
            first_frame=options.first_frame,
            max_late_s=options.max_late_s,
            expressiveness=options.expressiveness,
        )
        gate = self._context.gate
        with gate.stream():
            async with aclosing(frames):
                async for frame in frames:
                    gate.count_frame()
                    yield live_response(frame)
