"""False alarms of the search for public marks in windows of undubbed videos.

A video is tracked once. Every window of some seconds is then read, at every step of the time grid, in the video as it is and in
VARIANTS of the video: mirrored, backwards, and with displaced render boxes. Windows that overlap, and windows of displaced boxes,
show nearly the same picture. Independent readings are the windows side by side of the video as it is, mirrored, backwards, and
both: other chips are compared with every cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.dub.face_records import face_records
from gateway.dub.footage import tracked_frames
from gateway.media.inspection import inspect_video
from gateway.provenance.watermark.detection import (
    SHIFTS,
    STEP_S,
    STEPS_PER_CHIP,
    ResponseSpan,
    log10_tail,
    projected,
    responses,
    seen_spans,
)
from gateway.provenance.watermark.pattern import (
    PERIOD,
    RecentMean,
    at_first_frames,
    public_content,
    public_spreading,
    reduced,
)
from gateway.provenance.watermark.payload import WORD_BITS
from gateway.stages.interface import Stages
from services.common.array_types import Float64, UInt8

_SIDE: Final = 80
"""Pixels of the render boxes that are kept, half of the box's: the search uses 40 and 20."""
_MOST_STEPS: Final = 1500
"""Longest span that is searched at once, because memory grows with its length: 0.1 MB per step."""
_DISPLACED: Final = ((0, 0), (4, 0), (0, 4))
"""Displacements of the render box, pixels of `_SIDE`: down, across."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of a video.

    Attributes:
        mirrored: whether left and right are exchanged.
        backwards: whether the last frame is the first.
        displaced: displacement of the render box, pixels of 80: down, across.
    """

    mirrored: bool
    backwards: bool
    displaced: tuple[int, int]

    @property
    def independent(self) -> bool:
        """Whether the readings of this variant are independent of those of all other variants."""
        return self.displaced == (0, 0)


VARIANTS: Final = tuple(
    Variant(mirrored, backwards, displaced) for displaced in _DISPLACED for mirrored in (False, True) for backwards in (False, True)
)


@dataclass(frozen=True, slots=True)
class KeptFace:
    """One face of a video.

    Attributes:
        seconds: float64 [N], times of its frames.
        boxes: uint8 [N, 80, 80], luma of its render boxes.
        cuts: places of frames that begin a shot.
    """

    seconds: Float64 = field(repr=False)
    boxes: UInt8 = field(repr=False)
    cuts: tuple[int, ...]

    def spans(self, variant: Variant) -> Iterator[ResponseSpan]:
        """Yield the responses of a variant of the face, in spans of at most 60 s without a gap."""
        seconds, boxes, cuts = self.seconds, self.boxes, list(self.cuts)
        if variant.mirrored:
            boxes = boxes[:, :, ::-1]
        if variant.backwards:
            seconds, boxes, cuts = seconds[-1] - seconds[::-1], boxes[::-1], [len(seconds) - cut for cut in cuts]
        down, across = variant.displaced
        boxes = np.pad(boxes, ((0, 0), (down, 0), (across, 0)), "edge")[:, :_SIDE, :_SIDE]
        moments = RecentMean()
        luma = np.array([projected(np.ascontiguousarray(box)) for box in boxes])
        pictures = np.array(
            [moments.with_frame(float(time), reduced(np.ascontiguousarray(box))) for time, box in zip(seconds, boxes, strict=True)]
        )
        for seen in seen_spans(seconds, cuts):
            first, found = responses(seconds[seen], luma[seen])
            near = at_first_frames(seconds, pictures, STEP_S * np.arange(first, first + len(found), dtype=np.float64))
            for begin in range(0, len(found), _MOST_STEPS):
                part = slice(begin, begin + _MOST_STEPS)
                yield ResponseSpan(first + begin, found[part], near[part])


async def kept_faces(stages: Stages, video: Path, threads: int) -> list[KeptFace]:
    """Return the faces of a video.

    Raises:
        DubstageError: the video cannot be read.
    """
    info = inspect_video(video)
    times = [float(tick * info.video.time_base) for tick in (info.video.pts - info.video.pts[0]).tolist()]
    found: dict[int, tuple[list[float], list[UInt8], list[int]]] = {}
    shot = 0
    async with aclosing(tracked_frames(stages, info, threads)) as frames:
        async for frame in frames:
            shot += frame.faces.shot_cut
            for row in face_records(frame.faces, frame.cut_box, frame.scale):
                seconds, boxes, shots = found.setdefault(int(row["face_id"]), ([], [], []))
                seconds.append(times[frame.index])
                luma = cv2.cvtColor(row["pixels"], cv2.COLOR_RGB2GRAY)
                boxes.append(np.asarray(cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8))
                shots.append(shot)
    return [
        KeptFace(np.array(seconds), np.array(boxes), tuple((np.flatnonzero(np.diff(shots)) + 1).tolist()))
        for seconds, boxes, shots in found.values()
    ]


def window_totals(span: ResponseSpan, steps: int) -> Float64:
    """Return the largest sum of squared bits of every window of a span, as `ContentSearch.best_shift` finds it, float64 [windows].

    Args:
        steps: length of a window, steps of the time grid. Windows begin at every step.
    """
    windows = len(span.responses) - steps + 1
    if windows < 1:
        return np.zeros(0)
    spreading, content = public_spreading(), public_content()
    carries = (spreading.bit[:, :, None] == np.arange(WORD_BITS)).astype(np.float64)
    signed = carries * spreading.sign[:, :, None]
    soft = content.soft(span.pictures)
    grid = span.first + np.arange(len(span.responses))
    # Sums and energy of every row, by the shift at which the row is compared with the chips of each time.
    rows = np.zeros((2, len(grid), PERIOD, WORD_BITS))
    for turn in range(PERIOD):
        weighted = span.responses * content.weights(soft, np.full(len(grid), turn))
        place = (grid // STEPS_PER_CHIP - turn) % PERIOD
        rows[0, np.arange(len(grid)), place] = weighted @ signed[turn]
        rows[1, np.arange(len(grid)), place] = weighted**2 @ carries[turn]
    best = np.zeros(windows)
    for phase in range(STEPS_PER_CHIP):
        mine = np.flatnonzero(grid % STEPS_PER_CHIP == phase)
        summed = np.concatenate([np.zeros((2, 1, PERIOD, WORD_BITS)), np.cumsum(rows[:, mine], axis=1)], axis=1)
        begins = np.searchsorted(mine, np.arange(windows))
        ends = np.searchsorted(mine, np.arange(windows) + steps)
        for window, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            sums, energy = summed[:, end] - summed[:, begin]
            best[window] = max(best[window], float((sums**2 / np.maximum(energy, 1e-30)).sum(1).max()))
    return best


def log10_chances(totals: Float64) -> Float64:
    """Return the decimal logarithms of the probabilities that the search for public marks states of such windows."""
    return np.array([min(0.0, log10_tail(float(total), WORD_BITS) + np.log10(SHIFTS)) for total in totals])


@dataclass(frozen=True, slots=True)
class WindowReadings:
    """Readings of windows.

    Attributes:
        chances: float64 [windows], decimal logarithms of the stated probabilities.
        independent: float64 [some], those of windows that do not overlap, of independent variants.
    """

    chances: Float64
    independent: Float64


def readings_of_windows(faces: Sequence[KeptFace], seconds: float) -> WindowReadings:
    """Read all windows of faces.

    Args:
        seconds: length of a window.
    """
    steps = round(seconds / STEP_S)
    every, apart = [np.zeros(0)], [np.zeros(0)]
    for face in faces:
        for variant in VARIANTS:
            for span in face.spans(variant):
                totals = window_totals(span, steps)
                every.append(totals)
                if variant.independent:
                    apart.append(totals[::steps])
    return WindowReadings(log10_chances(np.concatenate(every)), log10_chances(np.concatenate(apart)))
