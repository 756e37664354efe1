"""The render stage's RPCs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from dubstage.render.v1 import render_pb2 as pb
from dubstage.render.v1 import render_pb2_grpc
from services.common.server.call_context import check_not_cancelled, set_model_version
from services.common.server.call_messages import config_message
from services.common.server.limits import WorkerPool
from services.common.server.process import Once
from services.render.actors import ActorStates
from services.render.backends.devices import DeviceChoice, personalization_device
from services.render.backends.model_files import ModelFile
from services.render.convert import (
    actor_from_proto,
    bank_from_proto,
    config_from_proto,
    frame_from_proto,
    identity_from_proto,
    model_from_proto,
    models_to_proto,
    progress_to_proto,
    reference_from_proto,
    rendered_to_proto,
    result_to_proto,
)
from services.render.renderer import PersonalizeJob
from services.render.renderers.registry import renderer_named
from services.render.streams import RenderModels, open_stream
from services.render.types import PersonalizeProgress, RenderFrame


class RenderServicer(render_pb2_grpc.RenderServiceServicer):
    """Render, Personalize and ListModels over loaded models."""

    def __init__(
        self,
        models: Once[RenderModels],
        actors: ActorStates,
        *,
        workers: WorkerPool,
        trainers: WorkerPool,
        batch_size: int,
        personalize_threads: int,
        personalize_device: DeviceChoice,
    ) -> None:
        """Compose the servicer.

        Args:
            models: returns the models.
            actors: actors' states, banks and identities.
            workers: threads that compute frames.
            trainers: threads that compute personalisations. They are separate, so a personalisation never keeps a frame waiting.
            batch_size: most frames of one stream that are computed at once.
            personalize_threads: threads inside one personalisation.
            personalize_device: device of personalisations.
        """
        self._models = models
        self._actors = actors
        self._workers = workers
        self._trainers = trainers
        self._batch_size = batch_size
        self._personalize_threads = personalize_threads
        self._personalize_device = personalize_device

    async def Render(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.RenderRequest], context: Any
    ) -> AsyncIterator[pb.RenderResponse]:
        """Answer a stream: config, then frames. Frames that arrived while the batch before was computed form the next batch."""
        requests = aiter(request_iterator)
        config = config_from_proto(await config_message(requests))
        models, model = await self._loaded(config.model, "config.model")
        renderer = renderer_named(model.name)
        set_model_version(model.sha256[:12])
        state = await self._workers.run(self._actors.state, actor_from_proto(config), model)
        reference = reference_from_proto(config, model, renderer)
        stream = await self._workers.run(open_stream, models.backend, model, state, reference)
        read = functools.partial(frame_from_proto, model=model, renderer=renderer)
        async with aclosing(_batches(requests, self._batch_size, read)) as batches:
            async for batch in batches:
                for rendered in await self._workers.run(stream.render, batch):
                    yield rendered_to_proto(rendered)
        if renderer.spec.frames_after:
            for rendered in await self._workers.run(stream.finish):
                yield rendered_to_proto(rendered)

    async def Personalize(  # noqa: N802  # the RPC's name
        self, request: pb.PersonalizeRequest, context: Any
    ) -> AsyncIterator[pb.PersonalizeResponse]:
        """Answer progress, then the actor."""
        models, model = await self._loaded(request.model, "model")
        renderer = renderer_named(model.name)
        set_model_version(model.sha256[:12])
        bank, identity = bank_from_proto(request), identity_from_proto(request, renderer)
        async with self._trainers.slot():
            job = PersonalizeJob(
                bank=await self._trainers.run(self._actors.bank, bank),
                drawing=await self._trainers.run(self._actors.drawing, identity),
                weights=models.folder,
                num_steps=request.num_steps,
                seed=request.seed,
                num_threads=self._personalize_threads,
                device=self._personalize_device,
                train=not request.skip_training,
            )
            reports = await self._trainers.run(renderer.personalize, job)
            last = None
            while (report := await self._trainers.run(_next_report, reports)) is not None:
                yield progress_to_proto(report)
                last = report
            assert last is not None  # personalize reports at least once
            actor = await self._trainers.run(self._actors.store_state, last.state, model, last.texture)
        yield result_to_proto(last, actor)

    async def ListModels(  # noqa: N802  # the RPC's name
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """Answer all models, and those that the backend could not read. No model is loaded for the answer."""
        models = await self._models.ready()
        return models_to_proto(
            models.info(), models.unavailable, models.backend.device, personalization_device(self._personalize_device)
        )

    async def _loaded(self, name: str, field: str) -> tuple[RenderModels, ModelFile]:
        """Load a model if it is not loaded yet. Return all models, and this model.

        The load runs outside the stage's pools, so that a full pool does not refuse the call.

        Raises:
            InvalidRequestError, ModelNotFoundError: see model_from_proto.
        """
        models = await self._models.ready()
        if models.is_late(name):
            await asyncio.to_thread(models.load, name)
        return models, model_from_proto(name, models, field)


def _next_report(reports: Iterator[PersonalizeProgress]) -> PersonalizeProgress | None:
    check_not_cancelled()
    return next(reports, None)


async def _batches(
    requests: AsyncIterator[pb.RenderRequest], size: int, read_frame: Callable[[pb.RenderRequest, int | None], RenderFrame]
) -> AsyncGenerator[list[RenderFrame], None]:
    """Yield frames in order, as many as have arrived, at most `size` at a time. A batch that is not full does not wait.

    The queue holds at most `size` messages. When the queue is full, the sender waits (flow control of the stream).

    Args:
        requests: messages after the config.
        size: most frames of a batch.
        read_frame: returns the frame of a message; called with the message and the index of the frame before.
    """
    queue: asyncio.Queue[pb.RenderRequest | None] = asyncio.Queue(size)

    async def read() -> None:
        try:
            async for request in requests:
                await queue.put(request)
        except Exception:
            await queue.put(None)
            raise
        # Not reached if the call is cancelled: the queue may be full then, and no task takes from the queue any more.
        await queue.put(None)

    reader = asyncio.create_task(read())
    previous: int | None = None
    ended = False
    try:
        while not ended:
            arrived = [await queue.get()]
            while len(arrived) < size and not queue.empty():
                arrived.append(queue.get_nowait())
            batch = []
            for request in arrived:
                if request is None:
                    ended = True
                    break
                frame = read_frame(request, previous)
                previous = frame.frame_index
                batch.append(frame)
            if batch:
                yield batch
        await reader
    finally:
        reader.cancel()
