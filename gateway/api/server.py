"""The gateway's server: the chassis, and around it the stages, the database and the operations that its servicers work with."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
from google.longrunning import operations_pb2, operations_pb2_grpc
from prometheus_client import Gauge

from dubstage.gateway.v1alpha1 import gateway_pb2, gateway_pb2_grpc
from gateway.actors.private_files import cannot_use, data_folder
from gateway.actors.store import ActorStore
from gateway.api.actor_servicer import ActorServicer
from gateway.api.convert import ACTOR, DUB
from gateway.api.dub_servicer import DubServicer
from gateway.api.erasing import ActorEraser
from gateway.api.error_names import ErrorNames, with_names
from gateway.api.jobs import ActorJobs, DubJobs, JobContext
from gateway.api.media_folder import MediaFolder
from gateway.api.operations_servicer import OperationsServicer
from gateway.housekeeping.cleaning import expire_hourly
from gateway.housekeeping.jobs_folder import open_jobs_folder
from gateway.live.streams import LiveStreams
from gateway.operations.runner import Handler, Job, JobRunner
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.local import LocalStages
from gateway.stages.opening import open_stages
from gateway.stages.remote import RemoteStages
from services.common.artefacts import ArtefactStore
from services.common.errors import InvalidRequest, ModelNotReady
from services.common.server import StageServer

SERVICES = (
    *(service.full_name for service in gateway_pb2.DESCRIPTOR.services_by_name.values()),
    *(service.full_name for service in operations_pb2.DESCRIPTOR.services_by_name.values()),
)


class GatewayServer(StageServer):
    """Opens the stages as its warm-up; stops its operations, which the next process picks up, when it drains.

    Args:
        settings: of the process.

    Raises:
        InvalidRequest: another gateway works in the data folder or with the database, or a file of the settings cannot be used.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._lock = _lock(settings.data_dir)
        self._gateway_settings = settings
        self._actors = self._open_actors(settings)
        self._stages: Stages | None = None
        self._stack = AsyncExitStack()
        artefacts = ArtefactStore(settings.artefacts_url)
        jobs = open_jobs_folder(settings.data_dir)
        names = ErrorNames(settings, self._actors.database.where, artefacts.url)
        context = JobContext(
            actors=self._actors,
            artefacts=artefacts,
            media=MediaFolder(settings.media_dir),
            jobs=jobs,
            require_consent=settings.require_consent,
            threads=settings.compute_threads,
            names=names,
            max_job_bytes=settings.max_job_bytes,
        )
        handlers: dict[str, Handler] = {
            DUB: self._once_stages_serve(DubJobs(context, self._open_stages)),
            ACTOR: self._once_stages_serve(ActorJobs(context, self._open_stages)),
        }
        self._runner = JobRunner(
            OperationStore(self._actors.database),
            handlers,
            max_concurrent=settings.max_concurrent_jobs,
            max_queued=settings.max_queued_jobs,
            abandon=context.abandon,
            rewrite=names.rewrite,
        )
        live = LiveStreams(
            self._open_stages,
            self._actors,
            artefacts,
            max_streams=settings.max_live_streams,
            require_consent=settings.require_consent,
            max_message_bytes=settings.max_message_bytes,
        )

        self._eraser = ActorEraser(self._actors, self._runner, live)
        self._erasing: asyncio.Task[None] | None = None
        self._expiry = functools.partial(expire_hourly, settings, self._actors, artefacts, jobs)
        self._expiring: asyncio.Task[None] | None = None

        def register(server: grpc.aio.Server) -> None:
            people = ActorServicer(context, self._runner, self._eraser)
            gateway_pb2_grpc.add_ActorServiceServicer_to_server(with_names(people, names), server)
            gateway_pb2_grpc.add_DubServiceServicer_to_server(with_names(DubServicer(context, self._runner, live), names), server)
            operations_pb2_grpc.add_OperationsServicer_to_server(with_names(OperationsServicer(self._runner), names), server)

        super().__init__("gateway", settings, register=register, services=SERVICES)
        self._runner.tracer = self.tracer
        unfinished = Gauge("dubstage_operations", "Operations that run or wait", registry=self.metrics.registry)
        unfinished.set_function(lambda: self._runner.unfinished)

    def _open_actors(self, settings: GatewaySettings) -> ActorStore:
        try:
            actors = ActorStore(settings)
            try:
                actors.database.claim()
            except BaseException:
                actors.close()
                raise
        except BaseException:
            self._unlock()
            raise
        return actors

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _once_stages_serve(self, handler: Handler) -> Handler:
        # A stage may rest with no replica at all: it is started for the operation's sake, and that takes longer than retries do.
        async def run(job: Job) -> bytes:
            if isinstance(self._stages, RemoteStages):
                await self._stages.wait_until_serving(self._gateway_settings.stages_start_s)
            return await handler(job)

        return run

    def _open_stages(self) -> Stages:
        if self._stages is None:
            raise ModelNotReady("the gateway is still warming up")
        return self._stages

    @property
    def busy(self) -> bool:
        """Whether a stage in this process still computes: after `drain()` that is work which nobody waits for."""
        return super().busy or (isinstance(self._stages, LocalStages) and self._stages.busy)

    async def warm_up(self) -> None:
        """Open the stages, take up interrupted operations, then admit calls and report SERVING.

        Raises:
            DubstageError: a stage cannot be reached, or does not warm up.
        """
        settings = self._gateway_settings
        self._erasing = asyncio.create_task(self._eraser.watch())
        self._expiring = asyncio.create_task(self._expiry())
        self._stages = await self._stack.enter_async_context(open_stages(settings, connect_s=settings.stages_start_s))
        await self._runner.start()
        await super().warm_up()

    async def drain(self, grace_s: float | None = None) -> None:
        """Stop the operations where they are, let running calls end, stop, and close what was opened."""
        for task in (self._erasing, self._expiring):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._runner.close()
        await super().drain(grace_s)
        await self._stack.aclose()
        await asyncio.to_thread(self._actors.close)
        self._unlock()


def _lock(folder: Path) -> int | None:
    """One gateway a data folder: two would take up each other's operations. The lock ends with the process, however it ends."""
    data_folder(folder)
    try:
        handle = os.open(folder / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise cannot_use(folder, problem) from problem
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InvalidRequest(
            f"another gateway works in {folder}: end it, or set DUBSTAGE_DATA_DIR to another folder", field="DUBSTAGE_DATA_DIR"
        ) from None
    return handle
