"""The work of CreateDub's operations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.ledger import JobLedger
from gateway.actors.watch import dub_while_allowed
from gateway.api.dub_messages import result_message
from gateway.api.job_context import JobContext
from gateway.operations.job import Job
from gateway.pipeline.dub import DubJob
from gateway.pipeline.progress import OnProgress
from gateway.provenance.media_digest import media_sha256
from gateway.stages.interface import Stages


class DubJobs:
    """Handler of CreateDub's operations.

    Args:
        context: what the operations work with.
        stages: returns the opened stages.
    """

    def __init__(self, context: JobContext, stages: Callable[[], Stages]) -> None:
        self._context = context
        self._stages = stages
        self._running: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, job: Job) -> bytes:
        """Dub a film; return the serialised DubResult. A resumed job goes on after its finished windows."""
        message = pb.CreateDubRequest.FromString(job.record.request)
        context = self._context
        async with context.media.opened() as media:
            request = await context.dub_request(message, media)
            ledger = JobLedger(context.actors, message.actor_id, job.record.name, consents=request.consents, confirm=job.confirm)
            report = DubReporter(job, context.gate.counting())
            await media.fetch(report, max_bytes=context.max_job_bytes, confirm=job.confirm)
            dub = DubJob(
                request,
                self._stages(),
                context.artefacts,
                context.jobs,
                ledger,
                max_bytes=context.max_job_bytes,
                sealer=context.sealer,
                operation=job.record.name,
                takes_over=job.resumed,
            )
            async with self._alone(message):
                # A dub that fails or is interrupted keeps its finished windows. The runner removes what a cancelled dub has left.
                # An erasure cancels the operation.
                outcome = await dub_while_allowed(dub, ledger.check_consent, report)
                film_sha256 = await asyncio.to_thread(media_sha256, request.output)
                await media.deliver(report, overwrite=message.overwrite, confirm=lambda: _may_still_be_shown(job, ledger))
                await asyncio.to_thread(dub.discard)
        if job.resumed:
            await context.forget_others(job.record)
        result = result_message(message.output_uri, request, outcome)
        result.media_sha256 = film_sha256
        result.warnings[:] = [context.names.told(media.told(warning)) for warning in result.warnings]
        result.undubbed = context.names.told(media.told(result.undubbed))
        return result.SerializeToString()

    def _alone(self, message: pb.CreateDubRequest) -> asyncio.Lock:
        """Return the lock of a dub. The same dub to two outputs has one job folder, so the two run one after the other."""
        same = pb.CreateDubRequest()
        same.CopyFrom(message)
        for field in ("output_uri", "overwrite", "consent", "reference_consent", "project", "language"):
            same.ClearField(field)
        return self._running.setdefault(same.SerializeToString(deterministic=True), asyncio.Lock())


def _may_still_be_shown(job: Job, ledger: JobLedger) -> None:
    """Check before a film leaves this machine that the operation is still this gateway's, and that the consent holds."""
    job.confirm()
    ledger.check_consent()


class DubReporter:
    """Reports a dub's progress to its operation as DubProgress.

    Args:
        job: the operation.
        count: called with every frame and step too.
    """

    def __init__(self, job: Job, count: OnProgress = lambda *_: None) -> None:
        self._job = job
        self._count = count
        self._stage = ""
        self._began = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report one frame or step."""
        self._count(stage, done, total)
        if stage != self._stage:
            self._stage, self._began = stage, time.monotonic()
        spent = time.monotonic() - self._began
        progress = pb.DubProgress(
            stage=stage, frames_done=done, frames_total=total, frames_per_second=done / spent if spent > 0.2 else 0.0
        )
        self._job.report(progress.SerializeToString())
