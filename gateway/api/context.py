"""Contexts of a gateway's work: of the process, which all tenants share, and of each tenant.

Gateways with SQLite work in a data folder alone, under the folder's lock. The stages open after the process has begun to listen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import structlog

from gateway.actors.installation import Installation
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.api.errors import ErrorRewriter
from gateway.api.media import Media
from gateway.api.operations import ACTOR, DUB, FACES
from gateway.database.session import Database
from gateway.database.upgrades import head
from gateway.dub.state.removal import delete_unused, remove_job, remove_partial_video
from gateway.engine import Engine
from gateway.live.admission import LiveAdmission
from gateway.media.locations import is_url
from gateway.operations.execution import BegunOperation, Handler
from gateway.operations.runner import Slots
from gateway.operations.store import OperationRecord, unfinished_in
from gateway.private_files import data_folder, folder_error
from gateway.safe_paths import confined_root, entry_of
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES, Stages
from gateway.stages.local import LocalStages
from gateway.stages.opening import open_stages
from gateway.stages.remote import RemoteStages
from gateway.tenants.limits import Limits
from gateway.tenants.long_calls import LongCalls
from gateway.tenants.quota import FairSlots, TenantQuota
from gateway.tenants.register import stored_bytes
from services.common.errors import DubstageError, InvalidRequestError, ModelNotReadyError
from services.common.locks import open_locked
from services.common.store.artefacts import ArtefactStore

_log = structlog.stdlib.get_logger("dubstage.operations")


class OpenedStages:
    """The stages of one gateway process.

    Args:
        settings: settings of the process, with the stages' endpoints.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._stages: Stages | None = None
        self._stack = AsyncExitStack()

    def __call__(self) -> Stages:
        """Return the stages.

        Raises:
            ModelNotReadyError: the stages are not open yet.
        """
        if self._stages is None:
            raise ModelNotReadyError("the gateway is still warming up")
        return self._stages

    @property
    def busy(self) -> bool:
        """Whether a stage in this process still computes."""
        return isinstance(self._stages, LocalStages) and self._stages.busy

    async def open(self) -> None:
        """Open the stages.

        Raises:
            DubstageError: a stage cannot be reached, or does not warm up.
        """
        opening = open_stages(self._settings, connect_s=self._settings.stages_start_s, warm_up=True)
        self._stages = await self._stack.enter_async_context(opening)

    async def close(self) -> None:
        """Close the stages."""
        await self._stack.aclose()

    async def serving(self, names: Collection[str] = STAGE_NAMES) -> Stages:
        """Return the stages, as soon as those with some names serve.

        A stage that rests has no replica. Starting a replica for the work takes longer than retries of single calls.

        Raises:
            ModelNotReadyError: the stages are not open yet.
            BackendUnavailableError: a stage does not serve within `stages_start_s`.
        """
        stages = self()
        if isinstance(stages, RemoteStages):
            await stages.wait_until_serving(self._settings.stages_start_s, names)
        return stages

    def once_serving(self, handler: Handler, names: Collection[str] = STAGE_NAMES) -> Handler:
        """Return a handler that waits until the stages with some names serve, and then does the work of `handler`."""

        async def run(operation: BegunOperation) -> bytes:
            await self.serving(names)
            return await handler(operation)

        return run


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Objects that the tenants of one gateway process share.

    Attributes:
        settings: settings of the process, with the locations of the default tenant.
        stages: the stages of the process.
        jobs: slots of dubs and enrolments.
        shots: slots of shots of batches.
        live: decides which live streams run.
        long_calls: calls that wait, watch, estimate or send reports.
        limits: limits of all tenants.
    """

    settings: GatewaySettings
    stages: OpenedStages
    jobs: Slots
    shots: FairSlots
    live: LiveAdmission
    long_calls: LongCalls
    limits: Limits

    @classmethod
    def of(cls, settings: GatewaySettings, stages: OpenedStages) -> Self:
        """Return what the settings of a process allow to all tenants together.

        Raises:
            InvalidRequestError: the file of limits cannot be used.
        """
        return cls(
            settings,
            stages,
            jobs=Slots(settings.max_concurrent_jobs),
            shots=FairSlots(settings.max_batch_shots),
            live=LiveAdmission(settings.max_live_streams, settings.max_live_frame_ms / 1000),
            long_calls=LongCalls(settings.max_concurrent_rpcs),
            limits=Limits(settings.tenant_limits_file),
        )


@dataclass(frozen=True, slots=True)
class TenantContext:
    """Engine, locations and limits that the operations of a tenant work with.

    Attributes:
        engine: dubs for the tenant, with the tenant's stores.
        media: files and objects that callers may name.
        names: rewrites results and errors that name the server's files.
        quota: limits of the tenant.
    """

    engine: Engine
    media: Media
    names: ErrorRewriter
    quota: TenantQuota

    async def abandon(self, record: OperationRecord) -> None:
        """Remove what a cancelled operation has left: job folder, blobs that nothing else counts, partial file of the output."""
        await asyncio.to_thread(self._abandon, record)

    def _abandon(self, record: OperationRecord) -> None:
        self._give_up_folders(record)
        if record.output and not is_url(record.output):
            output = Path(os.path.abspath(record.output))
            if confined_root(output) is not None:
                remove_partial_video(output)
            else:
                _log.warning("output_outside_of_media_kept", operation=record.name, output=record.output)

    async def forget_others(self, record: OperationRecord) -> None:
        """Remove what other processes have left of an operation that succeeded here: job folders, and blobs that nothing counts.

        The folder of a process that still works there stays. That process removes the folder when it finds that it has lost the
        operation. Errors go to the log: the work is done.
        """
        try:
            await asyncio.to_thread(self._give_up_folders, record)
        except (DubstageError, OSError) as problem:
            _log.warning("folders_not_removed", operation=record.name, problem=str(problem))

    def _give_up_folders(self, record: OperationRecord) -> None:
        engine = self.engine
        ledger = JobLedger(engine.actors)
        for stored in engine.actors.jobs.folders_of(record.name):
            folder = Path(stored)
            if entry_of(engine.jobs, stored) is None:
                # The folder is on the disk of another gateway, which removes the folder, or the path is wrong.
                _log.info("folder_outside_of_jobs_kept", operation=record.name, folder=stored, jobs=str(engine.jobs))
            elif remove_job(folder, ledger, engine.artefacts) is not None or folder.is_dir():
                continue
            delete_unused(folder, ledger.release(folder), ledger, engine.artefacts)


def lock_data_folder(folder: Path, *, together: bool) -> int:
    """Lock a data folder against other gateways, and return the open lock file.

    The lock ends with the process, however the process ends.

    Args:
        folder: the data folder.
        together: whether gateways that share a database may work in the folder together.

    Raises:
        InvalidRequestError: another gateway works in the folder.
        StorageRefusedError: the folder cannot be used.
    """
    data_folder(folder)
    try:
        handle = open_locked(folder / "gateway.lock", shared=together)
    except OSError as problem:
        raise folder_error(folder, problem) from problem
    if handle is None:
        raise InvalidRequestError(
            f"another gateway works in {folder}: end it, or set DUBSTAGE_DATA_DIR to another folder; only gateways that share a "
            "PostgreSQL may share a folder",
            field="DUBSTAGE_DATA_DIR",
        )
    return handle


def quota_of(limits: Limits, database: Database) -> TenantQuota:
    """Return the quota of a tenant.

    Args:
        limits: limits of all tenants.
        database: database of the tenant.
    """
    return TenantQuota(
        database.tenant,
        limits,
        stored_bytes=partial(stored_bytes, database),
        unfinished=partial(unfinished_in, database, (DUB, ACTOR, FACES)),
    )


class TenantStorage:
    """Data folder and database, until `close`. With SQLite, both are locked against other gateways.

    Attributes:
        context: what the operations work with.

    Args:
        settings: settings of the process, with the locations of the tenant.
        limits: limits of all tenants.
        beside: another tenant's, whose connections to the database are used; None: there are none yet.

    Raises:
        InvalidRequestError: another gateway works in the data folder or with the SQLite file, or the media folder or the keys of
            consent records cannot be used.
        StorageRefusedError, BackendUnavailableError: the data folder or the database cannot be used.
    """

    def __init__(self, settings: GatewaySettings, limits: Limits, *, beside: TenantStorage | None = None) -> None:
        self._lock: int | None = lock_data_folder(settings.data_dir, together=settings.database_may_be_shared)
        self._actors: ActorStore | None = None
        self._media: Media | None = None
        try:
            others = beside.context.engine.actors if beside is not None else None
            self._actors = actors = ActorStore(settings, beside=others)
            before, after = actors.database.opened_revision, head()
            if before not in {"", after}:
                _log.info("tables_upgraded", database=actors.database.where, before=before, after=after)
            actors.consents.check_settings()
            actors.database.claim()
            artefacts = ArtefactStore(settings.artefacts_url)
            self._media = media = Media.of(settings)
            engine = Engine.of(Installation(settings, actors, artefacts))
            # A key that cannot be used ends the start of the gateway, not the first dub.
            engine.sealer()
            self.context: TenantContext = TenantContext(
                engine=engine,
                media=media,
                names=ErrorRewriter(settings, actors.database.where, artefacts.url),
                quota=quota_of(limits, actors.database),
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database, and let other gateways use the data folder. Blocks."""
        if self._media is not None:
            self._media.close()
        if self._actors is not None:
            self._actors.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
