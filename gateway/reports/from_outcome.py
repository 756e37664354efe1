"""The report of a finished dub: pictures, curves and facts from the job's folder and both films."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
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
from gateway.pipeline.analysis import track_footage
from gateway.pipeline.dub import DubJob, DubOutcome, DubRequest
from gateway.pipeline.messages import reason_name
from gateway.pipeline.records import MOTION_RECORD, RecordFile
from gateway.pipeline.workspace import Workspace
from gateway.reports.dub_report import write_dub_report
from gateway.reports.side_by_side import beside
from gateway.reports.types import BeforeAfter, DubReport, Fact, SideBySide
from gateway.stages.interface import Stages
from services.common.landmarks import mouth_opening

Pixels = npt.NDArray[np.uint8]

PAIRS: Final = 8
MOST_FRAMES: Final = 750
"""Curves, the video and re-tracking stop after this many frames: a report stays small whatever the film's length."""
VIDEO_HEIGHT: Final = 360


async def write_report(request: DubRequest, outcome: DubOutcome, job: DubJob, stages: Stages, folder: Path) -> Path:
    """Write `folder`/index.html for a dub whose job folder is still there; returns the page."""
    result = await asyncio.to_thread(probe, request.output)
    tracked = await _tracked_opening(stages, result, outcome)
    commanded = await asyncio.to_thread(_commanded_opening, outcome, job)
    report = DubReport(
        title=request.output.name,
        input=_facts(outcome.info),
        output=[*_facts(result), *(Fact("carried over", text) for text in outcome.written.carried)],
        consent=consent_line(request.consent),
        has_consent=request.consent is not None,
        method=request.method,
        reasons=[reason_name(number) for number in outcome.plan.reason],
        frame_rate=outcome.info.video.average_rate,
        mask_area_share=_mask_share(outcome),
        lag_frames=outcome.actor.lag_frames if outcome.actor is not None else None,
        times=outcome.times,
        pairs=await asyncio.to_thread(_pairs, outcome, result, job),
        commanded_opening=commanded,
        tracked_opening=tracked,
        video=SideBySide(
            pictures=_both(outcome.info, result),
            frame_rate=outcome.info.video.average_rate,
            speech=await asyncio.to_thread(_sound, result),
            sample_rate_hz=_sound_rate(result),
        ),
        warnings=outcome.warnings,
    )
    return await asyncio.to_thread(write_dub_report, report, folder)


def _facts(info: MediaInfo) -> list[Fact]:
    video = info.video
    width, height = video.orientation.upright_size
    facts = [
        Fact("file", info.path.name),
        Fact("container", info.container),
        Fact("picture", f"{video.codec}, {width} x {height}, {video.stored_format}"),
        Fact("frames", f"{video.num_frames} at {float(video.average_rate):.3f} a second ({float(video.duration):.2f} s)"),
    ]
    sounds = [f"{audio.codec}, {audio.sample_rate_hz} Hz, {audio.channels} ch" for audio in info.audio]
    return [*facts, Fact("sound", "; ".join(sounds) or "none")]


def _mask_share(outcome: DubOutcome) -> npt.NDArray[np.float32]:
    share = np.zeros(outcome.plan.num_frames, np.float32)
    for index, area in outcome.facts.mask_area_px.items():
        share[index] = area / (outcome.info.video.width * outcome.info.video.height)
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


async def _tracked_opening(stages: Stages, result: MediaInfo, outcome: DubOutcome) -> npt.NDArray[np.float32] | None:
    total = outcome.plan.num_frames
    if outcome.face_id is None or total > MOST_FRAMES:
        return None
    opening = np.full(total, np.nan, np.float32)
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, result, workspace, threads=2, on_frame=lambda _: None)
        rows = index.rows_of(outcome.face_id)
        for frame in np.nonzero(rows >= 0)[0]:
            record = workspace.faces.read(int(rows[frame]), int(rows[frame]) + 1)
            opening[frame] = mouth_opening(record["mouth"])[0]
    return opening


def _pairs(outcome: DubOutcome, result: MediaInfo, job: DubJob) -> list[BeforeAfter]:
    (rendered,) = np.nonzero(outcome.plan.rendered())
    if len(rendered) == 0 or job.folder is None:
        return []
    chosen = [int(frame) for frame in rendered[np.linspace(0, len(rendered) - 1, PAIRS).astype(int)]]
    boxes: dict[int, tuple[int, int, int, int]] = {}
    with Workspace(job.folder) as workspace:
        for frame in chosen:
            left, top, width, height = workspace.faces.read(int(outcome.plan.row[frame]), int(outcome.plan.row[frame]) + 1)["box"][
                0
            ]
            boxes[frame] = (int(left), int(top), int(width), int(height))
    before, after = _pictures(outcome.info, set(chosen)), _pictures(result, set(chosen))
    times = outcome.info.video
    return [
        BeforeAfter(
            f"frame {frame}, {float((times.pts[frame] - times.pts[0]) * times.time_base):.2f} s",
            _cut(before[frame], boxes[frame]),
            _cut(after[frame], boxes[frame]),
        )
        for frame in dict.fromkeys(chosen)
    ]


def _pictures(info: MediaInfo, wanted: set[int]) -> dict[int, Pixels]:
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
