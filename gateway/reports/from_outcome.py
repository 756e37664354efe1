"""Report of a finished dub: pictures, curves and facts from the job's folder, the footage and the output."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import numpy as np

from gateway.dub.messages import reason_name
from gateway.dub.outcome import DubOutcome
from gateway.dub.request import DubRequest, consents, what_is_synthetic
from gateway.dub.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.types import MediaInfo
from gateway.reports.dub_report import write_dub_report
from gateway.reports.film_pictures import cut_around, pictures_of, side_by_side, sound_of, sound_rate_of
from gateway.reports.fitting_sheet import TrackedPicture, fitting_sheet
from gateway.reports.job_records import boxes_of, commanded_opening, head_motion_of, motion_of
from gateway.reports.pictures import reduced
from gateway.reports.tracked_output import TrackedOutput, track_output
from gateway.reports.types import BeforeAfter, DubReport, Fact, SideBySide
from gateway.stages.interface import Stages
from services.common.array_types import Float32, UInt8
from services.common.face.identity import identity_from_arrays, model_of_identity
from services.common.geometry.morphable_model import default_model
from services.common.store.artefacts import ArtefactStore
from services.common.wire.messages import ref_from_proto

PAIRS: Final = 8
FITTED: Final = 3
"""Number of frames on which the face model is shown."""
FRAME_HEIGHT: Final = 240


async def write_report(
    request: DubRequest, outcome: DubOutcome, workspace: Workspace, stages: Stages, store: ArtefactStore, folder: Path
) -> Path:
    """Write the report of a dub to `folder`/index.html, and return the path of the page.

    Args:
        request: the dub request.
        outcome: its result.
        workspace: the open folder of the job, which has the records.
        stages: the stages, which track the output.
        store: holds the actor's identity.
        folder: gets the page and its pictures, all of them or none.

    Raises:
        InvalidRequest, StorageFull: `folder` cannot be written.
        DubstageError: a film cannot be read, or a stage failed.
    """
    result = await asyncio.to_thread(probe, request.output)
    chosen = _chosen(outcome)
    boxes = await asyncio.to_thread(boxes_of, outcome, workspace, chosen)
    before = await asyncio.to_thread(pictures_of, outcome.film, set(chosen))
    after = await asyncio.to_thread(pictures_of, result, set(chosen))
    tracked = await track_output(stages, result, outcome, boxes, chosen)
    commanded = await asyncio.to_thread(commanded_opening, outcome, workspace)
    times = outcome.film.video
    labels = {frame: f"frame {frame}, {float((times.pts[frame] - times.pts[0]) * times.time_base):.2f} s" for frame in chosen}
    report = DubReport(
        title=request.output.name,
        input=[
            *_facts(outcome.info, request.footage.name),
            *([Fact("reference", request.reference.name)] if request.reference is not None else []),
        ],
        output=[*_facts(result, request.output.name), *(Fact("carried over", text) for text in outcome.written.carried)],
        consent=consents(request),
        has_consent=request.named_consent is not None,
        method=request.method,
        synthetic=what_is_synthetic(request, dubbed=bool(outcome.plan.rendered().any())),
        reasons=[reason_name(number) for number in outcome.plan.reason],
        frame_rate=times.average_rate,
        mask_area_share=_mask_share(outcome),
        lag_frames=outcome.actor.lag_frames if outcome.actor is not None else None,
        times=outcome.times,
        pairs=[
            BeforeAfter(labels[frame], cut_around(before[frame], boxes[frame]), cut_around(after[frame], boxes[frame]))
            for frame in chosen
        ],
        frames=[(labels[frame], reduced(after[frame], FRAME_HEIGHT)) for frame in chosen],
        fitting=await asyncio.to_thread(_fitting, outcome, store, after, tracked),
        head_motion=await asyncio.to_thread(head_motion_of, request, outcome, workspace),
        commanded_opening=commanded,
        tracked_opening=tracked.opening if tracked is not None else None,
        motion=await asyncio.to_thread(motion_of, outcome, workspace),
        video=SideBySide(
            pictures=side_by_side(outcome.film, result),
            frame_rate=times.average_rate,
            speech=await asyncio.to_thread(sound_of, result),
            sample_rate_hz=sound_rate_of(result),
        ),
        undubbed=outcome.undubbed,
        warnings=outcome.warnings,
    )
    return await asyncio.to_thread(write_dub_report, report, folder)


def _chosen(outcome: DubOutcome) -> list[int]:
    """Return the rendered frames that the report shows, evenly spread."""
    (rendered,) = np.nonzero(outcome.plan.rendered())
    if len(rendered) == 0:
        return []
    return list(dict.fromkeys(int(frame) for frame in rendered[np.linspace(0, len(rendered) - 1, PAIRS).astype(int)]))


def _fitting(outcome: DubOutcome, store: ArtefactStore, pictures: dict[int, UInt8], tracked: TrackedOutput | None) -> UInt8 | None:
    """Return the face model of the person drawn on frames of the output; None: there is no identity of the default model."""
    if tracked is None or outcome.actor is None or outcome.actor.identity is None:
        return None
    stored = store.get_arrays(ref_from_proto(outcome.actor.identity, "identity"))
    if model_of_identity(stored) != default_model().name:
        return None
    frames = [frame for frame in pictures if frame in tracked.landmarks]
    shown = [frames[place] for place in np.linspace(0, len(frames) - 1, min(FITTED, len(frames))).astype(int)]
    return fitting_sheet(
        identity_from_arrays(stored, default_model()),
        [TrackedPicture(pictures[frame], tracked.landmarks[frame]) for frame in shown],
    )


def _facts(info: MediaInfo, name: str) -> list[Fact]:
    video = info.video
    width, height = video.orientation.upright_size
    facts = [
        Fact("file", name),
        Fact("container", info.container),
        Fact("picture", f"{video.codec}, {width} x {height}, {video.stored_format}"),
        Fact("frames", f"{video.num_frames} at {float(video.average_rate):.3f} a second ({float(video.duration):.2f} s)"),
    ]
    sounds = [f"{audio.codec}, {audio.sample_rate_hz} Hz, {audio.channels} ch" for audio in info.audio]
    return [*facts, Fact("sound", "; ".join(sounds) or "none")]


def _mask_share(outcome: DubOutcome) -> Float32:
    video = outcome.film.video
    return np.asarray(outcome.facts.mask_area_px / (video.width * video.height), np.float32)
