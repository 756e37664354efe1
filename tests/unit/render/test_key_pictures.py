from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from services.common.array_types import UInt8
from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import (
    NUM_KEPT,
    NUM_KEYS,
    STATE_SIZE,
    KeyPictures,
    choose_keys,
    match_colour,
    matched_keys,
    moved_keys,
    nearest_keys,
    packed,
    unpacked,
)


@pytest.fixture(scope="module")
def keys(bank: MouthBank) -> KeyPictures:
    """The keys that are chosen from all frames."""
    return choose_keys(bank, np.arange(bank.num_frames))


def doubled(picture: UInt8) -> UInt8:
    return np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1)


def test_keys_go_from_shut_to_wide(keys: KeyPictures, bank: MouthBank) -> None:
    kept, openings = mouth_opening(bank.mouth[list(keys.rows)]), mouth_opening(bank.mouth)
    assert len(kept) == NUM_KEPT
    assert (np.diff(kept) > -0.1).all()
    assert kept[0] < openings.min() + 1.0
    assert kept[-1] > openings.max() - 1.0
    assert np.array_equal(keys.pictures[2], bank.boxes[keys.rows[2]])


def test_the_nearest_lips_come_first(bank: MouthBank) -> None:
    keys = choose_keys(bank, np.array([0, 2, 3, 4, 6]))
    nearest = nearest_keys(keys, bank.box_landmarks[3])
    assert nearest.pictures.shape == (NUM_KEYS, 160, 160, 3)
    assert np.array_equal(nearest.pictures[0], bank.boxes[3])
    openings = np.abs(mouth_opening(nearest.landmarks) - mouth_opening(bank.box_landmarks[3]))
    assert (np.diff(openings) > -0.01).all()


def test_opening_outweighs_position(bank: MouthBank) -> None:
    """A mouth as far open is nearer than lips in the same place."""
    target = bank.box_landmarks[0]
    aside, parted = target + np.float32(0.6), target.copy()
    parted[20:40, 1] += np.sign(target[20:40, 1] - target[20:40, 1].mean()) * np.float32(1.5)
    pictures = np.stack([np.full((160, 160, 3), level, np.uint8) for level in (10, 20, 30)])
    keys = KeyPictures(pictures, np.stack([parted, aside, target + np.float32(40.0)]))
    assert nearest_keys(keys, target).pictures[:, 0, 0, 0].tolist() == [20, 10, 30]


def test_keys_stand_for_all_mouths(keys: KeyPictures, bank: MouthBank) -> None:

    def reach(landmarks: npt.NDArray[np.float32]) -> float:
        return float(np.abs(bank.box_landmarks[:, None, :40] - landmarks[None, :, :40]).mean(axis=(2, 3)).min(axis=1).mean())

    first = bank.box_landmarks[: len(set(keys.rows))]
    assert reach(keys.landmarks) <= reach(first)


def test_keys_come_from_the_candidates(bank: MouthBank) -> None:
    candidates = np.array([3, 4, 20])
    assert set(choose_keys(bank, candidates).rows) <= {3, 4, 20}
    assert set(choose_keys(bank, candidates[:1]).rows) == {3}


def test_key_moved_to_other_mouth(keys: KeyPictures, bank: MouthBank) -> None:
    """A key moved to another mouth looks like it."""
    truth = bank.boxes[3]
    inside = (slice(45, 95), slice(45, 115))
    moved = moved_keys(keys, bank.box_landmarks[3])

    def error(picture: npt.NDArray[np.uint8]) -> float:
        return float(np.abs(picture[inside].astype(int) - truth[inside]).mean())

    assert error(moved[-1]) < 0.6 * error(keys.pictures[-1])
    assert error(moved[0]) < error(keys.pictures[0])


def test_key_at_own_landmarks_stays(keys: KeyPictures) -> None:
    """A key stays in place if its own landmarks are the target."""
    moved = moved_keys(keys, keys.landmarks[5])
    assert np.abs(moved[5].astype(int) - keys.pictures[5]).mean() < 0.5


