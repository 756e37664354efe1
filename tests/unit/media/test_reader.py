from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.media.opening import open_input
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_reduced_rgb, to_rgb, to_rgb_within
from gateway.media.types import DecodedFrame, MediaInfo
from services.common.errors import MediaUnsupportedError
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, drawn_planes, make_clip
from tests.written_pictures import write_pictures


@pytest.mark.parametrize(
    "name",
    ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "gray", "gray10le", "gbrp10le", "yuva420p"],
)
def test_frames_decoded_exactly(tmp_path: Path, name: str) -> None:
    """Frames are decoded bit by bit at their times."""
    clip = Clip(pixel_format=name, pts=VARIABLE_PTS, time_base=Fraction(1, 15360), size=(50, 38))
    with VideoReader(probe(make_clip(tmp_path / "clip.mp4", clip))) as reader:
        for index, frame in enumerate(reader):
            assert (frame.index, frame.pts, frame.video.time_base) == (index, VARIABLE_PTS[index], Fraction(1, 15360))
            for plane, drawn in zip(frame.planes, drawn_planes(clip, index), strict=False):
                np.testing.assert_array_equal(plane, drawn)
    assert index == len(VARIABLE_PTS) - 1


def test_packed_rgb_as_planes(tmp_path: Path) -> None:
    """Packed RGB comes as planes of the same samples."""
    picture = np.random.default_rng(1).integers(0, 256, (16, 32, 3), np.uint8)
    with VideoReader(probe(write_pictures(tmp_path / "packed.nut", [picture], "rawvideo", pixel_format="rgb24"))) as reader:
        frame = next(iter(reader))
        np.testing.assert_array_equal(np.dstack([frame.planes[2], frame.planes[0], frame.planes[1]]), picture)
        np.testing.assert_array_equal(to_rgb(frame), picture)


