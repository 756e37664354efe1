"""Tests of the frames of live footage: exact in any order, in bounded memory, decoded shortly before they are shown."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.compositing.movable import FaceColours
from gateway.dub.analyse.face_records import cut_box
from gateway.dub.learn.live_span import LiveSpan
from gateway.dub.state.native_boxes import native_luma
from gateway.live import frames as live_frames
from gateway.live.footage import LiveFootage
from gateway.live.frames import BLOCK, MAX_DECODED, FootageFrames, num_shown
from gateway.media.inspection import inspect_video
from gateway.media.reader import VideoReader, to_rgb
from services.common.array_types import Bool, Float32, UInt8
from services.common.errors import MediaUnsupportedError, StorageFullError
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import HeadPose, head_template, head_to_box
from services.common.face.landmarks import JAW, MOUTH_AREA
from services.common.face.mouth_detail import grey
from tests.unit.actors.installation import geometry
from tests.unit.media.made_footage import Clip, make_clip

__all__ = ["geometry"]

LONG = 160
"""Frames of footage that is longer than what stays decoded."""
HEAD = head_template().astype(np.float32)
MOUTH = HEAD[list(MOUTH_AREA)]
FACE = ActorGeometry(mean_mouth=MOUTH, closed_mouth=MOUTH, jaw_envelope=HEAD[list(JAW)], anchors=HEAD[list(ANCHORS)])
Open = Callable[..., FootageFrames]


def _file_bytes(frames: FootageFrames) -> int:
    """Size of the file of frames, bytes."""
    return os.fstat(frames._file.fileno()).st_size if frames._file is not None else 0


def span_of(frames: list[int]) -> LiveSpan:
    """A small face that moves to the right, in these frames of the footage."""
    count = len(frames)
    translation = np.zeros((count, 3))
    translation[:, 0], translation[:, 1] = 30.0 + 0.1 * np.arange(count), 40.0
    mouths = np.random.default_rng(1).normal(0.0, 20.0, (count, 59, 3)).astype(np.float32)
    table = np.random.default_rng(2).integers(0, 256, (64, 64, 64)).astype(np.uint8)
    turned = np.repeat(np.eye(3)[None], count, axis=0)
    return LiveSpan(np.array(frames), np.full(count, 0.2), turned, translation, mouths, FaceColours(table))


def span_of_one(*, scale: float) -> LiveSpan:
    """The first frame of footage, with a face in the middle of 320 x 320 pixels and more, all of which may move."""
    middle = 160.0 * max(scale, 1.0)
    return LiveSpan(
        frames=np.array([0]),
        scale=np.array([scale]),
        rotation=np.eye(3)[None],
        translation=np.array([[middle, middle, 0.0]]),
        mouths=MOUTH[None],
        colours=FaceColours(np.full((64, 64, 64), 255, np.uint8)),
    )


@pytest.fixture
def opened(tmp_path: Path, geometry: ActorGeometry) -> Open:
    """Opens frames of a drawn clip."""

    def frames_of(numbers: list[int], **clip: Any) -> FootageFrames:
        made = Clip(codec="libx264", pts=tuple(range(0, (max(numbers) + 1) * 512, 512)), **clip)
        file = make_clip(tmp_path / "clip.mp4", made).open("rb")
        return FootageFrames(inspect_video(Path(file.name)), file, span_of(numbers), geometry)

    return frames_of


def decoded(folder: Path) -> list[UInt8]:
    with VideoReader(inspect_video(folder / "clip.mp4")) as reader:
        return [to_rgb(frame) for frame in reader]


@pytest.mark.parametrize("size", [(96, 80), (98, 70)])
def test_long_footage_is_exact_forwards_and_backwards(opened: Open, tmp_path: Path, size: tuple[int, int]) -> None:
    """Every frame is the decoded frame of the footage, bit by bit, in both directions and again."""
    frames = opened(list(range(LONG)), size=size)
    every, span = decoded(tmp_path), span_of(list(range(LONG)))
    first: dict[int, tuple[UInt8, Bool]] = {}
    for place in [*range(LONG), *range(LONG - 1, -1, -1)]:
        frame = frames.frame(place)
        np.testing.assert_array_equal(frame.picture, every[place])
        np.testing.assert_array_equal(frame.box, cut_box(every[place], span.pose(place)))
        np.testing.assert_array_equal(frame.filmed, span.mouth(place))
        before = first.setdefault(place, (frame.mask, frame.movable))
        np.testing.assert_array_equal(frame.mask, before[0])
        np.testing.assert_array_equal(frame.movable, before[1])
        assert len(frames._decoded) <= MAX_DECODED
    assert _file_bytes(frames) > 0
    np.testing.assert_array_equal(frames.box(70), cut_box(every[70], span.pose(70)))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p", "yuv422p10le", "yuv444p", "gray"])
def test_footage_of_any_format_is_exact(opened: Open, tmp_path: Path, pixel_format: str) -> None:
    frames, places = opened(list(range(100)), pixel_format=pixel_format), [*range(100), 3, 50]
    every = decoded(tmp_path)
    for place in places:
        np.testing.assert_array_equal(frames.frame(place).picture, every[place])


def test_planes_with_another_picture_are_not_used(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes that would be shown in other colours than the decoder's frame are replaced by the picture."""
    frames, places = opened(list(range(100))), [*range(100), 3, 50]
    every = decoded(tmp_path)
    planes = frames._codec._planes.decoded
    with monkeypatch.context() as patch:
        patch.setattr(
            frames._codec._planes, "decoded", lambda data: planes(data).reformat(format="yuv444p").reformat(format="gray")
        )
        for place in places:
            np.testing.assert_array_equal(frames.frame(place).picture, every[place])


