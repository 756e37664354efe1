"""The work of the operations behind batches: one operation dubs the shots of one batch that are left.

Callers see batches, never these operations. A gateway that dies loses the lease of its operations, and another gateway goes on.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Final

from pydantic import BaseModel

from gateway.actors.workplace import Workplace
from gateway.ahead import in_thread
from gateway.api.job_context import JobContext
from gateway.api.shared import Shared
from gateway.batch.bench import Bench
from gateway.batch.in_process import run_in_process
from gateway.batch.store import open_batches
from gateway.operations.job import Job, for_tenant
from gateway.operations.runner import JobRunner
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from services.common.errors import BackendUnavailable

BATCH: Final = "batch"
"""Kind of the operations behind batches."""
MOST_BATCHES: Final = 256
"""Most batches that wait or run in one gateway."""
LOOK_S: Final = 0.5
"""Seconds between two looks whether an earlier operation of the same batch has ended."""


class Order(BaseModel):
    """Request of an operation.

    Attributes:
        name: name of the batch.
        check_films: dub shots anew that are done and whose film is gone or was changed.
    """

    name: str
    check_films: bool


def outputs_of(name: str) -> tuple[str, str]:
    """Return what operations of a batch write, as they are submitted.

    Operations that have not ended never write the same. So a batch has at most two of them: one that works, and one that waits for
    the end of the first. Shots that begin anew before a submission are seen by an operation in any case: by the new operation, or,
    if there are two already, by the one that still waits.
    """
    return f"batches/{name}", f"batches/{name}/next"


class BatchJobs:
    """Handler of the operations behind batches.

    Attributes:
        operations: the operations behind batches.
        bench: what the shots are dubbed with.

    Args:
        settings: settings of the process.
        context: what the operations work with.
        shared: what the tenants of the process share.
    """

    def __init__(self, settings: GatewaySettings, context: JobContext, shared: Shared) -> None:
        self._settings = settings
        self._rewrite = context.names.rewrite
        self.operations = OperationStore(context.actors.database, kinds=(BATCH,))
        self._slots = context.gate.shots(shared.shots)
        self._stack = AsyncExitStack()
        place = Workplace(settings, context.actors, context.artefacts)
        self.bench = Bench(place, context.jobs, self._stack, shared.stages.serving)

    async def __call__(self, job: Job) -> bytes:
        """Dub the shots of a batch until all have ended; the response is empty."""
        order = Order.model_validate_json(job.record.request)
        await self._until_first(order.name, job.record.number)
        await run_in_process(
            self.bench,
            await in_thread(open_batches, self._settings),
            order.name,
            slots=self._slots,
            workers=self._settings.max_batch_shots,
            confirm=job.confirm,
            check_films=order.check_films and not job.resumed,
        )
        return b""

    async def _until_first(self, name: str, number: int) -> None:
        """Wait until every earlier operation of a batch has ended."""
        while True:
            with suppress(BackendUnavailable):
                if not await in_thread(self.operations.is_written, outputs_of(name), before=number):
                    return
            await asyncio.sleep(LOOK_S)

    def runner(self) -> JobRunner:
        """Return what runs the operations."""
        return JobRunner(
            self.operations,
            {BATCH: for_tenant(self._settings.tenant, self)},
            max_concurrent=MOST_BATCHES,
            max_queued=0,
            rewrite=self._rewrite,
            shared=self.operations.database.shared,
            lease_s=self._settings.operation_lease_s,
        )

    async def close(self) -> None:
        """Remove the folders of media that came from URLs. The work has ended."""
        await self._stack.aclose()
