"""Pictures of videos at the frames of a training set."""

from fractions import Fraction

import numpy as np
import pytest

from research.face.footage import read_frames
from services.common.errors import MediaUnsupportedError
from tests.unit.research.face.footage_files import write_video


def grey(levels, height=16, width=24):
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def test_steps_of_a_25th_second(tmp_path):
    """Frames are counted in steps of a 25th of a second at any frame rate."""
    write_video(tmp_path / "slow.mkv", grey(range(0, 60, 10)))
    write_video(tmp_path / "fast.mkv", grey(range(0, 60, 5)), Fraction(50))
    for name in ("slow", "fast"):
        found = read_frames(tmp_path / f"{name}.mkv", {0, 3, 5})
        assert {frame: int(picture[0, 0, 0]) for frame, picture in found.items()} == {0: 0, 3: 30, 5: 50}


def test_frames_beyond_the_end_are_left_out(tmp_path):
    write_video(tmp_path / "video.mkv", grey([1, 2]))
    assert set(read_frames(tmp_path / "video.mkv", {1, 2, 40})) == {1}


@pytest.mark.parametrize("rate", [25, 50])
def test_frames_far_from_the_beginning_are_found(tmp_path, rate):
    write_video(tmp_path / "long.mkv", grey([number % 251 for number in range(400 * rate // 25)]), Fraction(rate))
    wanted = {300, 351, 352, 390}
    found = read_frames(tmp_path / "long.mkv", wanted)
    assert {frame: int(picture[0, 0, 0]) for frame, picture in found.items()} == {n: n * rate // 25 % 251 for n in wanted}


def test_pixels_are_square(tmp_path):
    write_video(tmp_path / "wide.mp4", grey([9]), aspect=Fraction(4, 3))
    (picture,) = read_frames(tmp_path / "wide.mp4", {0}).values()
    assert picture.shape == (16, 32, 3)


def test_pictures_are_upright(tmp_path):
    half = np.zeros((16, 24, 3), np.uint8)
    half[:, 12:] = 200
    write_video(tmp_path / "turned.mp4", [half], is_turned=True)
    (picture,) = read_frames(tmp_path / "turned.mp4", {0}).values()
    assert picture.shape == (24, 16, 3)
    assert (picture[:12] == 200).all(), "the right side of the coded picture is the top"
    assert not picture[12:].any()


def test_missing_or_foreign_file_named(tmp_path):
    """A missing video and a file that is no video are named."""
    (tmp_path / "text.mkv").write_text("no video")
    for name in ("missing.mkv", "text.mkv"):
        with pytest.raises(MediaUnsupportedError, match=name):
            read_frames(tmp_path / name, {0})