def test_short_footage_needs_no_file(opened: Open, tmp_path: Path) -> None:
    """Frames of footage that stays decoded are the same objects again. Repeated frames show the same picture."""
    numbers = [number // 2 for number in range(MAX_DECODED)]
    frames, every = opened(numbers), decoded(tmp_path)
    shown = [frames.frame(place) for place in range(len(numbers))]
    for frame, number in zip(shown, numbers, strict=True):
        np.testing.assert_array_equal(frame.picture, every[number])
    assert shown[0].picture is shown[1].picture
    assert all(frames.frame(place) is shown[place] for place in range(len(numbers)))
    assert _file_bytes(frames) == 0


def test_covered_pixels_keep_their_samples(tmp_path: Path) -> None:
    """A mouth moves behind what covers the face, and changes no pixel of the cover."""
    clip, hand = make_clip(tmp_path / "clip.mp4", Clip(codec="libx264", size=(320, 320))), np.zeros((160, 160), np.bool_)
    hand[70:120, 60:] = True
    free, changed = span_of_one(scale=1.0), []
    for span in (free, replace(free, covered=np.packbits(hand)[None])):
        frame = FootageFrames(inspect_video(clip), clip.open("rb"), span, FACE).frame(0)
        moved = frame.moved(head_to_box(MOUTH + np.float32([0, 6, 0]), frame.pose))
        shown = moved.with_mouth(np.full((160, 160, 3), 200, np.uint8), frame.mask)
        changed.append(int((cut_box(cv2.absdiff(shown, frame.picture), frame.pose)[hand] > 1).sum()))
    assert changed[0] > 1000
    assert changed[1] == 0


def test_mouths_have_fine_detail(tmp_path: Path) -> None:
    """With detail, a mouth at the resolution of the footage is as fine as the footage itself. The rest of the frame stays."""
    clip = make_clip(tmp_path / "clip.mp4", Clip(codec="libx264", size=(480, 480)))
    stripes = np.full((320, 320), 128, np.uint8)
    stripes[:, ::3] = 150
    frame = FootageFrames(inspect_video(clip), clip.open("rb"), span_of_one(scale=1.5), FACE).frame(0)
    target, box = head_to_box(MOUTH, frame.pose), np.full((160, 160, 3), 120, np.uint8)
    soft, sharp = (frame.moved(target, detail).with_mouth(box, frame.mask) for detail in (None, stripes))
    shown = frame.moved(target, stripes).move.mask
    deep = cv2.resize(shown, (320, 320), interpolation=cv2.INTER_NEAREST) == 255
    filmed, drawn, fine = (fineness(picture, frame.pose)[deep].std() for picture in (frame.picture, soft, sharp))
    assert drawn < 0.2 * filmed
    assert 0.5 * filmed < fine < 1.5 * filmed
    beside = cv2.dilate(frame.mask, np.ones((9, 9), np.uint8)) == 0
    assert not cut_box(cv2.absdiff(soft, sharp), frame.pose)[beside].any()


def fineness(picture: UInt8, pose: HeadPose) -> Float32:
    """The finest band of a picture's luma around the mouth, float32 [320, 320]."""
    luma = native_luma(grey(picture), pose, 2).astype(np.float32)
    return np.asarray(luma - cv2.GaussianBlur(luma, (0, 0), 1.0), np.float32)


def test_a_later_stream_begins_anywhere(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that goes on in the middle decodes the blocks that it shows, in either direction."""
    frames, every = opened(list(range(LONG))), decoded(tmp_path)
    filled, made = set[int](), FootageFrames._make

    def make(self: FootageFrames, place: int) -> None:
        filled.add(place)
        made(self, place)

    monkeypatch.setattr(FootageFrames, "_make", make)
    for place in range(140, 120, -1):
        np.testing.assert_array_equal(frames.frame(place).picture, every[place])
    assert {place // BLOCK for place in filled} == {120 // BLOCK, 140 // BLOCK}


def test_first_frame_waits_for_no_other(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is there as soon as it is decoded, while the rest of its block waits."""
    frames, may_go_on = opened(list(range(LONG))), threading.Event()
    made = FootageFrames._make

    def make(self: FootageFrames, place: int) -> None:
        assert place == 0 or may_go_on.wait(60)
        made(self, place)

    monkeypatch.setattr(FootageFrames, "_make", make)
    assert frames.frame(0).picture.shape == (80, 96, 3)
    may_go_on.set()
    assert frames.frame(1).picture.shape == (80, 96, 3)


def test_streams_share_frames(opened: Open, tmp_path: Path) -> None:
    """Several threads at different places get exact frames, and each frame of the footage is decoded once."""
    frames, every = opened(list(range(LONG))), decoded(tmp_path)

    def play(first: int) -> bool:
        return all((frames.frame(place % LONG).picture == every[place % LONG]).all() for place in range(first, first + LONG))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(play, (0, 20, 90, 150))) == [True] * 4
    largest = 3 * 96 * 80 + 160 * 160 * 4 + 160 * 20
    assert _file_bytes(frames) < 1.2 * LONG * largest


def test_full_disk_is_named_and_tried_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, write = opened(list(range(LONG))), os.pwrite

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageFullError, match=r"no space left in .* for the footage of a live stream"):
        frames.frame(5)
    monkeypatch.setattr(os, "pwrite", write)
    assert frames.frame(5).picture.shape == (80, 96, 3)


