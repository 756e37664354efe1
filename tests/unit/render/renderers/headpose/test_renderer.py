from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from services.common.array_types import UInt8
from services.common.face.drawing import lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures, choose_keys, matched_keys
from services.render.renderers.headpose.renderer import (
    DRAWN_WINDOW,
    INPUT_KEYS,
    PICTURE_CHANNELS,
    RENDERED,
    RENDERED_BEFORE,
    coverage,
    drawn_picture,
    inner_area,
    input_keys,
    lip_and_skin,
    mean_mouth,
    rendered_frame,
    still_frame,
    with_detail,
    with_interior,
)


def inside_of(picture: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    x, y = points[20:40].mean(axis=0).round().astype(int)
    return np.asarray(picture[y - 2 : y + 3, x - 6 : x + 7].reshape(-1, 3).mean(axis=0), np.float64)


def test_opened_mouth_shows_mean_inside(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """A shut mouth that is opened shows the mean inside."""
    # A shut mouth moved to an open one is all lip.
    lips = np.full((160, 160, 3), (150, 60, 70), np.uint8)
    shut, wide = bank.box_landmarks[0], bank.box_landmarks[6]
    made = with_interior(lips, shut, mask, wide)
    assert np.abs(inside_of(made, wide) - (150, 60, 70)).max() > 10
    assert (made[:40] == lips[:40]).all()
    # Half as bright a face has half as bright an inside.
    dim = with_interior((lips // 2).astype(np.uint8), shut, mask, wide)
    assert np.allclose(inside_of(dim, wide) * 2, inside_of(made, wide), atol=4)


def centre_column(points: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    """Return the column of the middle of the mouth, and the rows of the inner lips there."""
    inner = points[20:40]
    x = round(float(inner[:, 0].mean()))
    near = inner[np.abs(inner[:, 0] - x) < 4.0, 1]
    return x, round(float(near.min())), round(float(near.max()))


def test_dark_red_inside_below_upper_teeth(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """The inside of an opened mouth is light at the upper teeth, and dark and red below them."""
    lips = np.full((160, 160, 3), (150, 60, 70), np.uint8)
    wide = bank.box_landmarks[6]
    made = with_interior(lips, bank.box_landmarks[0], mask, wide).astype(np.float64)
    x, top, bottom = centre_column(wide)
    column = made[top + 1 : bottom - 1, x - 3 : x + 4].mean(axis=1)
    level = column.mean(axis=1)
    teeth, dark = column[: len(column) // 3][np.argmax(level[: len(column) // 3])], column[np.argmin(level)]
    assert teeth.mean() > 2.0 * dark.mean()
    assert dark.mean() < 0.6 * lips[0, 0].mean()
    assert dark[0] / dark[1] > 1.2 * teeth[0] / teeth[1]


def test_teeth_of_a_still_keep_their_height(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """Teeth that a still shows are as high in a wider mouth and in a narrower one as far as the lips show them."""
    own = bank.box_landmarks[3]
    x, top, bottom = centre_column(own)
    picture = bank.boxes[3].copy()
    height = (bottom - top) // 2
    picture[top : top + height, x - 8 : x + 9] = 255
    picture[top + height : bottom, x - 8 : x + 9] = 30
    keys = KeyPictures(np.stack([picture] * 3), np.stack([own] * 3))
    for row in (4, 6):
        target = bank.box_landmarks[row]
        at, above, below = centre_column(target)
        assert below - above > bottom - top
        shown = input_keys(keys, picture, mask, target)[0][above:below, at].mean(axis=-1)
        assert abs(int((shown > 150).sum()) - height) <= 1


def test_unchanged_mouths_left_alone(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """Open mouths and shut ones that stay shut are left alone."""
    shut, wide = bank.box_landmarks[0], bank.box_landmarks[6]
    for own, target in ((wide, wide), (wide, shut), (shut, shut)):
        assert np.array_equal(with_interior(bank.boxes[3], own, mask, target), bank.boxes[3])


def test_brightness_of_lips_and_colour_of_skin(bank: MouthBank) -> None:
    points = bank.box_landmarks[6]
    found = lip_and_skin(bank.boxes[6], np.full((160, 160), 255, np.uint8), points)
    assert found.lip_level == pytest.approx((150 + 60 + 70) / 3, abs=6)
    assert found.skin_chroma.mean() == pytest.approx(1.0, abs=1e-5)
    assert found.skin_chroma[0] > found.skin_chroma[1] > found.skin_chroma[2]


def test_the_area_is_that_between_the_inner_lips() -> None:
    points = np.zeros((59, 2), np.float32)
    points[20:40, 0] = np.r_[0:10, 9:-1:-1]
    points[20:40, 1] = np.r_[np.zeros(10), np.full(10, 4.0)]
    assert inner_area(points) == pytest.approx(36.0)


def test_committed_mean_is_open_mouth() -> None:
    """The mean that comes with dubstage is an open mouth."""
    mean = mean_mouth()
    assert mean.picture.shape == (160, 160, 3)
    assert inner_area(mean.landmarks) > 250
    assert mean.skin_chroma[0] > 1.0 > mean.skin_chroma[2]


def strength(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> float:
    grey = cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY)
    inside = cv2.erode((mask > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return float(np.square(cv2.Laplacian(grey, cv2.CV_32F)[inside]).mean())


def test_soft_face_reaches_key_sharpness(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """A soft face comes to the strength of the key pictures."""
    keys = bank.boxes[[2, 4, 8]]
    soft = cv2.GaussianBlur(bank.boxes[6], (0, 0), 0.6)
    target = 0.9 * float(np.mean([strength(key, mask) for key in keys]))
    assert strength(soft, mask) < 0.6 * target
    made = with_detail(soft, keys, mask)
    assert abs(strength(made, mask) / target - 1.0) < 0.1
    assert np.array_equal(made[mask == 0], soft[mask == 0])
    assert np.abs(made.astype(int) - bank.boxes[6]).mean() < np.abs(soft.astype(int) - bank.boxes[6]).mean()


def test_very_soft_faces_are_not_blown_up(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    soft = cv2.GaussianBlur(bank.boxes[6], (0, 0), 3.0)
    made = with_detail(soft, bank.boxes[[2, 4, 8]], mask).astype(float)
    fine = soft.astype(np.float32) - cv2.GaussianBlur(soft.astype(np.float32), (0, 0), 1.2)
    assert np.abs(made - np.clip(np.rint(soft + 1.5 * mask[..., None] / 255.0 * fine), 0, 255)).max() <= 1


@pytest.mark.parametrize(("shape", "changes"), [((9, 9), True), ((8, 9), False), ((9, 8), False)])
def test_seam_is_no_detail(bank: MouthBank, mask: npt.NDArray[np.uint8], shape: tuple[int, int], changes: bool) -> None:
    """Pixels less than 5 px from the border of the mask do not count."""
    edges = np.abs(cv2.Laplacian(bank.boxes[6].astype(np.float32).sum(axis=2), cv2.CV_32F))
    top, left = np.unravel_index(np.argmax(edges[20:-20, 20:-20]), (120, 120))
    small = np.zeros_like(mask)
    small[top + 16 : top + 16 + shape[0], left + 16 : left + 16 + shape[1]] = 255
    soft = cv2.GaussianBlur(bank.boxes[6], (0, 0), 0.6)
    assert np.array_equal(with_detail(soft, bank.boxes[[6]], small), soft) != changes


def test_a_sharp_face_stays_as_it_is(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    soft = np.stack([cv2.GaussianBlur(box, (0, 0), 1.0) for box in bank.boxes[:3]])
    for seen in (mask, np.zeros_like(mask)):
        assert np.array_equal(with_detail(bank.boxes[6], soft, seen), bank.boxes[6])


def drawn(box: UInt8) -> UInt8:
    """A drawn face of the left half of the box, 30 levels too dark."""
    face = np.zeros_like(box)
    face[:, :80] = np.maximum(box[:, :80], 31) - 30
    return face


def test_drawn_face_fill_footage_regions(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """The picture shows the drawn face where it covers, the fill where it does not, and the footage outside."""
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
    target = landmarks.copy()
    upper, lower = slice(21, 30), slice(39, 30, -1)
    target[lower] = target[upper] + [0.0, opening]
    return lip_pictures(target)


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


def test_still_shows_own_teeth(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """A still shows its own teeth between open lips."""
    box, teeth = bank.boxes[0], np.full_like(bank.boxes[0], 250)
    lips = lips_of(bank.box_landmarks[0], 12.0)
    face = np.where(lips[..., 1:] > 0, np.uint8(0), np.full_like(box, 90))
    made = still_frame(box, mask, face, teeth, lips)
    deep = cv2.erode(lips[..., 1], np.ones((7, 7), np.uint8)) > 0
    assert (made[deep] >= 249).all()
    skin = (mask > 0) & ~(cv2.dilate(lips[..., 0], np.ones((7, 7), np.uint8)) > 0)
    assert np.array_equal(made[skin], rendered_frame(box, mask, face, teeth)[skin])
    assert np.array_equal(made[mask == 0], box[mask == 0])


def test_still_ignores_masked_area(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """A still does not look at what the mask hides."""
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


def test_key_pictures_warped_and_matched(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """Key pictures are moved matched and given an inside."""
    shut = KeyPictures(np.repeat(bank.boxes[:1], 3, axis=0), np.repeat(bank.box_landmarks[:1], 3, axis=0))
    rows = [6, 5, 7]
    wide = KeyPictures(bank.boxes[rows], bank.box_landmarks[rows])
    target = bank.box_landmarks[6]
    from_shut, from_wide = (input_keys(key, bank.boxes[0], mask, target) for key in (shut, wide))
    assert from_shut.shape == (INPUT_KEYS, 160, 160, 3)
    assert np.array_equal(from_wide[0], matched_keys(wide, bank.boxes[0], mask, target)[0])
    inside = lip_pictures(target)[..., 1] > 0
    expected = matched_keys(shut, bank.boxes[0], mask, target)
    assert np.abs(from_shut[:, ~inside].astype(int) - expected[:, ~inside]).max() <= 1
    assert np.abs(from_shut[:, inside].astype(int) - expected[:, inside]).mean() > 5


def test_larger_box_same_face(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """A larger box gives a larger picture of the same face."""
    keys = choose_keys(bank, np.arange(2))  # all but shut, so the mean inside of a mouth is shown too
    pictures = []
    for multiple in (1, 2):
        background, large_mask, face = (
            np.repeat(np.repeat(picture, multiple, axis=0), multiple, axis=1)
            for picture in (bank.boxes[6], mask, drawn(bank.boxes[6]))
        )
        points = multiple * bank.box_landmarks[6]
        shown = input_keys(keys, background, large_mask, points)
        rendered = rendered_frame(background, large_mask, face, shown[0])
        lips = lip_pictures(points, len(large_mask))
        pictures.append(drawn_picture([rendered] * DRAWN_WINDOW, large_mask, lips, shown).astype(float))
    small, large = pictures
    assert large.shape == (320, 320, PICTURE_CHANNELS)
    halved = large.reshape(160, 2, 160, 2, PICTURE_CHANNELS).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 2.0
