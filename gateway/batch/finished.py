"""Figures of a finished video: whether its own sound fits its mouth, and what the dub has added to the skin about the mouth.

Other figures compare the dub with its target, so that a target that is wrong is not seen. These need the finished video alone, and
for the skin the video that was dubbed:

    lateness     the lag of the lag filters (services/motion/lag.py), with its sign turned. The filters decide what is on time:
                 their training moves its clips to the times of real people (mouth_curves.REAL_MS)
    still share  share of the frames of speech in which opening and width of the mouth keep within STILL_PX over STILL_S
    D_t          (video - footage) / luma of the cheeks, in the render box, for the luma Y, R - Y and B - Y
    step         mean of D over 21 x 2 px on one side of a line less that on the other side, beside the lips, in eight directions,
                 for the mean of D_t over each of twelve parts of the video
    seam         99.5th percentile of |mean over the parts of step| - standard deviation over the parts; the largest of Y, R - Y
                 and B - Y. Moving skin has steep edges too, which change; a seam stays.
    flicker      mean over time of |d_t - d_(t-1)|, d_t the mean of D_t of Y beside the lips
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.batch.types import ShotFinish
from gateway.compositing.face_parts import filled_polygon
from gateway.dub.analyse.face_records import cut_box
from gateway.dub.analyse.motion_clip import MotionClip, SoundLag, frame_seconds, measured_lag, on_motion_grid
from gateway.dub.sound.speech import extract_features, motion_frames_for
from gateway.dub.state.workspace import Workspace
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader, Speech
from gateway.media.types import MediaInfo
from gateway.reports.appearance import skin_light
from gateway.reports.records import TrackedOutput
from gateway.stages.interface import Stages
from services.common.array_types import Array, Bool, Float32, UInt8
from services.common.errors import MediaUnsupportedError
from services.common.face.crops import BOX_SIZE, apply_affine, box_from_frame
from services.common.face.landmarks import LIPS_OUTER, lip_width, mouth_opening
from services.common.face.mouth_detail import LUMA_WEIGHTS
from services.common.methods import LAG_FEATURES
from services.common.wire.mouth_curves import MOTION_FRAME_S, SPOKEN_FROM
from services.common.wire.timeline import MOTION_RATE

STILL_S: Final = 0.4
"""Seconds over which a mouth must not move to count as still."""
STILL_PX: Final = 0.8
"""Largest range of the opening, and of the width, of a still mouth, crop pixels."""
MIN_FRAMES: Final = 25
"""Fewest frames of the motion grid that are measured."""
_FACE: Final = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454)
"""Landmarks of the lower outline of the face, from ear to ear."""
_INSET_PX: Final = 7
"""Box pixels inside of the outline of the face, and outside of the lips, that are left out: the jaw and the lips move."""
_SEAM_PERCENTILE: Final = 99.5
_SEAM_PX: Final = 21
_SIDE_PX: Final = 2
_SEEN_SHARE: Final = 0.8
"""Least share of each side of a line that must be skin."""
_DIRECTIONS: Final = 8
_PARTS: Final = 12
_LEAST_PARTS: Final = 4
"""Fewest parts with skin: of fewer, nothing can be said about what stays."""


async def finish_of(
    stages: Stages, video: MediaInfo, footage: MediaInfo | None, tracked: TrackedOutput, *, with_sound: bool = True
) -> ShotFinish:
    """Return the figures of a finished video.

    Args:
        stages: the stages.
        video: the finished video.
        footage: the video that was dubbed, frame n of which is frame n of `video`; None: the skin is not measured.
        tracked: the tracked face of `video`.
        with_sound: whether the sound of the video is the speech of this face.

    Raises:
        DubstageError: a file cannot be read, or a stage failed.
    """
    figures: dict[str, float] = {}
    if with_sound and video.audio and len(tracked.moved) >= MIN_FRAMES:
        clip = on_motion_grid(tracked.moved, frame_seconds(video), 0.0)
        features = await _features(stages, video, len(clip.usable))
        figures |= _sync(await measured_lag(stages, clip, features))
        figures["still_share"] = still_share(clip, features["speech_probability"][: len(clip.usable)] >= SPOKEN_FROM)
    if footage is not None and tracked.poses:
        figures |= await asyncio.to_thread(_skin, video, footage, tracked)
    return ShotFinish(**{name: round(value, 4) for name, value in figures.items() if math.isfinite(value)})


def _sync(lag: SoundLag) -> dict[str, float]:
    if lag.frames is None:
        return {}
    # A positive lag is a sound that comes after the picture: the mouth is early.
    late_s = -(lag.frames + lag.fraction) * MOTION_FRAME_S
    return {"lateness_ms": 1e3 * late_s, "sync_confidence": lag.confidence, "sync_distance": lag.distance or math.nan}


async def _features(stages: Stages, video: MediaInfo, num_frames: int) -> Array:
    """Return FEATURE_RECORDs of a video's own sound, for the frames of the motion grid."""
    reader = await asyncio.to_thread(lambda: SoundReader(video.path, origin=video.video.start))
    chunks = await asyncio.to_thread(lambda: [chunk.samples for chunk in reader])
    if not chunks:
        raise MediaUnsupportedError(f"{video.path} has a sound track but no sound in it", field="output")
    speech = Speech(reader.info.sample_rate_hz, reader.info.channels, chunks)
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        count = max(num_frames, motion_frames_for(video.video.duration))
        await extract_features(stages, speech, workspace.speech, count, video.video.duration, LAG_FEATURES)
        return workspace.speech.read(0, num_frames)


