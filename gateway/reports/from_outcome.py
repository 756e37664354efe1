"""The report of a finished dub: pictures, curves and facts from the job's folder and both films."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.consent import consent_line
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from gateway.methods import method_named
from gateway.pipeline.analysis import track_footage
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.messages import reason_name, ref_from
from gateway.pipeline.outcome import DubOutcome
from gateway.pipeline.records import MOTION_RECORD, RecordFile, pose_of
from gateway.pipeline.workspace import Workspace
from gateway.reports.dub_report import write_dub_report
from gateway.reports.fitting_sheet import TrackedPicture, fitting_sheet
from gateway.reports.pictures import reduced
from gateway.reports.side_by_side import beside
from gateway.reports.types import BeforeAfter, DubReport, Fact, SideBySide
from gateway.stages.interface import Stages
from services.common.artefacts import ArtefactStore
from services.common.face_identity import identity_from_arrays, model_of_identity
from services.common.geometry.default_model import default_model
from services.common.head_pose_vectors import POSE_SIZE, pose_vectors
from services.common.landmarks import mouth_opening

Pixels = npt.NDArray[np.uint8]

PAIRS: Final = 8
FITTED: Final = 3
"""Frames on which the face model is shown."""
FRAME_HEIGHT: Final = 240
MOST_FRAMES: Final = 750
"""Curves, the video and re-tracking stop after this many frames: a report stays small whatever the film's length."""
VIDEO_HEIGHT: Final = 360


@dataclass(frozen=True, slots=True)
class _Retracked:
    """The result, tracked again: opening of the mouth float32 [T], and landmarks float32 [478, 3] of the chosen frames."""

    opening: npt.NDArray[np.float32] = field(repr=False)
    landmarks: dict[int, npt.NDArray[np.float32]] = field(repr=False)


async def write_report(
    request: DubRequest, outcome: DubOutcome, job: DubJob, stages: Stages, store: ArtefactStore, folder: Path
) -> Path:
    """Write `folder`/index.html for a dub whose job folder is still there; returns the page.

    Args:
        request: the dub request.
        outcome: its result.
        job: its working folder.
        stages: track the finished film again.
        store: holds the actor's identity.
        folder: gets the page and its pictures, all of them or none.

    Raises:
        InvalidRequest, StorageFull: `folder` cannot be written.
        DubstageError: a film cannot be read, or a stage failed.
    """
    result = await asyncio.to_thread(probe, request.output)
    chosen = _chosen(outcome)
    boxes = await asyncio.to_thread(_boxes, outcome, job, chosen)
    before = await asyncio.to_thread(_pictures, outcome.film, set(chosen))
    after = await asyncio.to_thread(_pictures, result, set(chosen))
    tracked = await _retracked(stages, result, outcome, boxes, chosen)
    commanded = await asyncio.to_thread(_commanded_opening, outcome, job)
    times = outcome.film.video
    labels = {frame: f"frame {frame}, {float((times.pts[frame] - times.pts[0]) * times.time_base):.2f} s" for frame in chosen}
    report = DubReport(
        title=request.output.name,
        input=_facts(outcome.info, request.footage.name),
        output=[*_facts(result, request.output.name), *(Fact("carried over", text) for text in outcome.written.carried)],
        consent=consent_line(request.consent),
        has_consent=request.consent is not None,
        method=request.method,
        reasons=[reason_name(number) for number in outcome.plan.reason],
        frame_rate=times.average_rate,
        mask_area_share=_mask_share(outcome),
        lag_frames=outcome.actor.lag_frames if outcome.actor is not None else None,
        times=outcome.times,
        pairs=[BeforeAfter(labels[frame], _cut(before[frame], boxes[frame]), _cut(after[frame], boxes[frame])) for frame in chosen],
        frames=[(labels[frame], reduced(after[frame], FRAME_HEIGHT)) for frame in chosen],
        fitting=await asyncio.to_thread(_fitting, outcome, store, after, tracked),
        head_motion=await asyncio.to_thread(_head_motion, request, outcome, job),
        commanded_opening=commanded,
        tracked_opening=tracked.opening if tracked is not None else None,
        video=SideBySide(
            pictures=_both(outcome.film, result),
            frame_rate=times.average_rate,
            speech=await asyncio.to_thread(_sound, result),
            sample_rate_hz=_sound_rate(result),
        ),
        warnings=outcome.warnings,
    )
    return await asyncio.to_thread(write_dub_report, report, folder)


def _chosen(outcome: DubOutcome) -> list[int]:
    """Rendered frames that are shown, evenly spread."""
    (rendered,) = np.nonzero(outcome.plan.rendered())
    if len(rendered) == 0:
        return []
    return list(dict.fromkeys(int(frame) for frame in rendered[np.linspace(0, len(rendered) - 1, PAIRS).astype(int)]))


def _film_faces(outcome: DubOutcome, workspace: Workspace) -> RecordFile:
    """Records of what was dubbed in place: rows of the plan."""
    return workspace.faces if outcome.film.path == outcome.info.path else workspace.backgrounds


def _boxes(outcome: DubOutcome, job: DubJob, chosen: list[int]) -> dict[int, tuple[int, int, int, int]]:
    if job.folder is None:
        return {}
    boxes: dict[int, tuple[int, int, int, int]] = {}
    with Workspace(job.folder) as workspace:
        for frame in chosen:
            row = int(outcome.plan.row[frame])
            left, top, width, height = _film_faces(outcome, workspace).read(row, row + 1)["box"][0]
            boxes[frame] = (int(left), int(top), int(width), int(height))
    return boxes


