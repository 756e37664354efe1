"""Tracking of a dub's output, which shows whether the mouths came out as wanted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gateway.dub.analysis import track_footage
from gateway.dub.outcome import DubOutcome
from gateway.dub.workspace import Workspace
from gateway.media.types import MediaInfo
from gateway.reports.film_pictures import MOST_FRAMES
from gateway.reports.job_records import Box
from gateway.stages.interface import Stages
from services.common.array_types import Float32
from services.common.face.landmarks import mouth_opening


@dataclass(frozen=True, slots=True)
class TrackedOutput:
    """Tracked output.

    Attributes:
        opening: float32 [T], opening of the mouth, crop pixels.
        landmarks: landmarks of the chosen frames, float32 [478, 3] each.
    """

    opening: Float32 = field(repr=False)
    landmarks: dict[int, Float32] = field(repr=False)


async def track_output(
    stages: Stages, result: MediaInfo, outcome: DubOutcome, boxes: dict[int, Box], chosen: list[int]
) -> TrackedOutput | None:
    """Track the output of a dub, and return what is found of the dubbed face; None: the film is too long, or nothing is dubbed.

    Args:
        stages: the stages.
        result: the output.
        outcome: result of the dub.
        boxes: face box of each chosen frame.
        chosen: frames that the report shows.

    Raises:
        DubstageError: from the face stage.
    """
    total = outcome.plan.num_frames
    if not boxes or total > MOST_FRAMES:
        return None
    opening = np.full(total, np.nan, np.float32)
    landmarks: dict[int, Float32] = {}
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, result, workspace, threads=2, on_frame=lambda _: None)
        # In a film with its own timeline, faces may have other ids, so the target is the face nearest to the chosen box.
        left, top, width, height = boxes[chosen[0]]
        (there,) = np.nonzero(index.frame == chosen[0])
        if not len(there):
            return TrackedOutput(opening, landmarks)
        distance = np.linalg.norm(index.centre[there] - np.array([left + width / 2, top + height / 2]), axis=1)
        rows = index.rows_of(int(index.face_id[there[np.argmin(distance)]]))
        for frame in np.nonzero(rows >= 0)[0]:
            (record,) = workspace.faces.read(int(rows[frame]), int(rows[frame]) + 1)
            opening[frame] = mouth_opening(record["mouth"][None])[0]
            if int(frame) in boxes:
                landmarks[int(frame)] = record["landmarks"].copy()
    return TrackedOutput(opening, landmarks)
