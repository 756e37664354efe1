"""Dubs in this process, for the command line and for `dubstage.dub`: with the stores of the settings, and without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.actors.installation import Installation, open_installation, prepared_request
from gateway.actors.ledger import JobLedger
from gateway.actors.watch import dub_while_allowed
from gateway.api.convert import dub_request_from, result_message
from gateway.api.resources import actor_id_of
from gateway.dub.job import DubJob
from gateway.dub.outcome import DubOutcome
from gateway.dub.progress import OnFootage, OnProgress
from gateway.dub.request import DubRequest
from gateway.dub.workspace import Workspace
from gateway.housekeeping import expire, open_jobs_folder
from gateway.provenance.binding import media_sha256
from gateway.reports.folder import check_report_folder
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.tenants.paths import settings_of
from services.common.errors import DubstageError
from services.common.server.settings import load_settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FinishedDub:
    """A dub whose video is written, with what a report needs.

    Attributes:
        outcome: result of the dub.
        workspace: the open folder of the job, which has the records.
        stages: the open stages.
    """

    outcome: DubOutcome
    workspace: Workspace
    stages: Stages


@asynccontextmanager
async def finished_dub(
    request: DubRequest,
    installation: Installation,
    on_progress: OnProgress,
    on_footage: OnFootage = lambda frames, megapixels: None,
) -> AsyncIterator[FinishedDub]:
    """Dub, and keep the folder of the job and the stages open inside the block. Old jobs are removed at the end.

    Args:
        request: the prepared request (`prepared_request`).
        installation: the open stores.
        on_progress: called with every frame and step.
        on_footage: called with the number of frames of the footage, and the million pixels of a frame.

    Raises:
        DubstageError: the dub failed.
    """
    settings = installation.settings
    jobs = open_jobs_folder(settings.data_dir)
    sealer = await asyncio.to_thread(installation.sealer)
    async with installation.stages() as stages:
        first, *more = request.actor_ids or ("",)
        ledger = JobLedger(installation.actors, first, more_actors=more, consents=request.consents)
        job = DubJob(request, stages, installation.artefacts, jobs, ledger, max_bytes=settings.max_job_bytes, sealer=sealer)
        job.on_footage = on_footage
        with job:
            async with ledger.recorded(request.method) as record:
                outcome = await dub_while_allowed(job, ledger.check, on_progress)
                await record.video(request.output, outcome.watermark)
            try:
                yield FinishedDub(outcome, job.workspace, stages)
            finally:
                # The video is finished, so the job folder is not needed again, even if a report fails. The folder of a scene stays
                # until it expires, so that a line can be changed.
                if not request.lines:
                    job.discard()
        # The video is done, whatever becomes of old jobs. The next dub tries again.
        with suppress(DubstageError, OSError):
            await asyncio.to_thread(expire, settings, installation.actors, installation.artefacts, jobs)


class LocalFiles:
    """Files of this machine for the names of a request: paths as the caller writes them."""

    def source(self, uri: str, field: str) -> Path:
        """Return the path of a file that is read."""
        return Path(uri)

    def output(self, uri: str, field: str) -> Path:
        """Return the path of a file that is written."""
        return Path(uri)


def dub(
    message: pb.CreateDubRequest,
    report: Path | None,
    on_progress: OnProgress,
    on_footage: OnFootage = lambda frames, megapixels: None,
) -> tuple[pb.DubResult, Path | None]:
    """Dub as CreateDub does, with paths of this machine in place of names in the media folder. Blocks.

    Works inside a running event loop too, such as that of a notebook.

    Args:
        message: the request.
        report: folder of an HTML report; None: no report is written.
        on_progress: called with every frame and step, maybe in another thread.
        on_footage: called with the number of frames of the footage, and the million pixels of a frame, in the same thread.

    Returns:
        The result, and the page of the report; None: there is none.

    Raises:
        DubstageError: the request was refused, or the dub failed.
    """
    return _run(lambda: _dub(message, report, on_progress, on_footage))


async def _dub(
    message: pb.CreateDubRequest, report: Path | None, on_progress: OnProgress, on_footage: OnFootage
) -> tuple[pb.DubResult, Path | None]:
    settings = load_settings(GatewaySettings)
    settings = settings_of(settings, settings.tenant)
    actor_id = actor_id_of(message.actor, "actor") or None
    with open_installation(settings) as installation:
        actor = await asyncio.to_thread(installation.actors.get, actor_id) if actor_id is not None else None
        request = dub_request_from(message, LocalFiles(), actor, threads=settings.compute_threads)
        request = await prepared_request(request, installation, actor_id, request.method)
        page = None
        if report is not None:
            mix = request.mix.file if request.mix is not None else None
            spoken = [part.speech for part in request.parts]
            files = (request.footage, *spoken, mix, request.reference, request.output)
            check_report_folder(report, [file for file in files if file is not None])
        on_progress("start", 0, 1)
        async with finished_dub(request, installation, on_progress, on_footage) as done:
            result = result_message(message.output_uri, request, done.outcome)
            result.media_sha256 = await asyncio.to_thread(media_sha256, request.output)
            if report is not None:
                from gateway.reports.dub_report import write_outcome_report

                page = await write_outcome_report(
                    request, done.outcome, done.workspace, done.stages, installation.artefacts, report, on_progress=on_progress
                )
    return result, page


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, in a thread of its own if this thread's event loop runs. Ctrl-C cancels the coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    task: asyncio.Task[T] | None = None

    async def main() -> T:
        nonlocal task
        task = asyncio.ensure_future(work())
        return await task

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(lambda: asyncio.run(main()))
        try:
            return future.result()
        except KeyboardInterrupt:
            if task is not None:
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise
