"""Boxes that say which face is meant in which frames, and the face that follows them from track to track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gateway.dub.choices import MOST_BOXES
from gateway.media.types import VideoInfo
from services.common.array_types import Float32, Float64, Int64
from services.common.errors import InvalidRequestError

if TYPE_CHECKING:
    from gateway.dub.analyse.face_records import FaceIndex

LEAST_OVERLAP: Final = 0.3
"""Least intersection over union of a box and the face that it means. Detectors disagree on forehead, ears and chin: their boxes of
one face share more than .4, boxes of people side by side less than .2."""


class FrameBox(NamedTuple):
    """A box around a face from a frame on, until the next box.

    Attributes:
        frame: frame of the video, from 0.
        left, top, width, height: the box in the upright picture, pixels.
    """

    frame: int
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class FollowedFace:
    """The face that boxes follow.

    Attributes:
        index: faces of the footage, in which the face has the id `face_id` in all its frames.
        face_id: id of the tracked face that the boxes mean in most frames.
        tracked_ids: ids of all tracked faces that the face is put together from, in order; empty: the face is the
            tracked face in all frames, and the index is as it was.
    """

    index: FaceIndex
    face_id: int
    tracked_ids: tuple[int, ...]


def checked_boxes(boxes: Sequence[FrameBox]) -> tuple[FrameBox, ...]:
    """Return boxes whose number, order and sizes are right.

    Raises:
        InvalidRequestError: there are too many boxes, frames do not ascend, or a box has no area. The message names the box.
    """
    if len(boxes) > MOST_BOXES:
        raise InvalidRequestError(f"{len(boxes)} boxes; a line takes at most {MOST_BOXES}", field="boxes", named=True)
    for number, box in enumerate(boxes):
        if number and box.frame <= boxes[number - 1].frame:
            raise InvalidRequestError(
                f"boxes[{number}]: frame {box.frame} follows frame {boxes[number - 1].frame}: frames of boxes ascend",
                field="boxes",
            )
        if box.width <= 0 or box.height <= 0:
            raise InvalidRequestError(f"boxes[{number}]: a box needs a width and a height above 0", field="boxes")
    return tuple(boxes)


def check_inside(boxes: Sequence[FrameBox], video: VideoInfo) -> None:
    """Raise InvalidRequestError if a box is of a frame that the video does not have, or lies outside of the picture."""
    width, height = video.orientation.upright_size
    for number, box in enumerate(boxes):
        if box.frame >= video.num_frames:
            raise InvalidRequestError(
                f"boxes[{number}]: the video has no frame {box.frame}: its frames are 0 to {video.num_frames - 1}", field="boxes"
            )
        if box.left >= width or box.top >= height:
            raise InvalidRequestError(
                f"boxes[{number}]: the box {_box_text(box)} lies outside of the picture of {width}x{height} pixels", field="boxes"
            )


def follow_boxes(index: FaceIndex, boxes: Sequence[FrameBox], frames: range) -> FollowedFace:
    """Return the face that boxes mean in the frames of a line.

    A box counts until the next one. In each shot it means the tracked face that overlaps it most in the first frame in which any
    overlaps it enough, for as long as the tracker shows that face; after that, the face that overlaps it most in each frame.
    In the rest of these shots the face is that of the nearest run, and in other shots the tracked face of most of the frames:
    the person is learned there too.

    Args:
        index: faces of the footage.
        boxes: at least one, in ascending order of the frames.
        frames: frames of the line. Frames before the first box have no face.

    Raises:
        InvalidRequestError: no face overlaps a box enough in any of the frames.
    """
    rows = np.full(index.num_frames, -1, np.int64)
    cuts = [cut for cut in index.shot_cuts if frames.start < cut < frames.stop]
    starts = sorted({frames.start, *cuts, *(box.frame for box in boxes if frames.start < box.frame < frames.stop)})
    box_frames = [box.frame for box in boxes]
    for begin, stop in zip(starts, [*starts[1:], frames.stop], strict=True):
        if (number := int(np.searchsorted(box_frames, begin, side="right")) - 1) >= 0:
            rows[begin:stop] = _records_in_box(index, boxes[number], begin, stop)
    (shown,) = np.nonzero(rows >= 0)
    if not len(shown):
        raise InvalidRequestError(
            f"in the frames {frames.start} to {frames.stop - 1} no face overlaps its box enough (intersection over union of "
            f"at least {LEAST_OVERLAP}); the first box is {_box_text(boxes[0])} from frame {boxes[0].frame} on",
            field="boxes",
            named=True,
        )
    ids = index.face_id[rows[shown]]
    numbers, counts = np.unique(ids, return_counts=True)
    main = int(numbers[np.argmax(counts)])
    whole = _in_all_frames(index, rows, frames, main)
    if np.array_equal(whole, index.rows_of(main)):
        return FollowedFace(index, main, ())
    used = np.unique(index.face_id[whole[whole >= 0]])
    return FollowedFace(_relabelled(index, whole, main), main, tuple(used.tolist()))


def _records_in_box(index: FaceIndex, box: FrameBox, begin: int, stop: int) -> Int64:
    """Return the record of the face that a box means in frames of one shot, int64 [stop - begin]; -1: none."""
    rows = np.full(stop - begin, -1, np.int64)
    edges = np.searchsorted(index.frame, np.arange(begin, stop + 1))
    overlaps = _overlaps(index, np.arange(edges[0], edges[-1]), np.array(box[1:], np.float64))
    tracked = -1
    for number, (first, last) in enumerate(pairwise(edges.tolist())):
        if first == last:
            continue
        same = np.flatnonzero(index.face_id[first:last] == tracked)
        shared = overlaps[first - edges[0] : last - edges[0]]
        if len(same):
            rows[number] = first + same[0]
        elif shared.max() >= LEAST_OVERLAP:
            rows[number] = first + np.argmax(shared)
            tracked = int(index.face_id[rows[number]])
    return rows


def _overlaps(index: FaceIndex, records: Int64, box: Float64) -> Float64:
    """Return the intersection over union of records' boxes and a box (left, top, width, height)."""
    size: Float32 = index.size[records]
    low = np.maximum(index.centre[records] - size / 2, box[:2])
    high = np.minimum(index.centre[records] + size / 2, box[:2] + box[2:])
    shared = np.maximum(high - low, 0.0).prod(axis=1)
    return np.asarray(shared / np.maximum(size.prod(axis=1) + box[2:].prod() - shared, 1e-6), np.float64)


