from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from services.common.array_types import Float64, UInt8
from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.key_pictures import match_colour
from services.render.pairs import LIPS, MASK
from services.render.renderers.hetero.renderer import (
    EMBEDDING_SIZE,
    GENERATOR_INPUTS,
    NUM_CHANNELS,
    NUM_REFERENCES,
    REACH,
    REFERENCE,
    WINDOW_FRAMES,
    choose_references,
    composite,
    in_light_of,
    landmark_lines,
    packed,
    unpacked,
    window_picture,
    with_other_reference,
)

Mask = npt.NDArray[np.uint8]


def test_line_kinds_have_channels(bank: MouthBank) -> None:
    """Each kind of line has a channel of its own."""
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


def test_window_layout_matches_losses(bank: MouthBank, mask: Mask) -> None:
    """The window is laid out as the losses expect."""
    window = [np.full((160, 160, 3), level, np.uint8) for level in range(WINDOW_FRAMES)]
    picture = window_picture(window, bank.boxes[0], mask, bank.box_landmarks[6], bank.boxes[9])
    assert picture.shape == (160, 160, NUM_CHANNELS)
    assert [int(level) for level in picture[0, 0, [0, *range(8, NUM_CHANNELS, 3)]]] == [REACH, 0, 1, 3, 4]
    channels = np.arange(NUM_CHANNELS)
    assert [channel for part in GENERATOR_INPUTS for channel in channels[part]] == np.delete(channels, REFERENCE).tolist()
    assert np.array_equal(picture[..., REFERENCE], match_colour(bank.boxes[9], bank.boxes[0], mask))
    assert np.array_equal(picture[..., MASK], mask)
    assert set(np.unique(picture[..., LIPS])) >= {0, 127, 255}


def test_another_number_of_frames_is_refused(bank: MouthBank, mask: Mask) -> None:
    with pytest.raises(ValueError, match="5 frames expected, 4 given"):
        window_picture([bank.boxes[0]] * 4, bank.boxes[0], mask, bank.box_landmarks[6], bank.boxes[9])


def lips_over_cheeks(picture: UInt8, bank: MouthBank) -> Float64:
    """Colour of the lower lip as a share of the cheeks' colour, float64 [3]."""
    x, y = bank.box_landmarks[0, [15, 35]].mean(axis=0).round().astype(int)
    return np.asarray(picture[y - 1 : y + 2, x - 6 : x + 7].mean((0, 1)) / picture[70:90, 10:30].mean((0, 1)), np.float64)


@pytest.mark.parametrize("light", [(0.6, 0.6, 0.6), (0.8, 0.6, 0.5)])
def test_dim_light_keeps_lip_colour(light: tuple[float, float, float], bank: MouthBank, mask: UInt8) -> None:
    """Under less light, lips keep their colour beside the cheeks."""
    picture = bank.boxes[0]
    dark = np.rint(picture * np.array(light)).astype(np.uint8)
    lit = in_light_of(picture, dark, mask)
    assert np.abs(lit.astype(int) - dark).mean() < 1.0
    np.testing.assert_allclose(lips_over_cheeks(lit, bank), lips_over_cheeks(picture, bank), atol=0.03)


def test_under_more_light_differences_do_not_grow(bank: MouthBank, mask: UInt8) -> None:
    dim = np.rint(bank.boxes[0] * np.array([0.8, 0.6, 0.4])).astype(np.uint8)
    # A highlight without any colour.
    dim[120:126, 70:90] = np.minimum(dim[120:126, 70:90].astype(int) + 40, 255)
    lit = in_light_of(dim, bank.boxes[0], mask).astype(int)
    skin = np.median(lit[70:90, 10:30] - dim[70:90, 10:30].astype(int), axis=(0, 1))
    assert (skin > 20).all()
    gleam = np.median(lit[120:126, 70:90] - dim[120:126, 70:90].astype(int), axis=(0, 1))
    np.testing.assert_allclose(gleam, skin, atol=2)


def test_frame_light_keeps_picture(bank: MouthBank, mask: UInt8) -> None:
    """A picture in the light of the frame stays."""
    assert np.array_equal(in_light_of(bank.boxes[0], bank.boxes[0], mask), bank.boxes[0])


def test_hair_beside_a_cheek_does_not_count(bank: MouthBank, mask: UInt8) -> None:
    haired = bank.boxes[0].copy()
    haired[:, :20] = 10
    change = in_light_of(bank.boxes[0], haired, mask).astype(int) - bank.boxes[0]
    assert np.abs(change).max() <= 4


def test_nothing_under_the_mask_is_looked_at(bank: MouthBank, mask: UInt8) -> None:
    hidden = np.where(mask[..., None] > 0, np.uint8(255), bank.boxes[3])
    assert np.array_equal(in_light_of(bank.boxes[9], hidden, mask), in_light_of(bank.boxes[9], bank.boxes[3], mask))
    everywhere = np.full_like(mask, 255)
    assert np.array_equal(in_light_of(bank.boxes[9], bank.boxes[3], everywhere), bank.boxes[9])


def test_a_state_packs_and_unpacks(bank: MouthBank) -> None:
    numbers = np.random.default_rng(0).normal(0, 0.1, 100).astype(np.float32)
    got, picture = unpacked(packed(numbers, bank.boxes[3]))
    assert np.array_equal(got, numbers)
    assert np.array_equal(picture, bank.boxes[3])


def test_a_state_of_zeros_has_a_grey_picture() -> None:
    _, picture = unpacked(np.zeros_like(packed(np.zeros(4, np.float32), np.zeros((160, 160, 3), np.uint8))))
    assert (picture == 128).all()


def test_other_reference_drops_own_vector() -> None:
    """Another reference drops the vector of the own one."""
    numbers = np.ones(EMBEDDING_SIZE + 3, np.float32)
    assert np.flatnonzero(with_other_reference(numbers)).tolist() == [0, 1, 2]


def test_references_cover_openings(bank: MouthBank) -> None:
    """The references stand for all openings and the served one is open."""
    rows = choose_references(bank)
    openings = mouth_opening(bank.mouth)
    assert len(set(rows.tolist())) == NUM_REFERENCES
    assert {openings.min(), openings.max()} <= set(openings[rows])
    assert np.median(openings) < openings[rows[0]] < openings.max()


def test_a_bank_of_one_frame_has_one_reference(bank: MouthBank) -> None:
    one = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
    assert choose_references(one).tolist() == [0]
