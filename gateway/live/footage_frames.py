"""Which frames of an actor's footage live streams show: an unbroken stretch, at the rate of live streams."""

from __future__ import annotations

from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo, VideoInfo
from services.common.array_types import Array, UInt8
from services.common.wire.timeline import MOTION_RATE

MAX_FRAMES: Final = 75
"""Most frames that are shown: three seconds at MOTION_RATE, about 200 MB at 1280 x 720."""
MIN_FRAMES: Final = 5
"""Fewest consecutive usable frames of the footage that a live stream can show."""


def unbroken(faces: Array) -> list[Array]:
    """Return the unbroken stretches of usable frames that have MIN_FRAMES, as records of FACE_RECORD."""
    usable = faces[faces["reason"] == common_pb2.FRAME_REASON_DUBBED]
    breaks = np.nonzero(np.diff(usable["frame"]) != 1)[0] + 1
    return [run for run in np.split(usable, breaks) if len(run) >= MIN_FRAMES]


def at_motion_rate(run: Array, video: VideoInfo) -> Array:
    """Return, for each 1 / MOTION_RATE s of a stretch, the frame that is nearest in time, at most MAX_FRAMES.

    Footage at MOTION_RATE stays as it is. Other footage keeps its speed: frames are left out or repeated.
    """
    times = video.pts[run["frame"]] - video.pts[run["frame"][0]]
    frames_per_tick = MOTION_RATE * video.time_base
    count = min(MAX_FRAMES, int(int(times[-1]) * frames_per_tick) + 1)
    wanted = np.array([float(index / frames_per_tick) for index in range(count)])
    # Of two frames that are equally near, the earlier one.
    return run[np.searchsorted((times[1:] + times[:-1]) / 2, wanted)]


def pictures_of(info: MediaInfo, run: Array) -> tuple[UInt8, ...]:
    """Return the picture of every frame of a stretch, uint8 [H, W, 3], RGB. A repeated frame is one picture in memory."""
    numbers = run["frame"].tolist()
    wanted = set(numbers)
    with VideoReader(info) as reader:
        found = {frame.index: to_rgb(frame) for frame in reader.frames(min(wanted), max(wanted) + 1) if frame.index in wanted}
    return tuple(found[number] for number in numbers)
