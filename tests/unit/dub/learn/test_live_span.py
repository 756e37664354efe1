"""Tests of the span of footage that live streams show: the longest unbroken one, at the speed of the footage."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.compositing.cover import Cover
from gateway.compositing.movable import FaceColours
from gateway.dub.learn.live_span import MAX_FRAMES, MIN_FRAMES, LiveSpan, at_motion_rate, longest_span, unbroken_spans
from gateway.dub.state.records import FACE_RECORD
from gateway.media.inspection import inspect_video
from services.common.array_types import Array, Int64
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.store.artefacts import ArtefactStore
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip

COLOURS = FaceColours(np.zeros((64, 64, 64), np.uint8))


def faces(num_frames: int, lost: tuple[int, ...] = ()) -> Array:
    """Records of a face in all frames but the lost ones. The face is in another place in each frame."""
    records = np.zeros(num_frames, FACE_RECORD)
    records["frame"] = np.arange(num_frames)
    records["reason"] = common_pb2.FRAME_REASON_DUBBED
    records["scale"], records["rotation"] = 1.0, np.eye(3)
    records["translation"][:, 0] = np.arange(num_frames)
    return np.delete(records, list(lost))


def shown(folder: Path, pts: tuple[int, ...], rate: Fraction) -> list[int]:
    """Frames of footage with these times, ticks of 1/12800 s, that a live stream shows."""
    info = inspect_video(make_clip(folder / "clip.mp4", Clip(pts=pts, rate=rate)))
    return at_motion_rate(np.arange(len(pts)), info.video).tolist()


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25, list(range(24))),
        (50, list(range(0, 24, 2))),
        (100, list(range(0, 24, 4))),
        (Fraction(25, 2), [frame // 2 for frame in range(47)]),
    ],
)
def test_frame_index_at_25_fps(tmp_path: Path, rate: Fraction, expected: list[int]) -> None:
    """Frame n of a stream is the footage at n/25 seconds."""
    step = int(12800 / rate)
    assert shown(tmp_path, tuple(range(0, 24 * step, step)), Fraction(rate)) == expected


def test_footage_of_variable_rate_keeps_its_pauses(tmp_path: Path) -> None:
    found = np.array(shown(tmp_path, VARIABLE_PTS, Fraction(25)))
    wanted = VARIABLE_PTS[0] + 512 * np.arange(len(found))
    off = np.abs(np.array(VARIABLE_PTS)[found] - wanted)
    assert (off == np.abs(np.array(VARIABLE_PTS)[:, None] - wanted).min(axis=0)).all()


def test_whole_span_is_shown_up_to_two_minutes(tmp_path: Path) -> None:
    assert shown(tmp_path, tuple(range(0, 300 * 512, 512)), Fraction(25)) == list(range(300))
    slow = tuple(range(0, 200 * 12800, 12800))
    assert len(shown(tmp_path, slow, Fraction(1))) == MAX_FRAMES


def test_short_stretches_are_left_out() -> None:
    records = faces(20, lost=(MIN_FRAMES - 1, 12))
    runs = unbroken_spans(records["frame"], records["reason"])
    assert [records["frame"][run[[0, -1]]].tolist() for run in runs] == [[5, 11], [13, 19]]


def test_a_cut_ends_a_stretch() -> None:
    records = faces(20)
    runs = unbroken_spans(records["frame"], records["reason"], shot_cuts=(0, 8))
    assert [records["frame"][run[[0, -1]]].tolist() for run in runs] == [[0, 7], [8, 19]]


def test_span_is_stored_and_read(tmp_path: Path) -> None:
    """The longest stretch is stored with the pose and mouth of each of its frames."""
    records = faces(40, lost=(6,))
    info = inspect_video(make_clip(tmp_path / "clip.mp4", Clip(pts=tuple(range(0, 40 * 512, 512)))))

    def read(places: Int64) -> Array:
        return records[places]

    found = longest_span(records["frame"], records["reason"], info.video, read)
    assert found is not None
    store = ArtefactStore(str(tmp_path / "artefacts"))
    span = LiveSpan.of_arrays(store.get_arrays(store.put_arrays(found.arrays())).arrays)
    assert span.frames.tolist() == list(range(7, 40))
    assert [span.pose(place).translation[0] for place in (0, 1, 32)] == [7.0, 8.0, 39.0]
    assert span.mouth(3).shape == (59, 2)
    np.testing.assert_array_equal(span.colours.table, found.colours.table)


def test_covers_are_stored_and_read(tmp_path: Path) -> None:
    """The span keeps the pixels of what covers the face in each of its frames, whose colours are no colours of the face."""
    records, hand = faces(30, lost=(4,)), np.zeros((160, 160), np.bool_)
    hand[90:, :70] = True
    records["mouth"] = head_template()[list(MOUTH_AREA)]
    records["pixels"] = 120
    records["pixels"][:, hand] = (20, 90, 160)
    info = inspect_video(make_clip(tmp_path / "clip.mp4", Clip(pts=tuple(range(0, 30 * 512, 512)))))

    def read(places: Int64) -> Array:
        return records[places]

    def covers(found: Array) -> list[Cover | None]:
        return [Cover(hand, 0.2, 0.3) if record["frame"] >= 10 else None for record in found]

    free = longest_span(records["frame"], records["reason"], info.video, read)
    behind = longest_span(records["frame"], records["reason"], info.video, read, covers=covers)
    assert free is not None
    assert behind is not None
    assert all(free.cover(place) is None for place in range(len(free)))
    span = LiveSpan.of_arrays(behind.arrays())
    assert span.frames.tolist() == list(range(5, 30))
    for place, frame in enumerate(span.frames.tolist()):
        np.testing.assert_array_equal(span.cover(place), hand if frame >= 10 else None)
    assert (free.colours.table != behind.colours.table).any()


def test_no_stretch_no_span(tmp_path: Path) -> None:
    records = faces(12, lost=(3, 7, 11))
    info = inspect_video(make_clip(tmp_path / "clip.mp4"))
    assert longest_span(records["frame"], records["reason"], info.video, lambda places: records[places]) is None
