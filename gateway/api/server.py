"""The gateway's server: the chassis, and around it the stages, the database and the operations that the servicers work with."""

from __future__ import annotations

import asyncio
import functools

from prometheus_client import Gauge

from gateway.api.batch_servicer import BatchServicer
from gateway.api.erasing import ActorEraser
from gateway.api.handlers import runner_of
from gateway.api.installation import Installation
from gateway.api.opened_stages import OpenedStages
from gateway.api.registration import SERVICES, add_servicers
from gateway.batch.erasing import forget_in_batches
from gateway.housekeeping.cleaning import expire_hourly, remove_unknown
from gateway.live.streams import LiveStreams
from gateway.settings import GatewaySettings
from services.common.chassis.server import StageServer


class GatewayServer(StageServer):
    """Server of one gateway process. The warm-up opens the stages. A drain stops the operations; another process resumes them.

    Args:
        settings: settings of the process.

    Raises:
        InvalidRequest: another gateway works in the data folder or with the SQLite file, or a file of the settings cannot be used.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._installation = Installation(settings)
        self._stages = stages = OpenedStages(settings)
        context = self._installation.context
        self._runner = runner = runner_of(settings, context, stages)
        live = LiveStreams(
            stages,
            context.actors,
            context.artefacts,
            max_streams=settings.max_live_streams,
            max_message_bytes=settings.max_message_bytes,
        )
        servicer = BatchServicer(settings, context, stages)
        self._batches = servicer.batches
        clean = functools.partial(remove_unknown, context.actors, context.artefacts, context.jobs)
        self._eraser = ActorEraser(context.actors, runner, live, clean, functools.partial(forget_in_batches, settings))
        self._expire = functools.partial(expire_hourly, settings, context.actors, context.artefacts, context.jobs)
        self._chores: list[asyncio.Task[None]] = []
        super().__init__(
            "gateway",
            settings,
            register=lambda server: add_servicers(server, context, runner, self._eraser, live, servicer),
            services=SERVICES,
        )
        runner.tracer = self.tracer
        unfinished = Gauge("dubstage_operations", "Operations that run here, or wait", registry=self.metrics.registry)
        unfinished.set_function(lambda: runner.unfinished)

    @property
    def busy(self) -> bool:
        """Whether a stage in this process still computes. After `drain()`, the results of such work are dropped."""
        return super().busy or self._stages.busy

    async def warm_up(self) -> None:
        """Open the stages, resume interrupted operations and batches, then admit calls and report SERVING.

        Raises:
            DubstageError: a stage cannot be reached, or does not warm up.
        """
        self._chores += [asyncio.create_task(self._eraser.watch()), asyncio.create_task(self._expire())]
        await self._stages.open()
        await self._runner.start()
        await self._batches.start(self.tracer)
        await super().warm_up()

    async def drain(self, grace_s: float | None = None) -> None:
        """Stop the operations and batches where they are, let running calls end, stop, and close what was opened."""
        for task in self._chores:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._runner.close()
        await self._batches.stop()
        await super().drain(grace_s)
        await self._batches.close()
        await self._stages.close()
        await asyncio.to_thread(self._installation.close)