def _in_all_frames(index: FaceIndex, rows: Int64, frames: range, main: int) -> Int64:
    """Return the records of a face in all frames, also outside of the line, int64 [T]; -1: none."""
    whole = index.rows_of(main)
    edges = [0, *(cut for cut in index.shot_cuts if cut > 0), index.num_frames]
    for begin, stop in pairwise(edges):
        low, high = max(begin, frames.start), min(stop, frames.stop)
        if low >= high:
            continue
        seen = rows[low:high][rows[low:high] >= 0]
        for part, nearest in ((slice(begin, low), seen[:1]), (slice(high, stop), seen[-1:])):
            whole[part] = index.rows_of(int(index.face_id[nearest[0]]))[part] if len(nearest) else -1
        whole[low:high] = rows[low:high]
    return whole


def _relabelled(index: FaceIndex, rows: Int64, main: int) -> FaceIndex:
    """Return an index in which the records `rows` and no others are of the face `main`."""
    face_id = index.face_id.copy()
    spare = int(face_id.max()) + 1
    face_id[face_id == main] = spare
    taken = rows[rows >= 0]
    # In a frame in which another track is the face, the track of this number takes the other track's number.
    swapped = index.rows_of(main)[index.frame[taken]]
    other = index.face_id[taken]
    there = (swapped >= 0) & (other != main)
    face_id[swapped[there]] = other[there]
    face_id[taken] = main
    return replace(index, face_id=face_id)


def _box_text(box: FrameBox) -> str:
    return ",".join(f"{side:.0f}" for side in box[1:])