def still_share(clip: MotionClip, spoken: Bool) -> float:
    """Return the share of the frames of speech in which the mouth stands still; NaN: fewer than MIN_FRAMES are known.

    Args:
        clip: motion of the mouth.
        spoken: bool [T], frames of speech.
    """
    measured = clip.usable & spoken
    if int(measured.sum()) < MIN_FRAMES:
        return math.nan
    window = round(STILL_S * float(MOTION_RATE))
    still = np.zeros(len(measured), np.bool_)
    curves = np.stack([mouth_opening(clip.mouth), lip_width(clip.mouth)])
    for begin in range(len(measured) - window + 1):
        part = slice(begin, begin + window)
        if clip.usable[part].all() and (np.ptp(curves[:, part], axis=1) <= STILL_PX).all():
            still[part] = True
    return float((still & measured).sum() / measured.sum())


def _skin(video: MediaInfo, footage: MediaInfo, tracked: TrackedOutput) -> dict[str, float]:
    """Return `seam` and `flicker`."""
    frames = sorted(tracked.poses)
    part_of = {frame: number * _PARTS // len(frames) for number, frame in enumerate(frames)}
    # A seam moves with the face, or stays where it is in the frame: the box of the first frame stays too.
    totals = np.zeros((2, _PARTS, 3, BOX_SIZE, BOX_SIZE), np.float32)
    counts = np.zeros((2, _PARTS, BOX_SIZE, BOX_SIZE), np.float32)
    to_first: Float32 | None = None
    levels: dict[int, float] = {}
    with VideoReader(video) as reader, VideoReader(footage) as before:
        pairs = zip(reader.frames(0, video.video.num_frames), before.frames(0, footage.video.num_frames), strict=False)
        for frame, (drawn, filmed) in enumerate(pairs):
            if frame not in tracked.poses:
                continue
            pose = tracked.poses[frame]
            points = np.asarray(apply_affine(box_from_frame(pose), tracked.landmarks[frame])[..., :2], np.float32)
            boxes = np.stack([cut_box(to_rgb(drawn), pose), cut_box(to_rgb(filmed), pose)])
            mask = skin_beside_lips(points)
            light = float(skin_light(boxes[1:], points[None])[0])
            if not mask.any() or not light > 0.0:
                continue
            difference = _difference(boxes) / light
            levels[frame] = float(difference[0][mask].mean())
            part, shown, seen = part_of[frame], difference * mask, mask.astype(np.float32)
            totals[0, part] += shown
            counts[0, part] += seen
            to_box = _square(box_from_frame(pose))
            to_first = to_box if to_first is None else to_first
            still = (to_first @ np.linalg.inv(to_box))[:2]
            totals[1, part] += np.stack([cv2.warpAffine(plane, still, seen.shape) for plane in shown])
            counts[1, part] += cv2.warpAffine(seen, still, seen.shape)
    steps = [abs(level - levels[frame - 1]) for frame, level in levels.items() if frame - 1 in levels]
    seam = float(np.fmax(seam_of(totals[0], counts[0]), seam_of(totals[1], counts[1])))
    return {"seam": seam, "flicker": float(np.mean(steps)) if steps else math.nan}


def _square(affine: Array) -> Float32:
    return np.vstack([affine, [0.0, 0.0, 1.0]]).astype(np.float32)


def _difference(boxes: UInt8) -> Float32:
    """Return Y, R - Y and B - Y of the first box minus the second box, smoothed against the noise of the codec, float32
    [3, 160, 160]. Y is the luma.
    """
    change = boxes[0].astype(np.float32) - boxes[1].astype(np.float32)
    luma = change @ LUMA_WEIGHTS
    planes = (luma, change[..., 0] - luma, change[..., 2] - luma)
    return np.stack([cv2.GaussianBlur(plane, (0, 0), 1.0) for plane in planes]).astype(np.float32)


def skin_beside_lips(points: Float32) -> Bool:
    """Return the pixels of the lower face without lips and outline, bool [160, 160].

    Args:
        points: float32 [478, 2], landmarks in box pixels.
    """
    kernel = np.ones((2 * _INSET_PX + 1, 2 * _INSET_PX + 1), np.uint8)
    face = cv2.erode(filled_polygon(points[list(_FACE)]), kernel)
    lips = cv2.dilate(filled_polygon(points[list(LIPS_OUTER)]), kernel)
    return np.asarray((face > 0) & (lips == 0), np.bool_)


def seam_of(totals: Float32, counts: Float32) -> float:
    """Return the edge that stays the same all the time in the skin; NaN: too little is known.

    Args:
        totals: float32 [P, 3, 160, 160], sums of the differences over the frames of each part of the video.
        counts: float32 [P, 160, 160], frames in which each pixel is skin.
    """
    frames = counts.sum(0)
    seen = frames >= max(1.0, frames.max() / 2)
    there = [part for part in range(len(counts)) if counts[part].any()]
    if len(there) < _LEAST_PARTS or not seen.any():
        return math.nan
    mean = totals.sum(0) / np.maximum(frames, 1.0)
    parts = np.where(counts[there, None] > 0, totals[there] / np.maximum(counts[there, None], 1.0), mean)
    largest = math.nan
    for plane in range(parts.shape[1]):
        constant = [_constant_steps(parts[:, plane], seen, turn) for turn in range(_DIRECTIONS)]
        pooled = np.concatenate(constant)
        if len(pooled):
            largest = float(np.fmax(largest, np.percentile(pooled, _SEAM_PERCENTILE)))
    return largest


def _constant_steps(parts: Float32, seen: Bool, turn: int) -> Float32:
    """Return how large the steps across lines of one direction are at least most of the time, float32 [N].

    Args:
        parts: float32 [P, 160, 160], means of one plane over each part of the video.
        seen: bool [160, 160], pixels that are skin.
        turn: number of the direction.
    """
    size = parts.shape[1:]
    turned = cv2.getRotationMatrix2D(((size[1] - 1) / 2, (size[0] - 1) / 2), 180.0 * turn / _DIRECTIONS, 1.0)

    def along(plane: Float32) -> tuple[Float32, Float32]:
        """Return the means of the two sides of a line through the upper edge of each pixel."""
        moved = cv2.warpAffine(plane.astype(np.float32), turned, size[::-1])
        line = cv2.boxFilter(moved, -1, (_SEAM_PX, _SIDE_PX), borderType=cv2.BORDER_CONSTANT)
        return np.roll(line, -(_SIDE_PX // 2), 0), np.roll(line, _SIDE_PX // 2, 0)

    below, above = along(seen.astype(np.float32))
    inside = (below > _SEEN_SHARE) & (above > _SEEN_SHARE)
    steps = []
    for part in parts:
        under, over = along(part * seen)
        steps.append(under[inside] / below[inside] - over[inside] / above[inside])
    stacked = np.stack(steps)
    return np.asarray(np.abs(stacked.mean(0)) - stacked.std(0), np.float32)
