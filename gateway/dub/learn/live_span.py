"""The part of an actor's footage that live streams show: the longest stretch of usable frames without a break or a cut.

An enrolment chooses the stretch and stores its poses and mouths, and what covers the face (`LiveSpan`). The pixels stay in the
stored footage.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.compositing.cover import Cover
from gateway.compositing.movable import LEARNED_FRAMES, FaceColours, evenly_spread, learn_colours
from gateway.dub.state.records import mouth_in_box
from gateway.media.types import VideoInfo
from services.common.array_types import Array, Bool, Float32, Float64, Int64, UInt8
from services.common.face.crops import BOX_SIZE, HeadPose, head_to_box
from services.common.wire.timeline import MOTION_RATE

LIVE_SPAN: Final = "live_span"
"""Kind of the blob that holds an actor's LiveSpan."""
MAX_FRAMES: Final = 3000
"""Most frames of a span: two minutes at MOTION_RATE. Played forwards and backwards, the footage repeats after four."""
MIN_FRAMES: Final = 5
"""Fewest consecutive usable frames of the footage that a live stream can show."""
_TOGETHER: Final = 250
"""Face records that are read at once, 19 MB of render boxes."""
_COVER_BYTES: Final = BOX_SIZE * BOX_SIZE // 8
_NO_COVER: Final = np.zeros(_COVER_BYTES, np.uint8)
_ARRAYS: Final = ("frames", "scale", "rotation", "translation", "mouths")


@dataclass(frozen=True, slots=True, eq=False)
class LiveSpan:
    """A span of footage at MOTION_RATE, n frames.

    Attributes:
        frames: int64 [n], which frame of the footage is shown. Numbers never fall.
        scale: float64 [n], of the head pose (HeadPose), as are the next two.
        rotation: float64 [n, 3, 3].
        translation: float64 [n, 3].
        mouths: float32 [n, 59, 3], the footage's own mouth-area landmarks, head space.
        colours: colours of the face in the span.
        covered: uint8 [n, 3200], one bit per pixel of the render box: 1 where something covers the face (Cover.pixels). [0, 3200]:
            the face is free in the whole span.
    """

    frames: Int64
    scale: Float64
    rotation: Float64
    translation: Float64
    mouths: Float32
    colours: FaceColours
    covered: UInt8 = field(default_factory=lambda: np.empty((0, _COVER_BYTES), np.uint8))

    def __len__(self) -> int:
        return len(self.frames)

    def pose(self, index: int) -> HeadPose:
        """Return the head pose of frame `index` of the span, 0 to n - 1."""
        return HeadPose(float(self.scale[index]), self.rotation[index], self.translation[index])

    def mouth(self, index: int) -> Float32:
        """Return the mouth-area landmarks of frame `index` of the span, float32 [59, 2], box pixels."""
        return head_to_box(self.mouths[index], self.pose(index))

    def cover(self, index: int) -> Bool | None:
        """Return the pixels that cover the face in frame `index` of the span, bool [160, 160]; None: the face is free."""
        return _pixels(self.covered[index]) if len(self.covered) else None

    def arrays(self) -> dict[str, Array]:
        """Return the span as named arrays."""
        covered = np.frombuffer(zlib.compress(self.covered.tobytes()), np.uint8)
        return {name: getattr(self, name) for name in _ARRAYS} | {"colours": self.colours.table, "covered": covered}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> LiveSpan:
        """Return the span that `arrays` gave."""
        covered = np.frombuffer(zlib.decompress(arrays["covered"].tobytes()), np.uint8).reshape(-1, _COVER_BYTES)
        return cls(**{name: arrays[name] for name in _ARRAYS}, colours=FaceColours(arrays["colours"]), covered=covered)


def _pixels(bits: UInt8) -> Bool | None:
    """Return the pixels of a cover, bool [160, 160], from their bits, uint8 [3200]; None: no bit is set."""
    return np.unpackbits(bits).reshape(BOX_SIZE, BOX_SIZE).astype(np.bool_) if bits.any() else None


def unbroken_spans(frames: Int64, reasons: Array, shot_cuts: Sequence[int] = ()) -> list[Int64]:
    """Return the unbroken stretches of usable frames that have MIN_FRAMES, each as indices into `frames`, int64.

    Args:
        frames: int64 [R], frames of the footage that show the person, ascending.
        reasons: int [R], FrameReason of each.
        shot_cuts: frames that begin a shot. A stretch ends there.
    """
    (usable,) = np.nonzero(reasons == common_pb2.FRAME_REASON_DUBBED)
    usable_frames = frames[usable]
    breaks = np.nonzero((np.diff(usable_frames) != 1) | np.isin(usable_frames[1:], np.array(shot_cuts, np.int64)))[0] + 1
    return [run for run in np.split(usable, breaks) if len(run) >= MIN_FRAMES]


def at_motion_rate(run: Int64, video: VideoInfo) -> Int64:
    """Return, for each 1 / MOTION_RATE s of a stretch, the index of the frame that is nearest in time, at most MAX_FRAMES.

    Footage at MOTION_RATE stays as it is. Other footage keeps its speed: frames are left out or repeated.

    Args:
        run: int64 [F], consecutive frames of the footage.
    """
    times = video.pts[run] - video.pts[run[0]]
    frames_per_tick = MOTION_RATE * video.time_base
    count = min(MAX_FRAMES, int(int(times[-1]) * frames_per_tick) + 1)
    wanted = np.array([float(index / frames_per_tick) for index in range(count)])
    # If two frames are equally near, the earlier one is taken.
    return np.searchsorted((times[1:] + times[:-1]) / 2, wanted)


def longest_span(
    frames: Int64,
    reasons: Array,
    video: VideoInfo,
    read: Callable[[Int64], Array],
    shot_cuts: Sequence[int] = (),
    covers: Callable[[Array], list[Cover | None]] = lambda faces: [None] * len(faces),
) -> LiveSpan | None:
    """Return the longest unbroken stretch of usable frames at MOTION_RATE; None: no stretch has MIN_FRAMES.

    Args:
        frames: int64 [R], frames of the footage that show the person, ascending.
        reasons: int [R], FrameReason of each.
        video: the footage.
        read: returns the FACE_RECORDs of indices into `frames`.
        shot_cuts: frames that begin a shot.
        covers: returns what covers the face in FACE_RECORDs (ShotLooks.covers).
    """
    runs = unbroken_spans(frames, reasons, shot_cuts)
    if not runs:
        return None
    indices = max((run[at_motion_rate(frames[run], video)] for run in runs), key=len)
    fields = ("scale", "rotation", "translation", "mouth")
    parts: dict[str, list[Array]] = {name: [] for name in fields}
    covers_of: list[UInt8] = []
    for begin in range(0, len(indices), _TOGETHER):
        faces = read(indices[begin : begin + _TOGETHER])
        for name in fields:
            parts[name].append(faces[name].copy())
        covers_of += [_NO_COVER if cover is None else np.packbits(cover.pixels) for cover in covers(faces)]
    covered, chosen = np.stack(covers_of), evenly_spread(np.arange(len(indices)), LEARNED_FRAMES)
    learned, behind = read(indices[chosen]), [_pixels(bits) for bits in covered[chosen]]
    colours = learn_colours([face["pixels"] for face in learned], [mouth_in_box(face) for face in learned], behind)
    scale, rotation, translation, mouths = (np.concatenate(parts[name]) for name in fields)
    return LiveSpan(frames[indices], scale, rotation, translation, mouths, colours, covered if covered.any() else covered[:0])
