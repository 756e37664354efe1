"""One dub of a shot, from the row of the manifest to the figures of the film."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from gateway.actors.ledger import JobLedger
from gateway.actors.watch import FORBIDDEN, dub_while_allowed
from gateway.ahead import in_thread
from gateway.batch.bench import Bench
from gateway.batch.figures import figures_while_allowed
from gateway.batch.shot_request import shot_request
from gateway.batch.transitions import Made
from gateway.batch.twins import when_free, without_twins
from gateway.batch.types import Shot
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.progress import OnProgress
from gateway.stages.interface import Stages
from services.common.errors import DubstageError

_log = structlog.stdlib.get_logger("dubstage.batch")


class ShotDub:
    """The dub of one shot.

    Args:
        bench: what the worker dubs with.
        shot: row of the manifest.
        on_progress: called with every frame and step.
        confirm: raises Cancelled if another process has taken the shot over; blocks. Called before the film gets its place.
        batch: name of the batch in the audit log; empty: none.
        row: row of the shot in the batch, from 0, in the audit log.
    """

    def __init__(
        self,
        bench: Bench,
        shot: Shot,
        on_progress: OnProgress,
        confirm: Callable[[], None] = lambda: None,
        *,
        batch: str = "",
        row: int = 0,
    ) -> None:
        self._bench = bench
        self._batch = batch
        self._row = row
        self._shot = shot
        self._on_progress = on_progress
        self._confirm = confirm
        self._job: DubJob | None = None
        self._ledger: JobLedger | None = None
        self._film_there = False

    async def run(self) -> Made:
        """Dub the shot, and return the figures of the film. The job's folder stays until `discard`.

        A run that fails leaves what `dubstage dub` leaves, so that the next attempt on this machine goes on from there.

        Raises:
            DubstageError: the request was refused, or the dub failed. No output is left.
        """
        return await when_free(self._once)

    async def _once(self) -> Made:
        bench = self._bench
        async with shot_request(bench, self._shot) as request, without_twins(bench, self._shot, request):
            stages, place = await bench.stages(), bench.place
            ledger = JobLedger(place.actors, self._shot.actor or "", consents=request.consents, confirm=self._confirm)
            sealer = await bench.sealer()
            job = DubJob(
                request, stages, place.artefacts, bench.jobs, ledger, max_bytes=bench.settings.max_job_bytes, sealer=sealer
            )
            self._job, self._ledger = job, ledger
            # The folder stays locked until the film is measured: a worker that removes the folder of a twin comes later.
            with job:
                return await self._dubbed(request, job, stages, ledger)

    async def _dubbed(self, request: DubRequest, job: DubJob, stages: Stages, ledger: JobLedger) -> Made:
        """Dub the shot, and return the figures of the film, which are measured while the job's folder is open."""
        async with ledger.recorded(request.method, batch=self._batch, row=self._row) as record:
            outcome = await dub_while_allowed(job, ledger.check, self._on_progress)
            self._film_there = True
            await record.film(request.output, outcome.watermark)
            self._on_progress("measure", 0, 1)
            try:
                # A film whose measurement is interrupted is dubbed again: its end is recorded once, behind the measurement.
                return await figures_while_allowed(request, outcome, job.workspace, stages, ledger.check)
            except FORBIDDEN:
                # As of a dub whose actor is erased or whose consent ends meanwhile, nothing is kept.
                await self.withdraw()
                raise

    def check(self) -> None:
        """Check that the person may be shown. Blocks.

        Raises:
            ActorNotReady: the actor was erased meanwhile.
            ConsentRefused: the consent has ended.
        """
        if self._ledger is not None:
            self._ledger.check()

    async def withdraw(self) -> None:
        """Remove the film, if this run has written it, and what the dub keeps for another run."""
        if self._job is not None and self._film_there:
            await in_thread(self._job.remove_film)
        await self.discard()

    async def discard(self) -> None:
        """Remove what the dub keeps for another run. The film stays. Errors go to the log."""
        if self._job is None:
            return
        try:
            await in_thread(self._job.discard)
        except (DubstageError, OSError) as problem:
            _log.warning("job_not_removed", shot=self._shot.id, problem=str(problem))