def _fitting(outcome: DubOutcome, store: ArtefactStore, pictures: dict[int, Pixels], tracked: _Retracked | None) -> Pixels | None:
    """The person's face model on frames of the result; None without an identity of the default model."""
    if tracked is None or outcome.actor is None or outcome.actor.identity is None:
        return None
    stored = store.get_arrays(ref_from(outcome.actor.identity))
    if model_of_identity(stored) != default_model().name:
        return None
    frames = [frame for frame in pictures if frame in tracked.landmarks]
    shown = [frames[place] for place in np.linspace(0, len(frames) - 1, min(FITTED, len(frames))).astype(int)]
    return fitting_sheet(
        identity_from_arrays(stored, default_model()),
        [TrackedPicture(pictures[frame], tracked.landmarks[frame]) for frame in shown],
    )


def _head_motion(request: DubRequest, outcome: DubOutcome, job: DubJob) -> dict[str, npt.NDArray[np.float64]] | None:
    """Head-pose vectors of the film and those that were predicted, where the method moves the head."""
    if job.folder is None or not method_named(request.method).moves_head:
        return None
    with Workspace(job.folder) as workspace:
        predicted = workspace.motion.read(0, MOST_FRAMES)["pose"].copy()
        film = np.full((min(outcome.plan.num_frames, MOST_FRAMES), POSE_SIZE), np.nan)
        for frame in range(len(film)):
            row = int(outcome.plan.row[frame])
            if row >= 0:
                film[frame] = pose_vectors([pose_of(_film_faces(outcome, workspace).read(row, row + 1)[0])])[0]
    return {"film": film, "predicted": predicted}


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


def _mask_share(outcome: DubOutcome) -> npt.NDArray[np.float32]:
    share = np.zeros(outcome.plan.num_frames, np.float32)
    for index, area in outcome.facts.mask_area_px.items():
        share[index] = area / (outcome.film.video.width * outcome.film.video.height)
    return share


def _commanded_opening(outcome: DubOutcome, job: DubJob) -> npt.NDArray[np.float32]:
    opening = np.full(outcome.plan.num_frames, np.nan, np.float32)
    if job.folder is None or outcome.actor is None:
        return opening
    with RecordFile(job.folder / "motion.bin", MOTION_RECORD) as motion:
        mouths = motion.read(0, MOST_FRAMES)["mouth"]
    opening[: len(mouths)] = mouth_opening(mouths)
    opening[~outcome.plan.rendered()] = np.nan
    return opening


async def _retracked(
    stages: Stages, result: MediaInfo, outcome: DubOutcome, boxes: dict[int, tuple[int, int, int, int]], chosen: list[int]
) -> _Retracked | None:
    total = outcome.plan.num_frames
    if not boxes or total > MOST_FRAMES:
        return None
    opening = np.full(total, np.nan, np.float32)
    landmarks: dict[int, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, result, workspace, threads=2, on_frame=lambda _: None)
        # A film with a timeline of its own begins with another frame, so faces may have other ids in it: the target is the nearest.
        left, top, width, height = boxes[chosen[0]]
        (there,) = np.nonzero(index.frame == chosen[0])
        if not len(there):
            return _Retracked(opening, landmarks)
        distance = np.linalg.norm(index.centre[there] - np.array([left + width / 2, top + height / 2]), axis=1)
        rows = index.rows_of(int(index.face_id[there[np.argmin(distance)]]))
        for frame in np.nonzero(rows >= 0)[0]:
            (record,) = workspace.faces.read(int(rows[frame]), int(rows[frame]) + 1)
            opening[frame] = mouth_opening(record["mouth"][None])[0]
            if int(frame) in boxes:
                landmarks[int(frame)] = record["landmarks"].copy()
    return _Retracked(opening, landmarks)


def _pictures(info: MediaInfo, wanted: set[int]) -> dict[int, Pixels]:
    if not wanted:
        return {}
    with VideoReader(info) as reader:
        return {frame.index: to_rgb(frame) for frame in reader.frames(0, max(wanted) + 1) if frame.index in wanted}


def _cut(picture: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    left, top, width, height = box
    side = int(1.2 * max(width, height))
    x = int(np.clip(left + (width - side) // 2, 0, max(0, picture.shape[1] - side)))
    y = int(np.clip(top + (height - side) // 2, 0, max(0, picture.shape[0] - side)))
    return np.asarray(cv2.resize(picture[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_AREA), np.uint8)


def _both(source: MediaInfo, result: MediaInfo) -> Iterator[Pixels]:
    with VideoReader(source) as before, VideoReader(result) as after:
        for left, right in zip(before.frames(0, MOST_FRAMES), after.frames(0, MOST_FRAMES), strict=True):
            yield beside(_small(to_rgb(left)), _small(to_rgb(right)))


def _small(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    size = (max(2, int(width * VIDEO_HEIGHT / height) // 2 * 2), VIDEO_HEIGHT)
    flags = cv2.INTER_AREA if height > VIDEO_HEIGHT else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=flags), np.uint8)


def _sound(result: MediaInfo) -> npt.NDArray[np.float32] | None:
    if not result.audio:
        return None
    limit = MOST_FRAMES / float(result.video.average_rate) * result.audio[0].sample_rate_hz
    pieces: list[npt.NDArray[np.float32]] = []
    for chunk in SoundReader(result.path, origin=result.video.start):
        pieces.append(chunk.samples.mean(axis=1))
        if chunk.start_sample > limit:
            break
    return np.concatenate(pieces) if pieces else None


def _sound_rate(result: MediaInfo) -> int:
    return result.audio[0].sample_rate_hz if result.audio else 16000
