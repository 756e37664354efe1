"""The render stage's RPCs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from dubstage.render.v1alpha1 import render_pb2 as pb
from dubstage.render.v1alpha1 import render_pb2_grpc
from services.common.array_cache import ArrayCache
from services.common.artefacts import ArtefactStore
from services.common.calls import check_still_wanted, set_model_version
from services.common.errors import InvalidRequest
from services.common.identity_drawing import IdentityDrawing
from services.common.limits import WorkerPool
from services.common.morphable_models import MorphableModels
from services.common.mouth_bank import MouthBank
from services.render.backends.registry import ModelFile
from services.render.convert import (
    bank_from_proto,
    config_from_proto,
    drawing_from_proto,
    frame_from_proto,
    model_from_proto,
    models_to_proto,
    num_steps_from_proto,
    progress_to_proto,
    rendered_to_proto,
    result_to_proto,
    state_from_proto,
)
from services.render.models import RenderModels
from services.render.streams import EVERYBODY, HEADPOSE, open_stream
from services.render.types import PersonalizeProgress, RenderFrame


class RenderServicer(render_pb2_grpc.RenderServiceServicer):
    """Render, Personalize and ListModels over loaded models."""

    def __init__(
        self,
        models: Callable[[], RenderModels],
        store: ArtefactStore,
        cache: ArrayCache,
        *,
        workers: WorkerPool,
        trainers: WorkerPool,
        batch_size: int,
        personalize_threads: int,
        morphable_models: MorphableModels,
    ) -> None:
        """Compose.

        Args:
            models: gives the loaded models; called once a call, after warm-up.
            store: of artefacts.
            cache: before the store, for actors' states.
            workers: threads in which frames are computed.
            trainers: threads of their own for personalisations, so that they never keep a frame waiting in a queue.
            batch_size: most frames of one stream that are computed at once.
            personalize_threads: threads inside one personalisation.
            morphable_models: that faces are drawn on, for `headpose`.
        """
        self._models = models
        self._store = store
        self._cache = cache
        self._workers = workers
        self._trainers = trainers
        self._batch_size = batch_size
        self._personalize_threads = personalize_threads
        self._morphable_models = morphable_models

    async def Render(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.RenderRequest], context: Any
    ) -> AsyncIterator[pb.RenderResponse]:
        """Config, then frames; those that have arrived while the one before was computed go as one batch."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            raise InvalidRequest("the stream ended before its config", field="config")
        config, models = config_from_proto(first), self._models()
        model = model_from_proto(config.model, models.files, "config.model")
        set_model_version(model.sha256[:12])
        state = await self._workers.run(state_from_proto, config, model, self._cache)
        stream = await self._workers.run(open_stream, models.backend, model, state)
        async with aclosing(_batches(requests, self._batch_size)) as batches:
            async for batch in batches:
                for rendered in await self._workers.run(stream.render, batch):
                    yield rendered_to_proto(rendered)

    async def Personalize(  # noqa: N802  # the RPC's name
        self, request: pb.PersonalizeRequest, context: Any
    ) -> AsyncIterator[pb.PersonalizeResponse]:
        """Progress, then the actor."""
        models = self._models()
        model = model_from_proto(request.model, models.files, "model")
        set_model_version(model.sha256[:12])
        num_steps_from_proto(request)
        bank = await self._trainers.run(bank_from_proto, request, self._store)
        drawing = None
        if model.name == HEADPOSE:
            drawing = await self._trainers.run(drawing_from_proto, request, self._store, self._morphable_models)
        reports = await self._trainers.run(_reports, bank, drawing, models, model, request, self._personalize_threads)
        last = None
        while (report := await self._trainers.run(_next_report, reports)) is not None:
            yield progress_to_proto(report)
            last = report
        assert last is not None  # personalize reports at least once
        yield await self._trainers.run(result_to_proto, last, model, self._store)

    async def ListModels(  # noqa: N802  # the RPC's name
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """All models that are loaded."""
        return models_to_proto(self._models().info())


def _reports(
    bank: MouthBank,
    drawing: IdentityDrawing | None,
    models: RenderModels,
    model: ModelFile,
    request: pb.PersonalizeRequest,
    num_threads: int,
) -> Iterator[PersonalizeProgress]:
    # Torch takes seconds to import and much memory: only for those who train.
    from services.render.adapt.everybody import personalize_everybody
    from services.render.adapt.headpose import personalize_headpose
    from services.render.adapt.personalize import PersonalizeModels, personalize

    files, seed, train = PersonalizeModels(models.folder), request.seed, not request.skip_training
    steps = num_steps_from_proto(request)
    if drawing is not None:
        return personalize_headpose(bank, drawing, files, num_steps=steps, seed=seed, num_threads=num_threads, train=train)
    chosen = personalize_everybody if model.name == EVERYBODY else personalize
    return chosen(bank, files, num_steps=steps, seed=seed, num_threads=num_threads, train=train)


def _next_report(reports: Iterator[PersonalizeProgress]) -> PersonalizeProgress | None:
    check_still_wanted()
    return next(reports, None)


async def _batches(requests: AsyncIterator[pb.RenderRequest], size: int) -> AsyncGenerator[list[RenderFrame], None]:
    """Frames in order, as many as have arrived, at most `size` at a time; never waits to fill a batch.

    The queue holds at most `size` messages: beyond that the sender waits (flow control of the stream).
    """
    queue: asyncio.Queue[pb.RenderRequest | None] = asyncio.Queue(size)

    async def read() -> None:
        try:
            async for request in requests:
                await queue.put(request)
        except Exception:
            await queue.put(None)
            raise
        # Not where the call is cancelled: the queue may be full, and nobody would ever take from it.
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
                frame = frame_from_proto(request, previous)
                previous = frame.frame_index
                batch.append(frame)
            if batch:
                yield batch
        await reader
    finally:
        reader.cancel()
