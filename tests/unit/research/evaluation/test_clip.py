"""The real video of an evaluation: its crops with rendered boxes in them, and its sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.evaluation.clip import LAG_FRAME_SAMPLES, check_clip, insert_box, own_speech, shifted
from services.common.errors import InvalidRequestError
from services.common.face.crops import BOX_ORIGIN
from tests.unit.media.made_footage import Clip, make_clip


def test_a_clip_without_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no sound"):
        check_clip(make_clip(tmp_path / "clip.mp4", Clip()))


def test_the_sound_is_as_long_as_the_video(tmp_path: Path) -> None:
    info = check_clip(make_clip(tmp_path / "clip.mp4", Clip(sound_rate=16000)))
    assert len(own_speech(info)) == int(info.video.duration * 16000)


@pytest.mark.parametrize("lag", [0, 2, -3, 1.25, -0.5])
def test_late_sound_is_moved_earlier(lag: float) -> None:
    samples = np.arange(1, 16001, dtype=np.float32)
    moved = shifted(samples, lag)
    assert len(moved) == len(samples)
    offset = round(lag * LAG_FRAME_SAMPLES)
    middle = 8000
    assert moved[middle] == samples[middle + offset]


def test_a_box_is_blended_by_its_mask() -> None:
    crop, box = np.full((256, 256, 3), 10, np.uint8), np.full((160, 160, 3), 110, np.uint8)
    mask = np.zeros((160, 160), np.uint8)
    mask[80:] = 255
    mask[40] = 51
    shown = insert_box(crop, box, mask, np.zeros((160, 160, 2), np.float32))
    x, y = BOX_ORIGIN
    assert (shown[y + 80 : y + 160, x : x + 160] == 110).all()
    assert (shown[y + 40, x : x + 160] == 30).all()
    assert (shown[: y + 40] == 10).all()
    assert (crop == 10).all()
