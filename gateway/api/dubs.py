"""RPCs of DubService, and the work of CreateDub's operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from google.longrunning import operations_pb2

from dubstage.audio.v1 import audio_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1 import gateway_pb2_grpc
from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.actors.watch import ENDED
from gateway.api.context import TenantContext
from gateway.api.convert import (
    LiveAudioReader,
    check_dub,
    estimate_message,
    faces_message,
    live_options_from,
    live_response,
    result_message,
)
from gateway.api.operations import DUB, FACES, ListFilter, operation_message, operations_page, request_identity
from gateway.api.progress import FACE_STEPS, OperationReporter, dub_steps
from gateway.async_utilities import entered_in_threads, in_thread
from gateway.dub.job.estimate import estimate_dub
from gateway.dub.request.spec import mouths_of, with_records
from gateway.live.streams import LiveStreams
from gateway.media.inspection import inspect_in_child
from gateway.operations.execution import BegunOperation
from gateway.operations.runner import OperationRunner
from gateway.operations.step_paces import StepPaces
from gateway.operations.store import OperationRecord, OperationStore, RequestIdentity
from gateway.provenance.binding import media_sha256
from gateway.stages.interface import Stages
from gateway.tenants.long_calls import LongCalls


class DubHandler:
    """Handler of CreateDub's operations.

    Args:
        context: what the operations work with.
        stages: returns the opened stages.
    """

    def __init__(self, context: TenantContext, stages: Callable[[], Stages]) -> None:
        self._context = context
        self._stages = stages
        self._running: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, operation: BegunOperation) -> bytes:
        """Dub a video; return the serialised DubResult. A resumed operation goes on after its finished windows."""
        spec = pb.CreateDubRequest.FromString(operation.record.request).dub
        context = self._context
        async with context.media.opened() as media:
            # Lines with 10,000 boxes each take seconds.
            request = await in_thread(context.engine.request, spec, media)
            paces = StepPaces(context.engine.jobs.parent, request.method)
            report = OperationReporter(operation, dub_steps(request), paces=paces, count=context.quota.counting())
            if await media.fetch(report, max_bytes=context.engine.max_job_bytes, confirm=operation.confirm):
                request = await in_thread(context.engine.request, spec, media)
            dub = context.engine.dub(
                request,
                self._stages(),
                operation=operation.record.name,
                takes_over=operation.resumed,
                confirm=operation.confirm,
            )
            async with self._alone(spec):
                # A dub that fails or is interrupted keeps its finished windows. The runner removes what a cancelled dub has left.
                # An erasure cancels the operation.
                outcome = await dub.run(report, report.footage, check=dub.check if request.lines else dub.check_consent)
                video_sha256 = await in_thread(media_sha256, request.output)
                try:
                    await media.deliver(report, overwrite=spec.overwrite, confirm=dub.confirm)
                except ENDED:
                    await dub.forget()
                    raise
                # A preview writes smaller pictures, and trains nothing.
                if not request.preview:
                    await in_thread(report.learn)
                if not dub.is_kept:
                    await dub.discard_or_log()
        if operation.resumed and not dub.is_kept:
            await context.forget_others(operation.record)
        result = result_message(spec.output_uri, request, outcome)
        result.media_sha256 = video_sha256
        result.warnings[:] = [context.names.for_caller(media.for_caller(warning)) for warning in result.warnings]
        result.undubbed = context.names.for_caller(media.for_caller(result.undubbed))
        return result.SerializeToString()

    def _alone(self, spec: DubSpec) -> asyncio.Lock:
        """Return the lock of a dub. The same dub to two outputs has one job folder, so the two run one after the other."""
        return self._running.setdefault(mouths_of(spec).SerializeToString(deterministic=True), asyncio.Lock())


class FaceHandler:
    """Handler of DetectFaces's operations.

    Args:
        context: what the operations work with.
        stages: returns the opened stages.
    """

    def __init__(self, context: TenantContext, stages: Callable[[], Stages]) -> None:
        self._context = context
        self._stages = stages

    async def __call__(self, operation: BegunOperation) -> bytes:
        """List the faces of a video; return the serialised DetectFacesResponse. A resumed operation begins again."""
        message = pb.DetectFacesRequest.FromString(operation.record.request)
        context = self._context
        noted = partial(OperationStore(context.engine.actors.database).note_footage, operation.record.name)

        report = OperationReporter(operation, FACE_STEPS)
        async with context.media.opened() as media:
            footage = media.source(message.footage_uri, "footage_uri")
            await media.fetch(report, max_bytes=context.engine.max_job_bytes, confirm=operation.confirm)
            info = await inspect_in_child(footage)
            report.footage(*info.video.size)
            async with entered_in_threads(context.media.scratch()) as folder:
                face_list = await context.engine.faces(info, self._stages(), folder / "faces", report, on_digest=noted)
        answer = await asyncio.to_thread(faces_message, face_list, pictures=not message.skip_pictures)
        return answer.SerializeToString()


class DubServicer(gateway_pb2_grpc.DubServiceServicer):
    """Dubs videos as operations, and live.

    Args:
        context: what the operations work with.
        runner: runs the operations.
        live: opens live streams.
        long_calls: long calls of all tenants.
        stages: returns the stages as soon as they serve.
    """

    def __init__(
        self,
        context: TenantContext,
        runner: OperationRunner,
        live: LiveStreams,
        long_calls: LongCalls,
        stages: Callable[[], Awaitable[Stages]],
    ) -> None:
        self._stages = stages
        self._long_calls = long_calls
        self._context = context
        self._runner = runner
        self._live = live

    async def CreateDub(self, request: pb.CreateDubRequest, context: Any) -> operations_pb2.Operation:  # noqa: N802
        """Begin a dub."""
        identity = request_identity(request)
        return operation_message(await self._runner.once(identity, partial(self._begin, request, identity)))

    async def _begin(self, request: pb.CreateDubRequest, identity: RequestIdentity) -> OperationRecord:
        spec = request.dub
        async with self._context.media.opened() as media:
            # The operation has the records that were checked, whatever becomes of their files.
            spec.CopyFrom(await in_thread(with_records, spec, media))
            dub = await in_thread(self._context.engine.request, spec, media)
            await in_thread(check_dub, dub)
            await in_thread(partial(media.check, overwrite=spec.overwrite))
        quota = self._context.quota
        quota.check_frames()
        await quota.check_storage()
        # An erasure of the first actor cancels the operation. The work itself finds out that another actor of a scene was erased.
        first, *_ = dub.actor_ids or ("",)
        return await self._runner.submit(
            DUB,
            request.SerializeToString(),
            actor_id=first,
            output=media.location_of(dub.output),
            admit=quota.check_dubs,
            identity=identity,
        )

    async def ListDubs(self, request: pb.ListDubsRequest, context: Any) -> pb.ListDubsResponse:  # noqa: N802
        """List dubs in the order of their submission, or the newest first."""
        done = request.done if request.HasField("done") else None
        wanted = ListFilter(done=done, kind=DUB, newest=request.order_by == pb.DUB_ORDER_NEWEST)
        page, token = await operations_page(self._runner, request, wanted)
        return pb.ListDubsResponse(dubs=page, next_page_token=token)

    async def EstimateDub(self, request: pb.EstimateDubRequest, context: Any) -> pb.EstimateDubResponse:  # noqa: N802
        """Say what a dub would take."""
        own = self._context
        # Footage is copied from a URL, which may take as long as a dub.
        with self._long_calls.slot():
            async with own.media.opened() as media:
                dub = await in_thread(own.engine.request, request.dub, media)
                await in_thread(partial(media.check, overwrite=request.dub.overwrite))
                await own.quota.check_storage()
                if await media.fetch(lambda *_: None, max_bytes=own.engine.max_job_bytes):
                    dub = await in_thread(own.engine.request, request.dub, media)
                return estimate_message(await estimate_dub(dub, await self._stages(), own.engine.jobs))

    async def DetectFaces(self, request: pb.DetectFacesRequest, context: Any) -> operations_pb2.Operation:  # noqa: N802
        """Begin to list the faces of a video."""
        identity = request_identity(request)
        return operation_message(await self._runner.once(identity, partial(self._begin_faces, request, identity)))

    async def _begin_faces(self, request: pb.DetectFacesRequest, identity: RequestIdentity) -> OperationRecord:
        async with self._context.media.opened() as media:
            media.source(request.footage_uri, "footage_uri")
            await asyncio.to_thread(media.check, overwrite=False)
        admit = self._context.quota.check_dubs
        return await self._runner.submit(FACES, request.SerializeToString(), admit=admit, identity=identity)

    async def Live(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.LiveRequest], context: Any
    ) -> AsyncIterator[pb.LiveResponse]:
        """Take the config, then sound. Answer each frame as soon as the frame is ready."""
        requests = aiter(request_iterator)
        options = await asyncio.to_thread(live_options_from, await anext(requests, None))
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
            mouth=options.mouth,
            disclosing=options.disclosing,
        )
        quota = self._context.quota
        with quota.stream():
            async with aclosing(frames):
                async for frame in frames:
                    quota.count_frame()
                    yield await asyncio.to_thread(live_response, frame, options.jpeg_quality)