def test_range_equals_whole(tmp_path: Path) -> None:
    """A range of frames holds the same frames as the whole."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(codec="libx264")))
    with VideoReader(info) as reader:
        whole = [frame.planes[0].copy() for frame in reader]
        part = {frame.index: frame.planes[0].copy() for frame in reader.frames(4, 9)}
    assert list(part) == [4, 5, 6, 7, 8]
    assert all(np.array_equal(part[index], whole[index]) for index in part)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "ffv1"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "nut"])
def test_sought_frames_equal_whole(tmp_path: Path, codec: str, ending: str) -> None:
    """Frames behind a seek have the samples of a whole decoding, in any container and at any place."""
    clip = Clip(codec=codec, pts=tuple(range(512, 300 * 512, 512)))
    if (codec, ending) in {("libx265", "nut"), ("ffv1", "mp4")}:
        pytest.skip("the container does not hold the codec")
    info = probe(make_clip(tmp_path / f"clip.{ending}", clip))
    with VideoReader(info) as reader:
        whole = [frame.planes[0].copy() for frame in reader]
        for start, stop in ((0, 3), (20, 30), (150, 153), (251, 299)):
            found = {frame.index: frame.planes[0].copy() for frame in reader.frames_from(start, stop)}
            assert list(found) == list(range(start, stop))
            assert all(np.array_equal(found[index], whole[index]) for index in found)


@pytest.mark.parametrize(("codec", "ending"), [("libx264", "mp4"), ("libx264", "avi"), ("ffv1", "mkv")])
def test_span_has_frames_of_whole(tmp_path: Path, codec: str, ending: str) -> None:
    """The frames of a span count from 0, and have the samples and the times of the whole video, sought or not."""
    info = probe(make_clip(tmp_path / f"clip.{ending}", Clip(codec=codec, pts=tuple(range(0, 200 * 512, 512)))))
    with VideoReader(info) as reader:
        whole = [(frame.pts, frame.planes[0].copy()) for frame in reader]
    for first in (3, 120, 199):
        span = replace(info, video=info.video.span(first, 1))
        with VideoReader(span) as reader:
            found = [(frame.index, frame.pts, frame.planes[0].copy()) for frame in reader]
        assert [index for index, _, _ in found] == list(range(span.video.num_frames))
        for (_, time, plane), (expected, samples) in zip(found, whole[first:], strict=False):
            assert (time, plane.tobytes()) == (expected, samples.tobytes())


def test_planes_are_read_only(tmp_path: Path) -> None:
    with VideoReader(probe(make_clip(tmp_path / "clip.mp4"))) as reader:
        frame = next(iter(reader))
        with pytest.raises(ValueError, match="read-only"):
            frame.planes[0][0, 0] = 1


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p"])
@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 1, 6, 6), (1, 2, 1, 1), (5, 2, 5, 6), (9, 1, 9, 14)])
def test_rgb_matrix_and_range(tmp_path: Path, name: str, tags: tuple[int, int, int, int]) -> None:
    """RGB follows the matrix and range of the footage."""
    info = probe(make_clip(tmp_path / "clip.mkv", Clip(pixel_format=name, colour=tags, pts=(0,))))
    with VideoReader(info) as reader:
        frame = next(iter(reader))
        rgb = to_rgb(frame).astype(float)
        size = (info.video.width, info.video.height)
        full = np.dstack(
            [cv2.resize(np.asarray(plane, np.float32), size, interpolation=cv2.INTER_LINEAR) for plane in frame.planes]
        )
    model = info.video.colour_model
    expected = 255 * np.clip((full - model.offset) @ np.linalg.inv(model.matrix).T, 0, 1)
    assert np.abs(rgb - expected).mean() < 2.0
    assert np.abs(rgb.mean((0, 1)) - expected.mean((0, 1))).max() < 1.2


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_rgb_upright_points_map_back(tmp_path: Path, degrees: int) -> None:
    """RGB is upright and points map back to coded samples."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(pixel_format="yuv444p", rotation=degrees, pts=(0,))))
    orientation = info.video.orientation
    with VideoReader(info) as reader:
        frame = next(iter(reader))
        rgb = to_rgb(frame)
        coded = frame.picture.to_ndarray(format="rgb24", src_colorspace=5, src_color_range=1)
    np.testing.assert_array_equal(rgb, np.rot90(coded, degrees // 90))
    assert rgb.shape[:2] == orientation.upright_size[::-1]
    for x, y in [(0, 0), (7, 3), (rgb.shape[1] - 1, rgb.shape[0] - 1)]:
        place = orientation.coded_from_upright @ [x, y, 1]
        column, row = np.rint(place).astype(int)
        np.testing.assert_allclose(place, [column, row], atol=1e-9)
        np.testing.assert_array_equal(rgb[y, x], coded[row, column])


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p", "yuv411p", "yuva420p", "gbrp10le"])
@pytest.mark.parametrize("rotation", [0, 90])
def test_region_equals_whole_frame(tmp_path: Path, name: str, rotation: int) -> None:
    """The pixels of a region, which may reach beyond the frame, are those of the whole frame."""
    clip = Clip(pixel_format=name, pts=(0, 512), size=(702, 518), rotation=rotation)
    with VideoReader(probe(make_clip(tmp_path / "clip.mp4", clip))) as reader:
        for frame in reader:
            whole = to_rgb(frame)
            for left, top, right, bottom in [(40, 30, 171, 190), (-20, 300, 90, 540), (401, 201, 900, 330), (800, 0, 900, 20)]:
                part = to_rgb_within(frame, (left, top, right, bottom))
                place = np.s_[max(top, 0) : bottom, max(left, 0) : right]
                np.testing.assert_array_equal(part.in_frame(frame.video).rgb[place], whole[place])


@pytest.mark.parametrize(
    ("name", "factor"),
    [("yuv420p", 2), ("yuv411p", 2), *((name, 4) for name in ("yuv420p", "yuv422p10le", "yuv444p", "yuva420p", "gbrp10le"))],
)
@pytest.mark.parametrize("rotation", [0, 90])
def test_reduced_frame_is_reduced_picture(tmp_path: Path, name: str, factor: int, rotation: int) -> None:
    clip = Clip(pixel_format=name, pts=(0,), size=(702, 518), rotation=rotation)
    with VideoReader(probe(make_clip(tmp_path / "clip.mp4", clip))) as reader:
        frame = next(iter(reader))
        reduced, whole = to_reduced_rgb(frame, factor), to_rgb(frame)
    size = (whole.shape[1] // factor, whole.shape[0] // factor)
    assert reduced.shape == (size[1], size[0], 3)
    np.testing.assert_allclose(reduced, cv2.resize(whole, size, interpolation=cv2.INTER_AREA), atol=6)


def test_anamorphic_footage_is_shown_with_square_pixels(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(codec="libx264", sample_aspect=Fraction(4, 3))))
    assert info.video.orientation.upright_size == (128, 80)
    with VideoReader(info) as reader:
        assert to_rgb(next(iter(reader))).shape == (80, 128, 3)
    np.testing.assert_allclose(info.video.orientation.coded_from_upright @ [127.5, 0, 1], [95.5, 0])


def test_a_damaged_video_says_where_it_breaks(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", Clip(codec="libx264"))
    info = probe(path)
    with open_input(path) as source:
        place = [(packet.pos, packet.size) for packet in source.demux(video=0) if packet.size][5]
    content = bytearray(path.read_bytes())
    content[place[0] : place[0] + place[1]] = np.random.default_rng(0).bytes(place[1])
    path.write_bytes(bytes(content))
    with VideoReader(info) as reader, pytest.raises(MediaUnsupportedError, match=r"breaks after 0\.\d+ s") as caught:
        for _ in reader:
            pass
    assert str(path) in str(caught.value)


def test_memory_independent_of_length(tmp_path: Path) -> None:
    """Memory does not grow with the length of the video."""

    def video(frames: int) -> MediaInfo:
        return probe(make_clip(tmp_path / f"{frames}.mp4", Clip(codec="libx264", pts=tuple(range(0, frames * 512, 512)))))

    def peak(info: MediaInfo, *, keep: bool = False) -> int:
        kept: list[DecodedFrame] = []
        gc.collect()
        tracemalloc.start()
        try:
            with VideoReader(info) as reader:
                for frame in reader:
                    to_rgb(frame)
                    if keep:
                        kept.append(frame)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Some kilobytes come and go with other threads and the collector. 50 frames that somebody keeps are far more, even without
    # their samples, which lie in FFmpeg's memory.
    short, long = peak(video(25)), video(75)
    assert peak(long) - short < (peak(long, keep=True) - short) / 2


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "gbrp10le", "yuva420p", "gray"])
def test_halved_frames_are_reduced_by_areas(tmp_path: Path, name: str) -> None:
    """Each sample of a halved frame is the mean of four samples, at the time of the frame."""
    clip = Clip(pixel_format=name, pts=VARIABLE_PTS[:3], time_base=Fraction(1, 15360), size=(720, 480))
    info = probe(make_clip(tmp_path / "clip.mkv", clip))
    half = replace(info, video=info.video.halved())
    assert (half.video.width, half.video.height, half.video.num_frames) == (360, 240, 3)
    with VideoReader(info) as reader, VideoReader(half) as halved:
        for frame, small in zip(reader, halved, strict=True):
            assert (small.index, small.pts) == (frame.index, frame.pts)
            for plane, samples in zip(frame.planes, small.planes, strict=True):
                rows, columns = samples.shape
                means = plane.reshape(rows, 2, columns, 2).mean((1, 3))
                np.testing.assert_allclose(samples, means, atol=0.5)


@pytest.mark.parametrize(
    "clip",
    [
        Clip(size=(640, 476), pts=(0,)),
        Clip(size=(722, 576), pts=(0,)),
        Clip(size=(724, 576), pixel_format="yuv411p", pts=(0,)),
        Clip(size=(720, 576), codec="libx264", fields="tff"),
    ],
    ids=["small", "odd chroma", "odd 4:1:1", "interlaced"],
)
def test_some_video_is_not_halved(tmp_path: Path, clip: Clip) -> None:
    video = probe(make_clip(tmp_path / "clip.mkv", clip)).video
    assert video.halved() is video


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_halved_points_map_back(tmp_path: Path, rotation: int) -> None:
    """A pixel of the upright footage lies in the middle of four samples, of which a halved frame has one."""
    video = probe(make_clip(tmp_path / "clip.mp4", Clip(size=(720, 480), rotation=rotation, pts=(0,)))).video
    whole, half = video.coded_from_upright, video.halved().coded_from_upright
    np.testing.assert_array_equal(whole, video.orientation.coded_from_upright)
    for x, y in [(0, 0), (17, 130), (479, 479)]:
        np.testing.assert_allclose(2 * (half @ [x, y, 1]) + 0.5, whole @ [x, y, 1])


def test_halved_video_keeps_its_matrix(tmp_path: Path) -> None:
    """Players take BT.709 for untagged video of 720 lines, and would take BT.601 for its half."""
    video = probe(make_clip(tmp_path / "clip.mkv", Clip(size=(1280, 720), pts=(0,)))).video
    np.testing.assert_array_equal(video.halved().colour_model.matrix, video.colour_model.matrix)
