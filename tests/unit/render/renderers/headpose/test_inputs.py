from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from services.common.array_types import UInt8
from services.common.face.lip_pictures import lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures, choose_keys, matched_keys
from services.render.renderers.headpose.inputs import (
    DRAWN_WINDOW,
    PICTURE_CHANNELS,
    RENDERED,
    RENDERED_BEFORE,
    SHOWN_KEYS,
    coverage,
    drawn_picture,
    rendered_frame,
    shown_keys,
    still_frame,
)


def drawn(box: UInt8) -> UInt8:
    """A drawn face of the left half of the box, 30 levels too dark."""
    face = np.zeros_like(box)
    face[:, :80] = np.maximum(box[:, :80], 31) - 30
    return face


def test_drawn_face_where_it_covers_fill_where_not_footage_outside(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    box = bank.boxes[0]
    fill = np.full_like(box, 77)
    made = rendered_frame(box, mask, drawn(box), fill)
    hidden = mask > 0
    assert np.array_equal(made[~hidden], box[~hidden])
    right = hidden.copy()
    right[:, :80] = False
    assert (made[right] == 77).all()
    # The drawn part has come to the footage's light, judged where the face is drawn.
    left = hidden & coverage(drawn(box))
    assert np.abs(made[left].astype(int) - box[left]).mean() < 5


def test_what_the_mask_hides_is_not_looked_at(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    box, face = bank.boxes[0], drawn(bank.boxes[0])
    other = np.where(mask[..., None] > 0, np.uint8(3), box)
    fill = np.full_like(box, 77)
    assert np.array_equal(rendered_frame(box, mask, face, fill), rendered_frame(other, mask, face, fill))


def lips_of(landmarks: npt.NDArray[np.float32], opening: float) -> npt.NDArray[np.uint8]:
    """Pictures of the lips of landmarks whose inner lips are `opening` pixels apart, facing point by facing point."""
    wanted = landmarks.copy()
    upper, lower = slice(21, 30), slice(39, 30, -1)
    wanted[lower] = wanted[upper] + [0.0, opening]
    return lip_pictures(wanted)


def test_a_still_shows_no_teeth_through_shut_lips(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    box, teeth = bank.boxes[0], np.full_like(bank.boxes[0], 250)
    lips = lips_of(bank.box_landmarks[0], 0.0)
    face = np.full_like(box, 90)
    between = cv2.erode(lips[..., 0], np.ones((7, 7), np.uint8)) > 0
    row, column = (int(place.mean().round()) for place in np.nonzero(between))
    face[row, column - 3 : column + 4] = 0  # a gap that the mesh leaves between the lips
    made = still_frame(box, mask, face, teeth, lips)
    through = rendered_frame(box, mask, face, teeth)
    assert (through[row, column - 3 : column + 4] == 250).all()
    beside = made[row - 2, column - 3 : column + 4].astype(int)
    assert np.abs(made[row, column - 3 : column + 4] - beside).max() <= 1


def test_a_still_shows_its_own_teeth_between_open_lips(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    box, teeth = bank.boxes[0], np.full_like(bank.boxes[0], 250)
    lips = lips_of(bank.box_landmarks[0], 12.0)
    face = np.where(lips[..., 1:] > 0, np.uint8(0), np.full_like(box, 90))
    made = still_frame(box, mask, face, teeth, lips)
    deep = cv2.erode(lips[..., 1], np.ones((7, 7), np.uint8)) > 0
    assert (made[deep] >= 249).all()
    skin = (mask > 0) & ~(cv2.dilate(lips[..., 0], np.ones((7, 7), np.uint8)) > 0)
    assert np.array_equal(made[skin], rendered_frame(box, mask, face, teeth)[skin])
    assert np.array_equal(made[mask == 0], box[mask == 0])


def test_a_still_does_not_look_at_what_the_mask_hides(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    box, face = bank.boxes[0], drawn(bank.boxes[0])
    other = np.where(mask[..., None] > 0, np.uint8(3), box)
    fill, lips = np.full_like(box, 77), lip_pictures(bank.box_landmarks[6])
    assert np.array_equal(still_frame(box, mask, face, fill, lips), still_frame(other, mask, face, fill, lips))


def test_channels_of_the_input() -> None:
    window = [np.full((160, 160, 3), level, np.uint8) for level in (1, 2, 3)]
    keys = np.stack([np.full((160, 160, 3), level, np.uint8) for level in (10, 11, 12)])
    mask = np.full((160, 160), 20, np.uint8)
    lips = np.dstack([mask + 1, mask + 2])
    made = drawn_picture(window, mask, lips, keys)
    assert made.shape == (160, 160, PICTURE_CHANNELS)
    assert made[0, 0].tolist() == [10] * 3 + [3] * 3 + [20, 21, 22] + [2] * 3 + [1] * 3 + [11] * 3 + [12] * 3
    assert [made[0, 0, part].tolist() for part in (RENDERED, *RENDERED_BEFORE)] == [[3] * 3, [2] * 3, [1] * 3]
    with pytest.raises(ValueError, match="3 frames"):
        drawn_picture(window[:2], mask, lips, keys)


def test_key_pictures_are_moved_matched_and_given_an_inside(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    shut = KeyPictures(np.repeat(bank.boxes[:1], 3, axis=0), np.repeat(bank.box_landmarks[:1], 3, axis=0))
    wide = KeyPictures(np.repeat(bank.boxes[6:7], 3, axis=0), np.repeat(bank.box_landmarks[6:7], 3, axis=0))
    wanted = bank.box_landmarks[6]
    from_shut, from_wide = (shown_keys(key, bank.boxes[0], mask, wanted) for key in (shut, wide))
    assert from_shut.shape == (SHOWN_KEYS, 160, 160, 3)
    assert np.array_equal(from_wide, matched_keys(wide, bank.boxes[0], mask, wanted))
    inside = lip_pictures(wanted)[..., 1] > 0
    expected = matched_keys(shut, bank.boxes[0], mask, wanted)
    assert np.array_equal(from_shut[:, ~inside], expected[:, ~inside])
    assert np.abs(from_shut[:, inside].astype(int) - expected[:, inside]).mean() > 5


def test_a_larger_box_gives_a_larger_picture_of_the_same_face(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    keys = choose_keys(bank, np.arange(2))  # all but shut, so the mean inside of a mouth is shown too
    pictures = []
    for multiple in (1, 2):
        background, large_mask, face = (
            np.repeat(np.repeat(picture, multiple, axis=0), multiple, axis=1)
            for picture in (bank.boxes[6], mask, drawn(bank.boxes[6]))
        )
        points = multiple * bank.box_landmarks[6]
        shown = shown_keys(keys, background, large_mask, points)
        rendered = rendered_frame(background, large_mask, face, shown[0])
        lips = lip_pictures(points, len(large_mask))
        pictures.append(drawn_picture([rendered] * DRAWN_WINDOW, large_mask, lips, shown).astype(float))
    small, large = pictures
    assert large.shape == (320, 320, PICTURE_CHANNELS)
    halved = large.reshape(160, 2, 160, 2, PICTURE_CHANNELS).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 2.0
