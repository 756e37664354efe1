"""Batches of a gateway: submitted, shown, changed, dubbed and removed.

One operation dubs the shots of a batch that are left, or waits for the cluster that dubs them. Callers see batches, never these
operations. A gateway that dies loses the lease of its operations, and another gateway goes on: the end of a batch is stored once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from opentelemetry import trace
from pydantic import BaseModel

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.actors.installation import Installation
from gateway.api.context import ProcessContext, TenantContext
from gateway.async_utilities import entered_in_threads, in_thread
from gateway.audit.entries import AuditEvent, EventKind
from gateway.batch import changes
from gateway.batch.changes import batch_event, review_event
from gateway.batch.in_process import run_in_process
from gateway.batch.manifest import ActorLookup
from gateway.batch.records import Progress, progress_from
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.store import BatchStore
from gateway.batch.types import BatchFacts, Engine, Manifest, ShotRecord
from gateway.batch.worker import WorkerContext
from gateway.operations.execution import BegunOperation, for_tenant
from gateway.operations.runner import OperationRunner
from gateway.operations.store import NO_REQUEST_ID, OnEnd, OperationRecord, OperationStore, RequestIdentity, tell_nobody
from gateway.settings import GatewaySettings
from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError, OverloadedError

BATCH: Final = "batch"
"""Kind of the operations behind batches."""
CLUSTER_BATCH: Final = "cluster_batch"
"""Kind of the operations behind batches that a cluster dubs."""
REVIEW: Final = "review"
"""Kind of the operations that stand for decisions about shots: their events refer to them."""
MOST_BATCHES: Final = 256
"""Most batches that wait or run in one gateway."""
MOST_WAITING: Final = 10_000
"""Most further batches of a cluster that wait until one of MOST_BATCHES has ended."""
CLUSTER_POLL_S: Final = 5.0
"""Seconds between two looks at the records of a batch that a cluster dubs."""
CLUSTER_EVERY: Final = 3
"""The cluster is asked at each look of this number: it may have given up shots without a record."""
POLL_S: Final = 0.5
"""Seconds between two queries whether an earlier operation of the same batch has ended."""
WATCH_S: Final = 2.0
"""Seconds between two looks at a batch that is watched."""
_POLL_S: Final = 0.2
_END_S: Final = 10.0
"""Seconds that a removal, or a change of lines, waits for the operation of a batch whose shots have ended."""


class BatchRequest(BaseModel):
    """Request of an operation.

    Attributes:
        name: name of the batch.
        check_videos: dub shots anew that are done and whose video is gone or was changed.
    """

    name: str
    check_videos: bool


class ReviewRequest(BaseModel):
    """Request of an operation that stands for a decision.

    Attributes:
        batch: name of the batch.
        decision: the decision.
    """

    batch: str
    decision: Decision


def review_audit(record: OperationRecord) -> AuditEvent | None:
    """Return the entry of the audit log for an operation that stands for a decision."""
    request = ReviewRequest.model_validate_json(record.request)
    return review_event(request.batch, request.decision)


def outputs_of(name: str) -> tuple[str, str]:
    """Return what operations of a batch write, as they are submitted.

    Operations that have not ended never write the same. So a batch has at most two of them: one that works, and one that waits for
    the end of the first. Shots that begin anew before a submission are seen by an operation in any case: by the new operation, or,
    if there are two already, by the one that still waits.
    """
    return f"batches/{name}", f"batches/{name}/next"


class BatchHandler:
    """Handler of the operations behind batches.

    Attributes:
        operations: the operations behind batches.
        worker_context: what the shots are dubbed with.

    Args:
        settings: settings of the process.
        context: what the operations work with.
        shared: what the tenants of the process share.
        on_end: called with an operation behind a batch that has ended.
    """

    def __init__(self, settings: GatewaySettings, context: TenantContext, shared: ProcessContext, on_end: OnEnd) -> None:
        self._settings = settings
        self.operations = OperationStore(context.engine.actors.database, kinds=(BATCH,), on_end=on_end)
        self._slots = context.quota.shots(shared.shots)
        self._stack = AsyncExitStack()
        installation = Installation(settings, context.engine.actors, context.engine.artefacts)
        self.worker_context = WorkerContext(installation, self._stack, shared.stages.serving)

    async def __call__(self, operation: BegunOperation) -> bytes:
        """Dub the shots of a batch until all have ended; the response is empty."""
        request = BatchRequest.model_validate_json(operation.record.request)
        await _until_first(self.operations, request.name, operation.record.number)
        await run_in_process(
            self.worker_context,
            BatchStore(self.operations.database),
            request.name,
            slots=self._slots,
            workers=self._settings.max_batch_shots,
            confirm=operation.confirm,
            check_videos=request.check_videos and not operation.resumed,
        )
        return b""

    async def close(self) -> None:
        """Remove the folders of media that came from URLs. The work has ended."""
        await self._stack.aclose()


async def _until_first(operations: OperationStore, name: str, number: int) -> None:
    """Wait until every earlier operation of a batch has ended."""
    while True:
        with suppress(BackendUnavailableError):
            if not await in_thread(operations.is_written, outputs_of(name), before=number):
                return
        await asyncio.sleep(POLL_S)


class ClusterBatchHandler:
    """Handler of the operations behind batches that a cluster dubs: each ends with the batch.

    Attributes:
        operations: these operations.

    Args:
        context: what the operations work with.
        on_end: called with an operation that has ended.
    """

    def __init__(self, context: TenantContext, on_end: OnEnd) -> None:
        self.operations = OperationStore(context.engine.actors.database, kinds=(CLUSTER_BATCH,), on_end=on_end)

    async def __call__(self, operation: BegunOperation) -> bytes:
        """Wait until all shots of a batch have ended; the response is empty."""
        name = BatchRequest.model_validate_json(operation.record.request).name
        await _until_first(self.operations, name, operation.record.number)
        store, look = BatchStore(self.operations.database), 0
        while True:
            try:
                if not await in_thread(changes.is_left if look % CLUSTER_EVERY else changes.is_left_to_cluster, store, name):
                    return b""
            except DubstageError as problem:
                if not problem.retryable:
                    raise
            look += 1
            await asyncio.sleep(CLUSTER_POLL_S)


def _runner(
    settings: GatewaySettings,
    context: TenantContext,
    handler: BatchHandler | ClusterBatchHandler,
    kind: str,
    *,
    max_queued: int,
) -> OperationRunner:
    """Return what runs the operations of a handler."""
    return OperationRunner(
        handler.operations,
        {kind: for_tenant(settings.tenant, handler)},
        max_concurrent=MOST_BATCHES,
        max_queued=max_queued,
        rewrite=context.names.rewrite_of_operation,
        shared=handler.operations.database.shared,
        lease_s=settings.operation_lease_s,
    )


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch at one moment.

    Attributes:
        facts: what the batch is.
        progress: progress of the batch.
        reviews: number of shots by state of review.
        notes: why something waits, for a person.
    """

    facts: BatchFacts
    progress: Progress
    reviews: Counter[ReviewState]
    notes: tuple[str, ...]


