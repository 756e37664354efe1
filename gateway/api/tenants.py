"""Tenants of a gateway: each has folders, a database and servicers of its own, and a call reaches only the caller's tenant.

Errors are rewritten for callers. Once an hour, and when a person is erased, a gateway removes what is old or belongs to the person.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

import structlog
from opentelemetry import trace

from gateway.api.actors import ActorEraser, ActorServicer, EnrolmentHandler
from gateway.api.batch_service import BatchServicer
from gateway.api.batches import Batches, BatchViews
from gateway.api.context import OpenedStages, ProcessContext, TenantContext, TenantStorage
from gateway.api.dubs import DubHandler, DubServicer, FaceHandler
from gateway.api.errors import ErrorRewriter
from gateway.api.operations import ACTOR, DUB, FACES, OperationsServicer, audit_event_of, stages_of
from gateway.api.uploads import MediaServicer, TenantUploads
from gateway.api.webhooks import WebhookServicer, sender_of, write_event
from gateway.async_utilities import in_thread
from gateway.audit.protection import record_settings
from gateway.batch.erasure import other_stores
from gateway.batch.expiry import expire_batches
from gateway.housekeeping import expire, remove_unknown, run_hourly
from gateway.live.streams import LiveStreams
from gateway.operations.execution import Handler, for_tenant
from gateway.operations.runner import OperationRunner, Slots
from gateway.operations.store import OperationStore, expire_operations
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.tenants.long_calls import LongCalls
from gateway.tenants.paths import settings_of
from gateway.tenants.register import remember_tenant, served_tenants
from gateway.webhooks.store import WebhookStore
from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError, StorageRefusedError
from services.common.server.call_context import DEFAULT_TENANT, current_caller

POLL_S: Final = 5.0
"""Seconds between two looks for tenants that other gateways serve: if such a gateway dies, this one goes on with its work."""
_log = structlog.stdlib.get_logger("dubstage.tenants")


async def expire_hourly(settings: GatewaySettings, context: TenantContext, batches: BatchViews, uploads: TenantUploads) -> None:
    """Remove old jobs, operations, answers to erasures, batches and uploads, now and once per hour, until cancelled.

    Args:
        settings: the limits.
        context: database, artefact store and folder of jobs.
        batches: looks at the batches.
        uploads: the uploads of the tenant.
    """
    await run_hourly(
        partial(expire, settings, context.engine.actors, context.engine.artefacts, context.engine.jobs),
        # After the jobs: an operation stays as long as its job is on the disk.
        partial(
            expire_operations,
            context.engine.actors.database,
            max_age_days=settings.operation_max_age_days,
            max_finished=settings.max_finished_operations,
        ),
        context.engine.actors.erasures.forget_old_answers,
        partial(expire_batches, settings, batches.store, batches.is_worked_on),
        uploads.expire,
    )


def eraser_of(settings: GatewaySettings, context: TenantContext, runner: OperationRunner, live: LiveStreams) -> ActorEraser:
    """Return what erases a tenant's people.

    Args:
        settings: settings of the process, with the locations of the tenant.
        context: database, artefact store and folder of jobs.
        runner: runs the operations.
        live: opens live streams.
    """
    clean = partial(remove_unknown, context.engine.actors, context.engine.artefacts, context.engine.jobs)
    return ActorEraser(context.engine.actors, runner, live, clean, other_stores(context.engine.actors.database))


def runner_of(
    settings: GatewaySettings, context: TenantContext, stages: OpenedStages, slots: Slots, operations: OperationStore
) -> OperationRunner:
    """Return what runs a tenant's operations of CreateDub, CreateActor and DetectFaces. Each waits until its stages serve.

    Args:
        settings: settings of the process, with the locations of the tenant.
        context: what the operations work with.
        stages: the stages of this process.
        slots: slots that all tenants of this process share.
        operations: the operations.
    """
    handlers: dict[str, Handler] = {
        DUB: DubHandler(context, stages),
        ACTOR: EnrolmentHandler(context, stages),
        FACES: FaceHandler(context, stages),
    }
    return OperationRunner(
        operations,
        {kind: for_tenant(settings.tenant, stages.once_serving(handler, stages_of(kind))) for kind, handler in handlers.items()},
        max_concurrent=settings.max_concurrent_jobs,
        max_queued=settings.max_queued_jobs,
        abandon=context.abandon,
        rewrite=context.names.rewrite_of_operation,
        shared=operations.database.shared,
        lease_s=settings.operation_lease_s,
        slots=slots,
    )


@dataclass(frozen=True, slots=True)
class Servicers:
    """The servicers of one tenant: ActorService, DubService, BatchService, MediaService, WebhookService and Operations.

    Attributes:
        names: rewrites the errors of the servicers for callers.
    """

    names: ErrorRewriter
    actors: ActorServicer
    dubs: DubServicer
    batches: BatchServicer
    media: MediaServicer
    webhooks: WebhookServicer
    operations: OperationsServicer

    @classmethod
    def of(
        cls,
        context: TenantContext,
        runner: OperationRunner,
        eraser: ActorEraser,
        live: LiveStreams,
        batches: BatchServicer,
        long_calls: LongCalls,
        *,
        media: MediaServicer,
        webhooks: WebhookServicer,
        stages: Callable[[], Awaitable[Stages]],
    ) -> Self:
        """Return the servicers that work with these locations.

        Args:
            context: what the operations work with.
            runner: runs the operations.
            eraser: erases people.
            live: opens live streams.
            batches: the RPCs of batches.
            long_calls: long calls of all tenants.
            media: the RPCs of uploads and downloads.
            webhooks: the RPCs of webhooks.
            stages: returns the stages as soon as they serve.
        """
        return cls(
            context.names,
            ActorServicer(context, runner, eraser),
            DubServicer(context, runner, live, long_calls, stages),
            batches,
            media,
            webhooks,
            OperationsServicer(runner, context.engine.actors.audit, long_calls),
        )


class Tenant:
    """A tenant in one gateway process.

    Attributes:
        installation: data folder and database of the tenant.
        servicers: the tenant's servicers.

    Args:
        shared: what the tenants of the process share.
        settings: settings of the process, with the locations of the tenant.
        beside: another tenant, whose connections to the database are used; None: this is the first tenant.

    Raises:
        InvalidRequestError: another gateway works in the data folder or with the SQLite file, or a file of the settings cannot be
            used.
        StorageRefusedError, BackendUnavailableError: the data folder or the database cannot be used.
    """

    def __init__(self, shared: ProcessContext, settings: GatewaySettings, beside: Tenant | None = None) -> None:
        others = beside.installation if beside is not None else None
        self.installation: TenantStorage = TenantStorage(settings, shared.limits, beside=others)
        try:
            self._furnish(shared, settings)
        except BaseException:
            self.installation.close()
            raise

    def _furnish(self, shared: ProcessContext, settings: GatewaySettings) -> None:
        context, stages = self.installation.context, shared.stages
        record_settings(context.engine.actors.database, settings)
        kinds = (DUB, ACTOR, FACES)
        operations = OperationStore(context.engine.actors.database, kinds=kinds, audit_of=audit_event_of, on_end=write_event)
        self._runner = runner = runner_of(settings, context, stages, shared.jobs, operations)
        live = LiveStreams(
            stages,
            context.engine.actors,
            context.engine.artefacts,
            max_message_bytes=settings.max_message_bytes,
            admission=shared.live,
            sealer=context.engine.sealer(),
        )
        self._batches = Batches(settings, context, shared, write_event)
        self._eraser = eraser_of(settings, context, runner, live)
        self._uploads = uploads = TenantUploads(settings, operations)
        self._expire = partial(expire_hourly, settings, context, self._batches.views, uploads)
        self._chores: list[asyncio.Task[None]] = []
        batches = BatchServicer(settings, context, self._batches, shared.long_calls)
        media = MediaServicer(uploads, settings, context.quota, shared.long_calls)
        hooks = WebhookStore(context.engine.actors.database)
        self._sender = sender_of(settings, hooks, operations, self._batches.views, context.names)
        webhooks = WebhookServicer(settings, hooks, context.engine.actors.audit)
        self.servicers: Servicers = Servicers.of(
            context,
            runner,
            self._eraser,
            live,
            batches,
            shared.long_calls,
            media=media,
            webhooks=webhooks,
            # For EstimateDub: the estimate must not start GPU stages.
            stages=partial(stages.serving, ("face",)),
        )

    @property
    def unfinished(self) -> Counter[str]:
        """Number of operations and batches that run in this process, and of those that wait for any gateway, by kind."""
        return self._runner.unfinished + self._batches.unfinished

    def watch(self) -> None:
        """Begin to carry out erasures that other processes ask for, to remove what is old, and to send events."""
        self._chores += [asyncio.create_task(work) for work in (self._eraser.watch(), self._expire(), self._sender.run())]

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


class Tenants:
    """The tenants of one gateway process. Used from one event loop.

    Attributes:
        default: the default tenant.

    Args:
        shared: what the tenants of the process share.

    Raises:
        DubstageError: as `Tenant`, of the default tenant.
    """

    def __init__(self, shared: ProcessContext) -> None:
        self._shared = shared
        self.default = Tenant(shared, shared.settings)
        self._tenants = {DEFAULT_TENANT: self.default}
        self._opening = asyncio.Lock()
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def unfinished(self) -> Counter[str]:
        """Number of operations and batches that run in this process, and of those that wait for any gateway, by kind."""
        return sum((tenant.unfinished for tenant in self._tenants.values()), Counter())

    async def of_caller(self) -> Tenant:
        """Return the caller's tenant. The tenant's first call opens it.

        Raises:
            DubstageError: the locations of the tenant cannot be used, or the gateway is shutting down.
        """
        name = current_caller().tenant
        tenant = self._tenants.get(name)
        if tenant is not None:
            return tenant
        try:
            return await self._open(name)
        except DubstageError as problem:
            # A file of the settings may have become wrong since the gateway started: the fault is not the caller's.
            wrong = isinstance(problem, InvalidRequestError)
            error = StorageRefusedError(problem.said(), subject=f"tenant {name}") if wrong else problem
            raise self.default.installation.context.names.rewrite(error) from None

    async def start(self, tracer: trace.Tracer) -> None:
        """Resume interrupted operations and batches of all tenants. The stages are open.

        Args:
            tracer: makes one span for each operation.
        """
        self._tracer = tracer
        await self.default.start(tracer)
        await self._look()
        if self.default.installation.context.engine.actors.database.shared:
            self._looking = asyncio.create_task(self._look_for_ever())

    async def stop(self) -> None:
        """Stop the operations and batches of all tenants where they are; another process resumes them. No tenant opens any more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        async with self._opening:
            self._closed = True
        await asyncio.gather(*(tenant.stop() for tenant in self._tenants.values()))

    async def close_batches(self) -> None:
        """Remove the folders that batches have left. All calls have ended."""
        for tenant in self._tenants.values():
            await tenant.close_batches()

    async def close(self) -> None:
        """Close all databases and data folders. The stages are closed."""
        # The default tenant comes last: the others use its connections.
        for tenant in reversed(self._tenants.values()):
            await tenant.close()

    async def _open(self, name: str) -> Tenant:
        # The tenant must neither end with the call that opens it, nor have that call's deadline and caller.
        return await asyncio.shield(asyncio.create_task(self._opened(name), context=contextvars.Context()))

    async def _opened(self, name: str) -> Tenant:
        async with self._opening:
            if name in self._tenants:
                return self._tenants[name]
            if self._closed:
                raise BackendUnavailableError("the gateway is shutting down")
            await in_thread(remember_tenant, self.default.installation.context.engine.actors.database, name)
            tenant = await in_thread(Tenant, self._shared, settings_of(self._shared.settings, name), self.default)
            try:
                tenant.watch()
                await tenant.start(self._tracer)
            except BaseException:
                # Calls find only tenants that have started. The tenant's next call tries again, with a new object.
                await tenant.stop()
                await tenant.close_batches()
                await tenant.close()
                raise
            self._tenants[name] = tenant
            _log.info("tenant_opened", tenant=name)
            return tenant

    async def _look(self) -> None:
        """Open all tenants that a gateway has served."""
        for name in await in_thread(served_tenants, self.default.installation.context.engine.actors.database):
            if name not in self._tenants:
                try:
                    await self._open(name)
                except Exception as problem:
                    # The others are served all the same. The tenant's next call tries again.
                    _warn("tenant_not_opened", problem, tenant=name)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._look()
            except Exception as problem:
                # Without this, a bug or one wrong row would end all looks, and nobody would go on with the work of a dead gateway.
                _warn("tenants_not_seen", problem)


def _warn(event: str, problem: Exception, **fields: str) -> None:
    """Log an error of dubstage with its reason, and any other with its traceback."""
    if isinstance(problem, DubstageError):
        _log.warning(event, reason=problem.reason, message=problem.message, **fields)
    else:
        _log.warning(event, problem=str(problem), exc_info=problem, **fields)
