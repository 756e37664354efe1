"""Figures of a film that a dub has written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.actors.watch import while_allowed
from gateway.ahead import in_thread
from gateway.batch.opening import opening_correlation
from gateway.batch.thumbnail import thumbnail_of
from gateway.batch.transitions import Made
from gateway.batch.types import ShotMotion
from gateway.media.probe import probe
from gateway.media.types import MediaInfo
from gateway.pipeline.dub_files import sha256_of
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.outcome import DubOutcome
from gateway.pipeline.workspace import Workspace
from gateway.reports.job_records import motion_of
from gateway.stages.interface import Stages
from services.common.errors import Cancelled, DubstageError


async def figures_while_allowed(
    request: DubRequest, outcome: DubOutcome, workspace: Workspace, stages: Stages, check: Callable[[], None]
) -> Made:
    """Measure the film of a dub as `figures_of`. The measurement ends as soon as the actor is erased or the consent ends.

    Args:
        request: the dub request.
        outcome: result of the dub.
        workspace: the open folder of the job.
        stages: the stages, which track the film.
        check: blocks, and raises an error if the actor was erased or the consent has ended.

    Raises:
        ActorNotReady, ConsentRefused: from `check`.
        DubstageError: the film cannot be read.
    """
    try:
        made = await while_allowed(check, figures_of(request, outcome, workspace, stages))
    except Exception:
        await in_thread(check)
        raise
    await in_thread(check)
    return made


async def figures_of(request: DubRequest, outcome: DubOutcome, workspace: Workspace, stages: Stages) -> Made:
    """Measure the film of a dub, whose job's folder is open.

    If the stages cannot track the film, the film is good all the same: the correlation is left out, and a warning says why.

    Raises:
        DubstageError: the film cannot be read.
    """
    film = await asyncio.to_thread(probe, request.output)
    r_opening, unmeasured = await _measured(stages, film, outcome, workspace)
    rendered = outcome.plan.rendered()
    motion = await asyncio.to_thread(motion_of, outcome, workspace)
    return Made(
        frames=outcome.plan.num_frames,
        frames_by_reason=outcome.plan.counts(),
        frames_dubbed=int(rendered.sum()),
        output_sha256=await asyncio.to_thread(sha256_of, request.output),
        method=request.method,
        r_opening=r_opening,
        motion=ShotMotion.of(motion) if motion is not None else None,
        warnings=(*outcome.warnings, *outcome.written.dropped, *unmeasured),
        undubbed=outcome.undubbed,
        thumbnail=await asyncio.to_thread(thumbnail_of, film, rendered),
    )


async def _measured(
    stages: Stages, film: MediaInfo, outcome: DubOutcome, workspace: Workspace
) -> tuple[float | None, tuple[str, ...]]:
    """Return the correlation of wanted and shown opening, and a warning if the stages could not track the film."""
    try:
        return await opening_correlation(stages, film, outcome, workspace), ()
    except Cancelled:
        raise
    except DubstageError as problem:
        return None, (f"the correlation of wanted and shown mouth opening was not measured: {problem.message}",)
