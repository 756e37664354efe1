"""How well the mouth in a film opens as it was told to: the figure that the report of a dub shows."""

from __future__ import annotations

import math

import numpy as np

from gateway.ahead import in_thread
from gateway.evaluation.mouth_metrics import correlation
from gateway.media.types import MediaInfo
from gateway.pipeline.outcome import DubOutcome
from gateway.pipeline.workspace import Workspace
from gateway.reports.job_records import boxes_of, commanded_opening
from gateway.reports.tracked_output import track_output
from gateway.stages.interface import Stages


async def opening_correlation(stages: Stages, film: MediaInfo, outcome: DubOutcome, workspace: Workspace) -> float | None:
    """Track the film of a dub, and return Pearson's r of the wanted and the shown opening of the mouth over the dubbed frames.

    The result is the figure that the report of the dub shows.

    Args:
        stages: the stages, which track the film.
        film: the film of the dub.
        outcome: result of the dub.
        workspace: the open folder of the job.

    Returns:
        r, -1 to 1; None: fewer than three frames can be compared, or the film is too long to be tracked.

    Raises:
        DubstageError: the film cannot be read, or the face stage failed.
    """
    (rendered,) = np.nonzero(outcome.plan.rendered())
    first = [int(frame) for frame in rendered[:1]]
    boxes = await in_thread(boxes_of, outcome, workspace, first)
    tracked = await track_output(stages, film, outcome, boxes, first)
    if tracked is None:
        return None
    r = correlation(await in_thread(commanded_opening, outcome, workspace), tracked.opening)
    return r if math.isfinite(r) else None
