"""A tenant's room in a gateway: the tenant's places, and the servicers that work in them and nowhere else."""

from __future__ import annotations

import asyncio
import functools

from opentelemetry import trace

from gateway.api.batch_servicer import BatchServicer
from gateway.api.batches import Batches
from gateway.api.chores import eraser_of, expire_hourly
from gateway.api.handlers import runner_of
from gateway.api.installation import Installation
from gateway.api.servicers import Servicers
from gateway.api.shared import Shared
from gateway.audit.settings import record_settings
from gateway.live.streams import LiveStreams
from gateway.settings import GatewaySettings


class Room:
    """A tenant's room in one gateway process.

    Attributes:
        installation: data folder and database of the tenant.
        servicers: the tenant's servicers.

    Args:
        shared: what the tenants of the process share.
        settings: settings of the process, with the places of the tenant.
        beside: room of another tenant, whose connections to the database are used; None: this is the first room.

    Raises:
        InvalidRequest: another gateway works in the data folder or with the SQLite file, or a file of the settings cannot be used.
        StorageRefused, BackendUnavailable: the data folder or the database cannot be used.
    """

    def __init__(self, shared: Shared, settings: GatewaySettings, beside: Room | None = None) -> None:
        others = beside.installation if beside is not None else None
        self.installation: Installation = Installation(settings, shared.limits, beside=others)
        try:
            self._furnish(shared, settings)
        except BaseException:
            self.installation.close()
            raise

    def _furnish(self, shared: Shared, settings: GatewaySettings) -> None:
        context, stages = self.installation.context, shared.stages
        record_settings(context.actors.database, settings)
        self._runner = runner = runner_of(settings, context, stages, shared.jobs)
        live = LiveStreams(
            stages,
            context.actors,
            context.artefacts,
            max_message_bytes=settings.max_message_bytes,
            admission=shared.live,
        )
        self._batches = Batches(settings, context, shared)
        self._eraser = eraser_of(settings, context, runner, live)
        self._expire = functools.partial(expire_hourly, settings, context, self._batches.views)
        self._chores: list[asyncio.Task[None]] = []
        batches = BatchServicer(settings, context, self._batches, shared.long_calls)
        self.servicers: Servicers = Servicers.of(context, runner, self._eraser, live, batches, shared.long_calls)

    @property
    def unfinished(self) -> int:
        """Number of operations and batches that run in this process, and of those that wait for any gateway."""
        return self._runner.unfinished + self._batches.unfinished

    def watch(self) -> None:
        """Begin to carry out erasures that other processes ask for, and to remove what is old."""
        self._chores += [asyncio.create_task(self._eraser.watch()), asyncio.create_task(self._expire())]

    async def start(self, tracer: trace.Tracer) -> None:
        """Resume interrupted operations and batches. The stages are open.

        Args:
            tracer: makes one span for each operation.
        """
        self._runner.tracer = tracer
        await self._runner.start()
        await self._batches.start(tracer)

    async def stop(self) -> None:
        """Stop the operations and batches where they are; another process resumes them."""
        for task in self._chores:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._runner.close()
        await self._batches.stop()

    async def close_batches(self) -> None:
        """Remove the folders that batches have left. All calls have ended."""
        await self._batches.close()

    async def close(self) -> None:
        """Close the database, and let other gateways use the data folder. The stages are closed."""
        await asyncio.to_thread(self.installation.close)
