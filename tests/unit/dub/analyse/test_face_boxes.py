"""Tests of boxes that follow a face over tracks and cuts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_boxes import FrameBox, checked_boxes, follow_boxes
from gateway.dub.analyse.face_records import FaceIndex
from gateway.dub.choices import MOST_BOXES
from services.common.errors import InvalidRequestError

LEFT, RIGHT = (100.0, 100.0), (300.0, 100.0)
Shown = tuple[int, tuple[float, float]]
"""Id of a face and the centre of its box of 80 x 100 pixels."""


def index_of(frames: Sequence[Sequence[Shown]], cuts: tuple[int, ...] = ()) -> FaceIndex:
    records = [(frame, *face) for frame, faces in enumerate(frames) for face in faces]
    return FaceIndex(
        frame=np.array([frame for frame, *_ in records], np.int32),
        face_id=np.array([number for _, number, _ in records], np.int32),
        reason=np.full(len(records), common_pb2.FRAME_REASON_DUBBED, np.int32),
        area=np.full(len(records), 8000.0, np.float32),
        centre=np.array([centre for *_, centre in records], np.float32),
        size=np.tile(np.array([80.0, 100.0], np.float32), (len(records), 1)),
        shot_cuts=cuts,
        num_frames=len(frames),
    )


def box(frame: int, centre: tuple[float, float]) -> FrameBox:
    """A box that is larger than the face's, as other detectors give it."""
    return FrameBox(frame, centre[0] - 45, centre[1] - 65, 90, 120)


def places(index: FaceIndex, number: int) -> list[float]:
    """Horizontal place of a face in each frame; -1: the frame does not show the face."""
    rows = index.rows_of(number)
    return [float(index.centre[row, 0]) if row >= 0 else -1.0 for row in rows]


def test_boxes_that_agree_change_nothing() -> None:
    """The face is the tracked face, in all frames of the footage."""
    index = index_of([[(3, LEFT), (7, RIGHT)]] * 6)
    found = follow_boxes(index, [box(0, RIGHT)], range(2, 5))
    assert (found.face_id, found.tracked_ids) == (7, ())
    assert found.index is index


def test_swapped_ids_after_a_cut() -> None:
    """The tracker changes the ids of two people at a cut: the box after the cut says who is who."""
    index = index_of([*[[(1, RIGHT), (0, LEFT)]] * 4, *[[(0, RIGHT), (1, LEFT)]] * 4], cuts=(4,))
    for line, most in ((range(1, 6), 0), (range(1, 8), 1)):
        found = follow_boxes(index, [box(0, LEFT), box(4, LEFT)], line)
        assert (found.face_id, found.tracked_ids) == (most, (0, 1))
        assert places(found.index, most) == [100.0] * 8
        assert places(found.index, 1 - most) == [300.0] * 8


def test_new_id_after_a_cut() -> None:
    """A box counts over a cut until the next box. A new id in the same place is the same face."""
    index = index_of([*[[(0, LEFT)]] * 4, *[[(5, LEFT), (2, RIGHT)]] * 4], cuts=(4,))
    found = follow_boxes(index, [box(0, LEFT)], range(8))
    assert found.tracked_ids == (0, 5)
    assert places(found.index, found.face_id) == [100.0] * 8


def test_face_walks_out_of_its_box() -> None:
    """Within a shot the tracker follows the face, wherever it goes."""
    walk = [[(0, (100.0 + 40 * frame, 100.0)), (1, (500.0, 100.0))] for frame in range(6)]
    found = follow_boxes(index_of(walk), [box(0, LEFT)], range(6))
    assert places(found.index, found.face_id) == [100.0 + 40 * frame for frame in range(6)]


def test_no_overlap_is_no_face() -> None:
    """Frames before the first box, and frames in which no face overlaps the box, do not show the face."""
    index = index_of([[(0, LEFT), (1, RIGHT)]] * 8)
    found = follow_boxes(index, [box(2, LEFT), FrameBox(5, 600, 0, 50, 50)], range(8))
    assert places(found.index, found.face_id) == [-1, -1, 100, 100, 100, -1, -1, -1]
    assert found.tracked_ids == (0,)
    with pytest.raises(InvalidRequestError, match="in the frames 5 to 7 no face overlaps its box enough"):
        follow_boxes(index, [FrameBox(5, 600, 0, 50, 50)], range(5, 8))


def test_wrong_boxes_are_refused() -> None:
    for boxes, said in (
        ([box(1, LEFT), box(1, LEFT)], r"boxes\[1\]: frame 1 follows frame 1"),
        ([FrameBox(0, 1, 1, 5, 0)], r"boxes\[0\]: a box needs a width and a height above 0"),
        ([box(frame, LEFT) for frame in range(MOST_BOXES + 1)], "boxes: 10001 boxes; a line takes at most 10000"),
    ):
        with pytest.raises(InvalidRequestError, match=said) as caught:
            checked_boxes(boxes)
        assert caught.value.field == "boxes"