class BatchViews:
    """Looks at the batches of the database that all gateways share. All methods block, and may be called from any thread.

    Attributes:
        store: store of batches.

    Args:
        operations: the operations behind batches, of all engines.
    """

    def __init__(self, operations: OperationStore) -> None:
        self.store = BatchStore(operations.database)
        self._operations = operations

    def view(self, name: str) -> BatchView:
        """Return a batch as it is now.

        Raises:
            BatchNotFoundError: there is no such batch.
            DubstageError: the store of batches cannot be used.
        """
        facts = self.store.facts(name)
        notes = changes.ask_cluster(self.store, facts)
        work = self.store.work(name)
        progress = progress_from(work, now_s=time.time())
        if facts.engine == "gateway" and not progress.ended and not self.is_worked_on(name):
            notes = [*notes, "no gateway works on the shots that are left: submit the batch again"]
        return BatchView(facts, progress, Counter(shot.review for shot in work), tuple(notes))

    def is_worked_on(self, name: str) -> bool:
        """Return whether a gateway works on a batch, or will."""
        return self._operations.is_written(outputs_of(name))


class Batches:
    """The batches of one gateway process, in the database that all gateways share.

    Attributes:
        views: looks at the batches.

    Args:
        settings: settings of the process.
        context: what the operations work with.
        shared: what the tenants of the process share.
        on_end: called with an operation behind a batch that has ended.
    """

    def __init__(
        self, settings: GatewaySettings, context: TenantContext, shared: ProcessContext, on_end: OnEnd = tell_nobody
    ) -> None:
        self._settings = settings
        self._actors = context.engine.actors
        self._audit = context.engine.actors.audit
        self._handler = BatchHandler(settings, context, shared, on_end)
        self._runner = _runner(settings, context, self._handler, BATCH, max_queued=0)
        # The Jobs of a cluster exist already: the event of the batch comes later.
        in_cluster = ClusterBatchHandler(context, on_end)
        self._cluster_runner = _runner(settings, context, in_cluster, CLUSTER_BATCH, max_queued=MOST_WAITING)
        self._reviews = OperationStore(context.engine.actors.database, kinds=(REVIEW,), audit_of=review_audit, on_end=on_end)
        self.views = BatchViews(OperationStore(context.engine.actors.database, kinds=(BATCH, CLUSTER_BATCH)))
        self._store = self.views.store
        self._closing = asyncio.Event()

    @property
    def unfinished(self) -> Counter[str]:
        """Number, by kind, of batches that this process dubs, and of those that wait for any gateway."""
        return self._runner.unfinished

    async def start(self, tracer: trace.Tracer) -> None:
        """Begin to take batches: those that wait, and those that gateways which ended left unfinished.

        Args:
            tracer: makes one span for each operation behind a batch.
        """
        self._runner.tracer = tracer
        await self._runner.start()
        if self._settings.is_default_tenant:
            # Pods work only for the default tenant.
            await self._cluster_runner.start()

    async def stop(self) -> None:
        """Put the running shots back, and end all streams of `watch`. Other gateways may take the batches at once."""
        self._closing.set()
        await self._runner.close()
        await self._cluster_runner.close()

    async def close(self) -> None:
        """Remove the folders of `scratch_folder`. All work and all calls have ended."""
        await self._handler.close()

    async def submit(
        self,
        manifest: Manifest,
        engine: Literal["gateway", "kubernetes"],
        *,
        profile: str = "",
        workers: int = 0,
        identity: RequestIdentity = NO_REQUEST_ID,
    ) -> BatchView:
        """Make the batch of a manifest, or take the batch that exists, and give the shots that are left to the engine.

        Args:
            manifest: checked rows.
            engine: who dubs the shots.
            profile: of the engine kubernetes: kind of the pods; empty: cpu.
            workers: of the engine kubernetes: pods at the same time; 0: as the cluster's settings say.
            identity: what identifies the request when the request comes again.

        Raises:
            InvalidRequestError: the batch exists with another manifest or another engine, or an option is wrong.
            DubstageError: the store of batches or the cluster cannot be used.
        """
        store, config_map = self._store, self._settings.batch_config_map
        before = await in_thread(store.find, manifest.name)
        if engine == "kubernetes" and (before is None or before.manifest_sha256 != manifest.sha256):
            # Wrong rows are refused before there is a batch, and before the batch takes them over.
            await in_thread(changes.check_for_cluster, store, manifest.shots, profile=profile, config_map=config_map)
        await self._revise(manifest, engine)
        before = await in_thread(store.find, manifest.name)
        if before is not None and before.manifest_sha256 != manifest.sha256:
            raise InvalidRequestError(
                f"batch {manifest.name} exists with other rows: choose another batch_id, or submit the rows of the batch with the "
                "same ids in the same order. Rows of shots that are not done may be changed",
                field="batch_id",
            )
        facts = await in_thread(store.create, manifest, engine)
        if facts.engine != engine:
            raise InvalidRequestError(
                f"batch {facts.name} belongs to the engine {facts.engine}: choose that engine or another batch_id", field="engine"
            )
        await in_thread(self._audit.record, changes.submission(facts))
        if engine == "kubernetes":
            await in_thread(changes.send_to_cluster, store, facts.name, profile=profile, workers=workers, config_map=config_map)
        await self._work_on(facts, check_videos=True, identity=identity)
        return await self.view(facts.name)

    async def has_begun(self, identity: RequestIdentity) -> bool:
        """Return whether an earlier request of the same id has begun work on its batch.

        Raises:
            RequestIdReusedError: the earlier request was another one.
        """
        return await in_thread(self._handler.operations.begun_by, identity) is not None

    async def view(self, name: str) -> BatchView:
        """Return a batch as it is now.

        Raises:
            BatchNotFoundError: there is no such batch.
            DubstageError: the store of batches cannot be used.
        """
        return await in_thread(self.views.view, name)

    async def watch(self, name: str) -> AsyncGenerator[BatchView, None]:
        """Yield a batch, and again when its progress has changed, until all shots have ended.

        Raises:
            BatchNotFoundError: there is no such batch, or the batch was removed.
            BackendUnavailableError: the gateway is shutting down.
        """
        last: object = None
        while True:
            view = await self.view(name)
            now = (view.progress, view.notes, view.reviews)
            if now != last:
                last = now
                yield view
            if view.progress.ended:
                return
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._closing.wait()
            except TimeoutError:
                continue
            raise BackendUnavailableError("the gateway is shutting down: watch the batch again")

    async def cancel(self, name: str, ids: Sequence[str]) -> BatchView:
        """Cancel shots of a batch; without ids, all that have not ended.

        Raises:
            BatchNotFoundError: there is no such batch or shot.
        """
        await in_thread(changes.cancel, self._store, name, ids)
        await in_thread(self._audit.record, batch_event(EventKind.BATCH_CANCELLED, name, ids))
        return await self.view(name)

    async def review(self, name: str, shot_id: str, decide: Callable[[ShotRecord], Decision]) -> None:
        """Store a decision about a shot, with its entry in the audit log and its event.

        Args:
            decide: returns the checked decision for the record of the shot.

        Raises:
            BatchNotFoundError: there is no such batch or shot.
            InvalidRequestError: from `decide`.
        """
        await in_thread(changes.ask_cluster, self._store, await in_thread(self._store.facts, name))
        record = await in_thread(self._store.record, name, shot_id)
        decision = await in_thread(self._store.decide, name, decide(record))
        # As with other changes of a batch, the entry follows the change. The event is written with the entry.
        await in_thread(self._reviews.add_ended, REVIEW, ReviewRequest(batch=name, decision=decision).model_dump_json().encode())

    async def retry(
        self, name: str, ids: Sequence[str], *, rejected: bool = False, options: ShotOptions = changes.NO_OPTIONS
    ) -> BatchView:
        """Let shots of a batch begin anew; without ids, all in TO_RETRY.

        Args:
            name: name of the batch.
            ids: shots that are named.
            rejected: the shots whose present videos are rejected too. If there are none and no shot is named, nothing begins.
            options: other options for the one named shot.

        Raises:
            BatchNotFoundError: there is no such batch or shot.
            InvalidRequestError: a named shot is running, an option is wrong, or the batch belongs to another engine.
        """
        store, facts = self._store, await in_thread(self._store.facts, name)
        if rejected:
            ids = list(dict.fromkeys([*ids, *await in_thread(changes.rejected, store, facts)]))
            if not ids:
                return await self.view(name)
        if facts.engine not in ("gateway", "kubernetes"):
            raise InvalidRequestError(
                f"batch {name} belongs to the engine {facts.engine}: retry its shots with `dubstage batch retry`", field="batch_id"
            )
        await in_thread(changes.check_options, store, name, ids, options, ActorLookup(self._actors).method_of)
        if facts.engine == "kubernetes":
            await in_thread(changes.retry_in_cluster, store, name, ids, options)
        else:
            await in_thread(changes.begin_anew, store, name, ids, options)
        await in_thread(self._audit.record, batch_event(EventKind.BATCH_RETRIED, name, ids, options=options))
        await self._work_on(facts, check_videos=False)
        return await self.view(name)

    async def remove(self, name: str) -> None:
        """Remove a batch whose shots have all ended. The videos stay.

        Raises:
            BatchNotFoundError: there is no such batch.
            InvalidRequestError: shots are left, or a submission of the batch runs on this machine.
            OverloadedError: a gateway still looks at the videos of the batch.
        """
        await self._left_alone(name)
        await in_thread(changes.remove, self._store, name)
        await in_thread(self._audit.record, batch_event(EventKind.BATCH_REMOVED, name))

    def scratch_folder(self) -> AbstractAsyncContextManager[Path]:
        """Give an empty folder, and remove the folder at the end."""
        return entered_in_threads(self._handler.worker_context.scratch_folder())

    async def _revise(self, manifest: Manifest, engine: Engine) -> None:
        """Let a batch take over changed rows of a manifest (`BatchStore.revise`).

        If all shots have ended, wait first until no gateway looks at their videos.

        Raises:
            InvalidRequestError: the changed rows cannot be taken over.
            OverloadedError: a gateway still looks at the videos of the batch.
        """
        before = await in_thread(self._store.find, manifest.name)
        if before is None or before.manifest_sha256 == manifest.sha256:
            return
        await self._left_alone(manifest.name)
        await in_thread(changes.revise, self._store, manifest, engine)

    async def _left_alone(self, name: str) -> None:
        """Wait as `_until_left_alone`, at most `_END_S`.

        Raises:
            OverloadedError: a gateway still works on the batch.
        """
        try:
            async with asyncio.timeout(_END_S):
                await self._until_left_alone(name)
        except TimeoutError:
            raise OverloadedError(f"a gateway still looks at batch {name}: try again", retry_after_s=5.0) from None

    async def _until_left_alone(self, name: str) -> None:
        """Wait until no gateway works on a batch whose shots have all ended. Return at once if shots are left."""
        while True:
            worked_on = await in_thread(self.views.is_worked_on, name)
            if not worked_on or not (await self.view(name)).progress.ended:
                return
            await asyncio.sleep(_POLL_S)

    async def _work_on(self, facts: BatchFacts, *, check_videos: bool, identity: RequestIdentity = NO_REQUEST_ID) -> None:
        """Let a gateway work on the shots that are left, or wait for the Jobs that the cluster has for them."""
        request = BatchRequest(name=facts.name, check_videos=check_videos).model_dump_json().encode()
        runner, kind = (self._cluster_runner, CLUSTER_BATCH) if facts.engine == "kubernetes" else (self._runner, BATCH)
        for output in outputs_of(facts.name):
            try:
                await runner.submit(kind, request, output=output, identity=identity)
                return
            except InvalidRequestError:
                # An operation works on the batch already. If both do, the second will see what has changed.
                continue