def test_the_state_holds_film_and_keys(keys: KeyPictures) -> None:
    film = np.random.default_rng(0).normal(size=20).astype(np.float32)
    state = packed(film, keys)
    assert state.shape == (20 + STATE_SIZE,)
    assert state.dtype == np.float32
    back, again = unpacked(state)
    assert np.array_equal(back, film)
    assert np.array_equal(again.pictures, keys.pictures)
    np.testing.assert_allclose(again.landmarks, keys.landmarks, atol=1e-4)


def test_nobody_has_the_light_of_the_cheeks(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    background = np.full((160, 160, 3), (170, 120, 100), np.uint8)
    made = matched_keys(unpacked(np.zeros(STATE_SIZE, np.float32))[1], background, mask, bank.box_landmarks[0])
    assert np.abs(made[:, 40:100, 40:120].astype(int) - background[40:100, 40:120]).max() <= 4


def test_masked_area_colours_no_key(keys: KeyPictures, bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """Pixels that the mask hides do not colour the keys."""
    background = bank.boxes[5]
    hidden = np.where(mask[..., None] > 0, np.uint8(9), background)
    one, other = (matched_keys(keys, picture, mask, bank.box_landmarks[9]) for picture in (background, hidden))
    assert np.array_equal(one, other)


def test_larger_box_same_keys(keys: KeyPictures, bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """In a larger box, the same keys are shown enlarged."""
    small = matched_keys(keys, bank.boxes[5], mask, bank.box_landmarks[9])
    background, large_mask = map(doubled, (bank.boxes[5], mask))
    large = matched_keys(keys, background, large_mask, 2.0 * bank.box_landmarks[9])
    assert large.shape == (NUM_KEYS, 320, 320, 3)
    halved = large.reshape(NUM_KEYS, 160, 2, 160, 2, 3).astype(float).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 1.5


def test_the_keys_of_a_still_are_one_picture(bank: MouthBank) -> None:
    assert choose_keys(bank, np.arange(1)).one_picture
    assert not choose_keys(bank, np.arange(2)).one_picture
    assert not unpacked(np.zeros(STATE_SIZE, np.float32))[1].one_picture


def test_texture_light_matched(bank: MouthBank, mask: UInt8) -> None:
    """A texture in another light is brought to the background."""
    truth = bank.boxes[0]
    tint = np.linspace(-26, -14, 160)[None, :, None] * np.array([1.0, 0.8, 0.6])
    texture = np.clip(truth + tint, 0, 255).astype(np.uint8)
    inside = mask > 0
    before = np.abs(texture[inside].astype(float) - truth[inside]).mean()
    after = np.abs(match_colour(texture, truth, mask)[inside].astype(float) - truth[inside]).mean()
    assert after < 0.25 * before


def test_fitting_texture_unchanged(bank: MouthBank, mask: UInt8) -> None:
    """A texture that fits is left as it is."""
    assert np.array_equal(match_colour(bank.boxes[0], bank.boxes[0], mask), bank.boxes[0])


def test_nothing_under_the_mask_is_looked_at(bank: MouthBank, mask: UInt8) -> None:
    hidden = np.where(mask[..., None] > 0, np.uint8(255), bank.boxes[3])
    texture = bank.boxes[9]
    assert np.array_equal(match_colour(texture, hidden, mask), match_colour(texture, bank.boxes[3], mask))


def test_empty_and_full_mask_unchanged(bank: MouthBank) -> None:
    """An empty mask and a full one change nothing."""
    for value in (0, 255):
        flat = np.full((160, 160), value, np.uint8)
        assert np.array_equal(match_colour(bank.boxes[0], bank.boxes[3], flat), bank.boxes[0])


def test_larger_box_same_light(bank: MouthBank, mask: UInt8) -> None:
    """In a larger box, the light is matched as in a small box."""
    texture = np.clip(bank.boxes[9].astype(int) - 20, 0, 255).astype(np.uint8)
    small = match_colour(texture, bank.boxes[3], mask)
    large = match_colour(doubled(texture), doubled(bank.boxes[3]), doubled(mask))
    assert large.shape == (320, 320, 3)
    assert np.abs(large[::2, ::2].astype(int) - small).max() <= 2
