"""A dub of the command line, from the checked arguments to the film."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from gateway.actors.installation import open_installation, prepared_request
from gateway.actors.ledger import JobLedger
from gateway.actors.watch import dub_while_allowed
from gateway.cli.dub_result import save_report, show_outcome
from gateway.cli.progress import StepProgress
from gateway.dub.job import DubJob
from gateway.dub.request import DubRequest
from gateway.housekeeping.cleaning import expire
from gateway.housekeeping.jobs import open_jobs_folder
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError


async def run_dub(
    settings: GatewaySettings, request: DubRequest, actor_id: str | None, method: str | None, report: Path | None
) -> None:
    """Dub the footage, write the report, and print the result.

    Args:
        settings: settings of the command.
        request: the dub request of the command line.
        actor_id: actor to dub; None: the dub learns the person from the footage.
        method: method that the command line names; None: the method that the actor was enrolled for.
        report: folder of the report; None: no report is written.

    Raises:
        DubstageError: the request was refused, or the dub failed.
    """
    jobs = open_jobs_folder(settings.data_dir)
    with open_installation(settings) as place:
        request = await prepared_request(request, place, actor_id, method)
        sealer = await asyncio.to_thread(place.sealer)
        with StepProgress() as progress:
            progress.begin("starting the stages")
            async with place.stages() as stages:
                ledger = JobLedger(place.actors, actor_id or "", consents=request.consents)
                job = DubJob(request, stages, place.artefacts, jobs, ledger, max_bytes=settings.max_job_bytes, sealer=sealer)
                with job:
                    async with ledger.recorded(request.method) as record:
                        outcome = await dub_while_allowed(job, ledger.check, progress)
                        await record.film(request.output, outcome.watermark)
                    try:
                        if report is not None:
                            progress.begin("writing the report")
                            await save_report(request, outcome, job.workspace, stages, place.artefacts, report)
                    finally:
                        # The film is finished, so the job folder is not needed again, even if the report fails.
                        job.discard()
                # The film is done, whatever becomes of old jobs. The next dub tries again.
                with suppress(DubstageError, OSError):
                    await asyncio.to_thread(expire, settings, place.actors, place.artefacts, jobs)
    show_outcome(request, outcome, report)
