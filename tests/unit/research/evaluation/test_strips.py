"""Strips: which frames they show, how they are laid out, and where they may be written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from research.evaluation.strips import busiest_frames, check_strips_folder, mouth_part, mouth_size, strip_of, write_strips
from research.evaluation.types import ClipResult, FrameRange
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose


def test_strip_shows_busiest_frames() -> None:
    opening = np.zeros(200, np.float32)
    opening[40:60:2] = 3.0
    opening[120:150:2] = 3.0
    assert busiest_frames(opening) == FrameRange(119, 149)
    opening[130] = np.nan
    found = busiest_frames(opening)
    assert found is not None
    assert not np.isnan(opening[found.start : found.stop]).any()
    assert (found.start, len(found)) == (30, 30), "the first of equal ones"


@pytest.mark.parametrize("opening", [np.zeros(29), np.array([*np.zeros(29), np.nan, *np.zeros(29)])])
def test_no_strip_of_short_runs(opening: np.ndarray) -> None:
    assert busiest_frames(opening.astype(np.float32)) is None


def test_dub_lies_below_video() -> None:
    video = np.stack([np.full((6, 8, 3), number, np.uint8) for number in range(23)])
    strip = strip_of(video, video + 100)
    assert strip.shape == (6 * 10 - 4, 10 * 12 - 4, 3)
    assert [int(strip[row * 10, 2 * 12, 0]) for row in range(6)] == [2, 102, 12, 112, 22, 122]
    assert int(strip[4 * 10, 3 * 12, 0]) == 128, "grey fills the last row"


def test_strips_are_named_pictures(tmp_path: Path) -> None:
    strip = np.zeros((5, 7, 3), np.uint8)
    strip[..., 0] = 200
    result = ClipResult("a clip.mp4", Fraction(25), 0.0, (), {}, strips={"full": strip})
    paths = write_strips(tmp_path / "new" / "strips", [result, result])
    assert [path.name for path in paths] == ["00_a_clip_mp4_full.png", "01_a_clip_mp4_full.png"]
    written = cv2.imread(str(paths[0]))
    assert written is not None
    assert (written[..., ::-1] == strip).all()


def test_strips_replace_no_foreign_files(tmp_path: Path) -> None:
    check_strips_folder(tmp_path / "new", overwrite=False)
    check_strips_folder(tmp_path, overwrite=False)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="is not empty"):
        check_strips_folder(tmp_path, overwrite=False)
    check_strips_folder(tmp_path, overwrite=True)
    with pytest.raises(InvalidRequestError, match="not a folder"):
        check_strips_folder(tmp_path / "notes.txt", overwrite=True)


def test_mouth_at_border_has_whole_size() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    poses = [HeadPose(0.5, np.eye(3), np.array([x, y, 0.0])) for x, y in ((150, 100), (0, 0), (300, 200))]
    size = mouth_size(poses)
    assert size == (46, 60)
    parts = [mouth_part(frame, pose, size) for pose in poses]
    np.testing.assert_array_equal(parts[0], frame[77:123, 120:180])
    assert [part.shape for part in parts] == [(46, 60, 3)] * 3
