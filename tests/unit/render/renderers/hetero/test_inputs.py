from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from services.common.face.mouth_bank import MouthBank
from services.render.colour_match import match_colour
from services.render.pairs import LIPS, MASK
from services.render.renderers.hetero.inputs import (
    NUM_CHANNELS,
    REACH,
    REFERENCE,
    WINDOW_FRAMES,
    composite,
    landmark_lines,
    window_picture,
)

Mask = npt.NDArray[np.uint8]


def test_each_kind_of_line_has_a_channel_of_its_own(bank: MouthBank) -> None:
    points = bank.box_landmarks[6]
    lines = landmark_lines(points)
    for channel, index in enumerate((0, 20, 48)):
        column, row = np.rint(points[index]).astype(int)
        assert lines[row, column, channel] > 100
    outer, inner, jaw = (np.flatnonzero(lines[..., channel].any(axis=1)) for channel in range(3))
    assert outer[0] < inner[0] <= inner[-1] < outer[-1] < jaw[-1]


def test_a_larger_box_has_wider_lines(bank: MouthBank) -> None:
    small, large = landmark_lines(bank.box_landmarks[6]), landmark_lines(bank.box_landmarks[6] * 2, 320)
    assert large.shape == (320, 320, 3)
    assert large.sum() > 3 * small.sum()


def test_landmarks_far_outside_leave_the_picture_whole() -> None:
    assert landmark_lines(np.full((59, 2), 1e5, np.float32)).shape == (160, 160, 3)


def test_no_pixel_under_the_mask_is_read(bank: MouthBank, mask: Mask) -> None:
    other = np.where(mask[..., None] > 0, 255 - bank.boxes[0], bank.boxes[0])
    made = []
    for background in (bank.boxes[0], other):
        frame = composite(background, mask, bank.box_landmarks[6])
        made.append(window_picture([frame] * WINDOW_FRAMES, background, mask, bank.box_landmarks[6], bank.boxes[9]))
    assert np.array_equal(made[0], made[1])


def test_the_window_is_laid_out_as_the_losses_expect(bank: MouthBank, mask: Mask) -> None:
    window = [np.full((160, 160, 3), level, np.uint8) for level in range(WINDOW_FRAMES)]
    picture = window_picture(window, bank.boxes[0], mask, bank.box_landmarks[6], bank.boxes[9])
    assert picture.shape == (160, 160, NUM_CHANNELS)
    assert [int(level) for level in picture[0, 0, [0, *range(8, NUM_CHANNELS, 3)]]] == [REACH, 0, 1, 3, 4]
    assert np.array_equal(picture[..., REFERENCE], match_colour(bank.boxes[9], bank.boxes[0], mask))
    assert np.array_equal(picture[..., MASK], mask)
    assert set(np.unique(picture[..., LIPS])) >= {0, 127, 255}


def test_another_number_of_frames_is_refused(bank: MouthBank, mask: Mask) -> None:
    with pytest.raises(ValueError, match="5 frames expected, 4 given"):
        window_picture([bank.boxes[0]] * 4, bank.boxes[0], mask, bank.box_landmarks[6], bank.boxes[9])