def test_footage_that_breaks_off_is_named(tmp_path: Path, geometry: ActorGeometry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for a frame gets the decoder's error."""

    def broken(*_: Any) -> Any:
        raise MediaUnsupportedError("the footage breaks off", field="video")

    file = make_clip(tmp_path / "clip.mp4", Clip()).open("rb")
    frames = FootageFrames(inspect_video(Path(file.name)), file, span_of(list(range(12))), geometry)
    monkeypatch.setattr(VideoReader, "frames_from", broken)
    with pytest.raises(MediaUnsupportedError, match="breaks off"):
        frames.frame(3)


def test_forgotten_footage_closes_its_files(opened: Open) -> None:
    """Nothing holds the frames of footage that no stream shows: the disk space is free at once."""
    gc.disable()
    try:
        frames = opened(list(range(LONG)))
        frames.frame(40)
        assert frames._file is not None
        number, worker = frames._file.fileno(), frames._worker
        worker.submit(lambda: None).result(60)
        del frames
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    finally:
        gc.enable()


def test_a_killed_process_leaves_no_file(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    frames = opened(list(range(LONG)))
    frames.frame(0)
    assert list(folder.iterdir()) == []


def test_large_pictures_shorten_the_span(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is bounded in bytes, whatever the size of the pictures."""
    opened(list(range(LONG)))
    info, span = inspect_video(tmp_path / "clip.mp4"), span_of(list(range(LONG)))
    assert num_shown(span, info) == LONG
    monkeypatch.setattr(live_frames, "MAX_FILE_BYTES", 100 * 3 * 96 * 80)
    assert num_shown(span, info) == 100
    monkeypatch.setattr(live_frames, "MAX_FILE_BYTES", 0)
    assert num_shown(span, info) == MAX_DECODED


@pytest.mark.parametrize(("count", "expected"), [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1, 0]), (4, [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2])])
def test_span_plays_forwards_and_backwards(opened: Open, count: int, expected: list[int]) -> None:
    footage = LiveFootage(span_of(list(range(count))), opened(list(range(count))))
    assert [footage.at(index) for index in range(len(expected))] == expected
