"""Metrics and thumbnail of a video that a shot has written, and the quality gate: reasons why a person should look at the shot."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

import cv2
import numpy as np

from gateway.actors.watch import while_allowed
from gateway.async_utilities import in_thread
from gateway.batch.finished import finish_of
from gateway.batch.records import VideoMetrics
from gateway.batch.types import Quality, ShotAppearance, ShotFinish, ShotMotion, ShotRecord
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.request.dub_request import DubRequest, sha256_of
from gateway.dub.request.spec_text import ROWS
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
from gateway.reports.records import (
    Box,
    OutputPictures,
    appearance_of,
    boxes_of,
    can_be_tracked,
    commanded_opening,
    motion_of,
    track_beside,
)
from gateway.stages.interface import Stages
from services.common.array_types import Bool, UInt8
from services.common.errors import DubstageError, WorkCancelledError
from services.common.texts import Text, in_words
from services.common.wire.mouth_curves import correlation

WIDTH: Final = 320
"""Most columns of a thumbnail, pixels."""
_NEAR: Final = 750
"""Frames from the beginning of the video among which the picture is chosen, because all frames before the picture are decoded."""
_QUALITY: Final = 85
_Figures = TypeVar("_Figures", ShotMotion, ShotAppearance, ShotFinish)
_BEST: Final = {"opening_spread": 1.0, "width_spread": 1.0, "vowel_shift_ms": 0.0, "closure_shift_ms": 0.0, "lateness_ms": 0.0}
"""Best value of the figures that can be too small and too large. Of all others, small values are good."""
_SILENCE: Final = "the largest opening of the mouth in silence, as a share of the person's own range,"
_OPENING: Final = "the spread of the mouth's opening over the person's own"
_WIDTH: Final = "the spread of the lip width over the person's own"
_STEP: Final = "the fastest change of the mouth's opening over the person's own"
_SHIFT: Final = "the time in ms by which the mouth is earlier or later than real people's at vowels or at p, b, m"
_SEEN: Final = {
    "tint_alarms": "the share of open mouths whose teeth have another colour than the person's own",
    "nostril_alarms": "the share of frames with a dark place between nose and lip",
    "low_contrast": "the share of open mouths with a dull inside beyond the person's own share",
    "popping": "the change of the inside of the mouth from frame to frame over the person's own",
    "clothing_moved": "the share of frames in which clothing moves",
    "face_distance": "the distance of the face from the face of the video",
}
"""Texts of the figures of ShotAppearance. The threshold of the figure NAME is Quality.max_NAME."""


def thumbnail_of(video: MediaInfo, rendered: Bool) -> bytes:
    """Return one frame of a video as JPEG (`shown_frame`, `jpeg_of`).

    Args:
        video: the video of a dub.
        rendered: frames whose mouth is rendered, bool [T].

    Raises:
        MediaUnsupportedError: the video cannot be read.
    """
    frame = shown_frame(rendered)
    with VideoReader(video) as reader:
        return jpeg_of(to_rgb(next(reader.frames(frame, frame + 1))))


def shown_frame(rendered: Bool) -> int:
    """Return the frame that a thumbnail shows: the middle one of the rendered frames near the beginning of the video.

    If only later frames are rendered, the first of them is shown. If no frame is rendered, the middle one is shown.
    """
    (frames,) = np.nonzero(rendered)
    if not len(frames):
        return min(len(rendered), _NEAR) // 2
    near = frames[frames < _NEAR]
    return int(near[len(near) // 2]) if len(near) else int(frames[0])


def jpeg_of(picture: UInt8) -> bytes:
    """Return a picture, uint8 [H, W, 3] RGB, as JPEG of at most WIDTH columns, in the same proportions."""
    height, width = picture.shape[:2]
    if width > WIDTH:
        size = (WIDTH, max(1, round(height * WIDTH / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    written, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not written:
        raise ValueError(f"no JPEG of a picture of {width} x {height} pixels")
    return data.tobytes()


@dataclass(frozen=True, slots=True)
class TrackedFigures:
    """Figures of a tracked video; of a scene, of its worst lines. None: not measured.

    Attributes:
        r_opening: Pearson's r of the target and the drawn opening of the mouth over the dubbed frames, -1 to 1.
        appearance: what eyes see of the mouths.
        finish: the finished video compared with its own sound and with the footage.
        warnings: why something was not measured.
    """

    r_opening: float | None = None
    appearance: ShotAppearance | None = None
    finish: ShotFinish | None = None
    warnings: tuple[str, ...] = ()


async def tracked_figures(
    stages: Stages, video: MediaInfo, outcome: DubOutcome, workspace: Workspace, *, new_sound: bool
) -> TrackedFigures:
    """Track the video of a dub, and return the figures of the tracked video that the report shows: of a scene, of its worst lines.

    Args:
        stages: the stages, which track the video.
        video: the video of the dub.
        outcome: result of the dub.
        workspace: the open folder of the job.
        new_sound: whether the video has the new speech as its sound.

    Raises:
        DubstageError: a video cannot be read, or the face stage failed.
    """
    faces = outcome.of_lines() or [outcome]
    boxes = [await in_thread(first_box, face, workspace) for face in faces]
    pictures = OutputPictures(video, outcome, faces, workspace, measured=can_be_tracked(video, boxes))
    outputs = await track_beside(stages, video, boxes, pictures, pictures.read)
    correlations, figures, finishes = [], [], []
    for face, cut, tracked in zip(faces, pictures.faces, outputs, strict=True):
        if tracked is None:
            continue
        r = correlation(await in_thread(commanded_opening, face), tracked.opening)
        correlations += [r] if math.isfinite(r) else []
        seen = await appearance_of(stages, cut, face, workspace, tracked)
        figures += [ShotAppearance.of(seen)] if seen is not None else []
        finishes.append(await finish_of(stages, video, outcome.video, tracked, with_sound=new_sound and len(faces) == 1))
    return TrackedFigures(min(correlations, default=None), worst(figures), worst(finishes))


def frame_rate_of(video: MediaInfo) -> Fraction:
    """Return the frames per second of a video: the exact rate if there is one, otherwise the average."""
    return video.video.constant_rate or video.video.average_rate


def first_box(outcome: DubOutcome, workspace: Workspace) -> tuple[int, Box] | None:
    """Return the first rendered frame and the box of the face there; None: no frame is rendered."""
    (rendered,) = np.nonzero(outcome.plan.rendered())
    if not len(rendered):
        return None
    frame = int(rendered[0])
    return frame, boxes_of(outcome, workspace, [frame])[frame]


def worst(figures: Sequence[_Figures]) -> _Figures | None:
    """Return each figure of the line where the figure is worst; None: there are no figures."""
    if not figures:
        return None
    chosen: dict[str, float] = {}
    for name in type(figures[0]).model_fields:
        values = [value for one in figures if (value := getattr(one, name)) is not None]
        if values:
            far = [abs(value - _BEST[name]) if name in _BEST else value for value in values]
            chosen[name] = values[int(np.argmax(far))]
    return type(figures[0])(**chosen)


async def measured_while_allowed(
    request: DubRequest, outcome: DubOutcome, workspace: Workspace, stages: Stages, check: Callable[[], None]
) -> VideoMetrics:
    """Measure the video of a dub as `figures_of`. The measurement ends as soon as the actor is erased or the consent ends.

    Args:
        request: the dub request.
        outcome: result of the dub.
        workspace: the open folder of the job.
        stages: the stages, which track the video.
        check: blocks, and raises an error if the actor was erased or the consent has ended.

    Raises:
        ActorError, ConsentRefusedError: from `check`.
        DubstageError: the video cannot be read.
    """
    try:
        metrics = await while_allowed(check, metrics_of(request, outcome, workspace, stages))
    except Exception:
        await in_thread(check)
        raise
    await in_thread(check)
    return metrics


async def metrics_of(request: DubRequest, outcome: DubOutcome, workspace: Workspace, stages: Stages) -> VideoMetrics:
    """Measure the video of a dub, whose job's folder is open.

    If the stages cannot track the video, the video is good all the same: the figures are left out, and a warning says why.

    Raises:
        DubstageError: the video cannot be read.
    """
    video = await asyncio.to_thread(probe, request.output)
    figures = await _measured(stages, video, outcome, workspace, new_sound=not request.keep_audio)
    rendered = outcome.plan.rendered()
    faces = outcome.of_lines() or [outcome]
    motions = [await asyncio.to_thread(motion_of, face) for face in faces]
    return VideoMetrics(
        frames=outcome.plan.num_frames,
        frames_by_reason=outcome.plan.counts(),
        frames_dubbed=int(rendered.sum()),
        output_sha256=await asyncio.to_thread(sha256_of, request.output),
        method=request.method,
        r_opening=figures.r_opening,
        motion=worst([ShotMotion.of(motion) for motion in motions if motion is not None]),
        appearance=figures.appearance,
        finish=figures.finish,
        warnings=tuple(in_words(text, ROWS) for text in (*outcome.warnings, *outcome.written.dropped, *figures.warnings)),
        undubbed=in_words(outcome.undubbed, ROWS),
        thumbnail=await asyncio.to_thread(thumbnail_of, video, rendered),
        frame_rate=str(frame_rate_of(video)),
    )


async def _measured(
    stages: Stages, video: MediaInfo, outcome: DubOutcome, workspace: Workspace, *, new_sound: bool
) -> TrackedFigures:
    """Return the figures of the tracked video, and a warning if the stages could not track the video."""
    try:
        return await tracked_figures(stages, video, outcome, workspace, new_sound=new_sound)
    except WorkCancelledError:
        raise
    except DubstageError as problem:
        return TrackedFigures(warnings=(Text("the drawn mouth was not measured: {problem}", problem=problem),))


def reasons_to_look(quality: Quality, record: ShotRecord) -> tuple[str, ...]:
    """Return one sentence for each threshold that a finished shot misses. Empty: the shot passed.

    A shot whose correlation was not measured misses any threshold of the correlation, because nobody knows how the mouth moves.

    Args:
        quality: the thresholds of the shot.
        record: the record with the figures of the video.
    """
    reasons: list[str] = []
    share = record.frames_dubbed / record.frames if record.frames else 0.0
    if quality.min_dubbed_share is not None and share < quality.min_dubbed_share:
        shown = _beside(share, quality.min_dubbed_share)
        reasons.append(
            f"{record.frames_dubbed} of {record.frames} frames are dubbed, a share of {shown}: at least "
            f"{quality.min_dubbed_share} is wanted"
        )
    if quality.min_r_opening is not None:
        if record.r_opening is None:
            reasons.append("the correlation of target and drawn mouth opening was not measured")
        elif record.r_opening < quality.min_r_opening:
            reasons.append(
                "the correlation of target and drawn mouth opening is "
                f"{_beside(record.r_opening, quality.min_r_opening)}: at least {quality.min_r_opening} is wanted"
            )
    reasons += _motion_reasons(quality, record.motion or ShotMotion())
    reasons += _appearance_reasons(quality, record.appearance)
    if quality.max_warnings is not None and len(record.warnings) > quality.max_warnings:
        reasons.append(f"the number of warnings is {len(record.warnings)}: at most {quality.max_warnings} is wanted")
    return tuple(reasons)


def _motion_reasons(quality: Quality, motion: ShotMotion) -> Iterator[str]:
    """Yield one sentence for each threshold of the motion that a shot misses.

    A shot without silence, or with too few vowels and p, b, m, misses no threshold of them. A shot whose motion was not compared at
    all misses every threshold of the motion.
    """
    shifts = [shift for shift in (motion.vowel_shift_ms, motion.closure_shift_ms) if shift is not None]
    checks = (
        (_SILENCE, motion.silence_opening, None, quality.max_silence_opening),
        (_OPENING, motion.opening_spread, quality.min_opening_spread, quality.max_opening_spread),
        (_WIDTH, motion.width_spread, quality.min_width_spread, None),
        (_STEP, motion.fastest_step, None, quality.max_fastest_step),
        (_SHIFT, max(map(abs, shifts), default=None), None, quality.max_shift_ms),
    )
    for what, value, low, high in checks:
        if low is None and high is None:
            continue
        if value is None:
            if motion.fastest_step is None or what not in (_SILENCE, _SHIFT):
                yield f"{what} was not measured"
        elif low is not None and value < low:
            yield f"{what} is {_beside(value, low)}: at least {low} is wanted"
        elif high is not None and value > high:
            yield f"{what} is {_beside(value, high)}: at most {high} is wanted"


def _appearance_reasons(quality: Quality, seen: ShotAppearance | None) -> Iterator[str]:
    """Yield one sentence for each threshold of what eyes see that a shot misses.

    A person who never opens the mouth, and a shot without clothing, miss no threshold. A shot that was not measured at all misses
    every threshold.
    """
    for name, what in _SEEN.items():
        high = getattr(quality, f"max_{name}")
        value = getattr(seen, name, None)
        if high is None:
            continue
        if value is None and (seen is None or name == "face_distance"):
            yield f"{what} was not measured"
        elif value is not None and value > high:
            yield f"{what} is {_beside(value, high)}: at most {high} is wanted"


def _beside(value: float, threshold: float) -> str:
    """Return a measured number with three digits, or with as many digits as its threshold has."""
    return f"{value:.{max(3, len(str(threshold).partition('.')[2]))}f}"
