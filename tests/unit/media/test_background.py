from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gateway.media import background
from gateway.media.background import open_background, own_timeline, write_frames
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.types import MediaInfo, Plane
from services.common.errors import MediaUnsupportedError
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip


def _planes(info: MediaInfo) -> list[tuple[Plane, ...]]:
    with VideoReader(info) as reader:
        return [tuple(plane.copy() for plane in frame.planes) for frame in reader]


def _written(source: MediaInfo, chosen: list[int], folder: Path) -> MediaInfo:
    told: list[int] = []
    write_frames(folder / "background.nut", source, chosen, threads=1, on_frame=told.append)
    assert told == list(range(1, len(chosen) + 1))
    return open_background(folder / "background.nut", own_timeline(source, len(chosen)))


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "gray", "yuvj420p"])
@pytest.mark.parametrize(
    "chosen",
    [
        [0, 0, 3, 4, 4, 9],
        [7, 6, 2, 11, 11, 0],
        [*range(12), *range(12), 0, 1],
        [*range(12), *range(10, 0, -1), 0, 1, 2],
        [11, 11, 10, 3, 2, 2],
    ],
)
def test_the_video_shows_exactly_the_chosen_frames(
    tmp_path: Path, name: str, chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = "ffv1" if name != "yuvj420p" else "mjpeg"
    source = probe(make_clip(tmp_path / "clip.mkv", Clip(pixel_format=name, size=(50, 38), codec=codec)))
    monkeypatch.setattr(background, "_BACKWARDS", 3)  # several blocks
    before, after = _planes(source), _planes(_written(source, chosen, tmp_path))
    assert len(after) == len(chosen)
    for shown, frame in zip(after, chosen, strict=True):
        for plane, expected in zip(shown, before[frame], strict=True):
            np.testing.assert_array_equal(plane, expected)


def test_frames_at_footage_rate(tmp_path: Path) -> None:
    """Frames come at the footage s rate from zero."""
    clip = Clip(pts=tuple(range(0, 12012, 1001)), time_base=Fraction(1, 24000), rate=Fraction(24000, 1001), last_duration=1001)
    video = _written(probe(make_clip(tmp_path / "clip.mp4", clip)), [3, 2, 1, 2], tmp_path)
    assert [int(pts) * video.video.time_base for pts in video.video.pts] == [n * Fraction(1001, 24000) for n in range(4)]
    assert video.video.constant_rate == Fraction(24000, 1001)


def test_a_varying_rate_becomes_its_average(tmp_path: Path) -> None:
    source = probe(make_clip(tmp_path / "clip.mp4", Clip(pts=VARIABLE_PTS, time_base=Fraction(1, 15360), last_duration=700)))
    video = own_timeline(source, 40)
    assert video.video.constant_rate == video.video.average_rate
    assert float(video.video.average_rate) == pytest.approx(12 / float(source.video.duration), rel=1e-4)


def test_rotation_and_colours_stay(tmp_path: Path) -> None:
    """Turned footage and its colours stay what they are."""
    source = probe(make_clip(tmp_path / "clip.mp4", Clip(codec="libx264", rotation=90, colour=(1, 1, 1, 1))))
    video = _written(source, [5, 4, 3], tmp_path)
    assert video.video.orientation == source.video.orientation
    assert video.video.colour == source.video.colour


def test_no_metadata_no_leftovers(tmp_path: Path) -> None:
    """Nothing is carried over and nothing is left beside it."""
    source = probe(make_clip(tmp_path / "clip.mkv", Clip(sound_rate=16000, subtitles=True, chapters=True)))
    video = _written(source, [4, 3], tmp_path)
    assert not video.audio
    assert not video.others
    assert sorted(path.name for path in tmp_path.iterdir()) == ["background.nut", "clip.mkv"]


def test_footage_that_breaks_off_leaves_no_video(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.nut", Clip())
    source = probe(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaUnsupportedError):
        _written(source, [11, 0], tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["clip.nut"]
