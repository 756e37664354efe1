"""The RPCs of BatchService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import islice
from typing import Any, Final, Literal

from dubstage.gateway.v1alpha1 import batch_pb2 as pb
from dubstage.gateway.v1alpha1 import batch_pb2_grpc
from gateway.ahead import in_thread
from gateway.api.batch_messages import batch_message, row_from, selected, shot_message
from gateway.api.batch_report import pieces, write_files
from gateway.api.batch_rows import RowReader, refusal
from gateway.api.batch_views import BatchView
from gateway.api.batches import Batches
from gateway.api.job_context import JobContext
from gateway.api.operation_messages import page_size_from
from gateway.batch.manifest import Manifest, batch_name
from gateway.settings import GatewaySettings
from gateway.tenants.long_calls import LongCalls
from services.common.errors import InvalidRequest

MOST_REPORTS: Final = 2
"""Most reports that one gateway writes at once for a tenant. Further calls wait."""
MOST_MISTAKES: Final = 10_000
"""Most mistakes of one answer."""


class BatchServicer(batch_pb2_grpc.BatchServiceServicer):
    """Submits, shows, changes and removes batches.

    Args:
        settings: settings of the process.
        context: what the operations work with.
        batches: the batches.
        long_calls: long calls of all tenants.
    """

    def __init__(self, settings: GatewaySettings, context: JobContext, batches: Batches, long_calls: LongCalls) -> None:
        self._may_use_cluster = settings.is_default_tenant
        self._context = context
        self._batches = batches
        self._rows = RowReader(context)
        self._long_calls = long_calls
        self._reports = asyncio.Semaphore(MOST_REPORTS)

    async def SubmitBatch(self, request: pb.SubmitBatchRequest, context: Any) -> pb.SubmitBatchResponse:  # noqa: N802
        """Check all rows, then give the shots to the engine."""
        engine = _engine_from(request)
        if engine == "kubernetes" and not self._may_use_cluster:
            raise InvalidRequest("engine: pods work for the default tenant alone: choose the engine GATEWAY", field="engine")
        found = await in_thread(self._rows.read, request)
        if request.validate_only:
            wrong = () if isinstance(found, Manifest) else found[:MOST_MISTAKES]
            mistakes = [pb.RowMistake(line=one.line, field=one.field, description=one.text, reason=one.reason) for one in wrong]
            return pb.SubmitBatchResponse(mistakes=mistakes)
        if not isinstance(found, Manifest):
            raise refusal(found, of_rows=bool(request.rows))
        await self._context.gate.check_storage()
        view = await self._batches.submit(found, engine, profile=request.profile, workers=request.workers)
        return pb.SubmitBatchResponse(batch=self._message(view))

    async def GetBatch(self, request: pb.GetBatchRequest, context: Any) -> pb.GetBatchResponse:  # noqa: N802
        """Return a batch with its progress."""
        return pb.GetBatchResponse(batch=self._message(await self._batches.view(batch_id_from(request.batch_id))))

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Any) -> pb.ListBatchesResponse:  # noqa: N802
        """List batches in the order of their ids."""
        size = page_size_from(request.page_size)
        if request.page_token:
            batch_id_from(request.page_token, field="page_token")
        facts = [one for one in await in_thread(self._batches.views.facts) if one.name > request.page_token]
        token = facts[size - 1].name if len(facts) > size else ""
        return pb.ListBatchesResponse(batches=map(batch_message, facts[:size]), next_page_token=token)

    async def ListShots(self, request: pb.ListShotsRequest, context: Any) -> pb.ListShotsResponse:  # noqa: N802
        """List shots in the order of the rows."""
        size, after = page_size_from(request.page_size), row_from(request.page_token)
        view = await self._batches.view(batch_id_from(request.batch_id))
        chosen = selected(view.records, request.states, to_look_at=request.to_look_at, after=after)
        rows = list(islice(chosen, size + 1))
        token = str(rows[size - 1]) if len(rows) > size else ""
        told = self._context.names.told
        shots = [shot_message(row, view.records[row], told) for row in rows[:size]]
        return pb.ListShotsResponse(shots=shots, next_page_token=token)

    async def WatchBatch(self, request: pb.WatchBatchRequest, context: Any) -> AsyncIterator[pb.WatchBatchResponse]:  # noqa: N802
        """Send a batch when its progress has changed, until all shots have ended."""
        name = batch_id_from(request.batch_id)
        with self._long_calls.place():
            async with aclosing(self._batches.watch(name)) as views:
                async for view in views:
                    yield pb.WatchBatchResponse(batch=self._message(view))

    async def CancelBatch(self, request: pb.CancelBatchRequest, context: Any) -> pb.CancelBatchResponse:  # noqa: N802
        """Cancel shots, or all that have not ended."""
        view = await self._batches.cancel(batch_id_from(request.batch_id), list(request.shot_ids))
        return pb.CancelBatchResponse(batch=self._message(view))

    async def RetryBatch(self, request: pb.RetryBatchRequest, context: Any) -> pb.RetryBatchResponse:  # noqa: N802
        """Let shots begin anew, or all that failed or were cancelled."""
        view = await self._batches.retry(batch_id_from(request.batch_id), list(request.shot_ids))
        return pb.RetryBatchResponse(batch=self._message(view))

    async def DeleteBatch(self, request: pb.DeleteBatchRequest, context: Any) -> pb.DeleteBatchResponse:  # noqa: N802
        """Remove a batch whose shots have all ended."""
        await self._batches.remove(batch_id_from(request.batch_id))
        return pb.DeleteBatchResponse()

    async def GetReport(self, request: pb.GetReportRequest, context: Any) -> AsyncIterator[pb.GetReportResponse]:  # noqa: N802
        """Send the files of the report."""
        name = batch_id_from(request.batch_id)
        with self._long_calls.place():
            async with self._reports, self._batches.folder_aside() as folder:
                view, (store, _) = await self._batches.view(name), await in_thread(self._batches.views.store, name)
                await in_thread(write_files, store, view.facts, view.records, request.format, self._context.names.told, folder)
                async with aclosing(pieces(folder)) as found:
                    async for piece in found:
                        yield piece

    def _message(self, view: BatchView) -> pb.Batch:
        return batch_message(view.facts, view.progress, [self._context.names.told(note) for note in view.notes])


def batch_id_from(text: str, *, field: str = "batch_id") -> str:
    """Return the id of a batch.

    Raises:
        InvalidRequest: no batch can have this id.
    """
    try:
        return batch_name(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{field}: {error.message}", field=field) from None


def _engine_from(request: pb.SubmitBatchRequest) -> Literal["gateway", "kubernetes"]:
    if request.engine == pb.BATCH_ENGINE_KUBERNETES:
        return "kubernetes"
    if request.engine not in (pb.BATCH_ENGINE_UNSPECIFIED, pb.BATCH_ENGINE_GATEWAY):
        raise InvalidRequest("engine: a gateway submits to the engines GATEWAY and KUBERNETES", field="engine")
    for field in ("profile", "workers"):
        if getattr(request, field):
            raise InvalidRequest(f"{field} is of the engine KUBERNETES: leave it out, or choose that engine", field=field)
    return "gateway"
