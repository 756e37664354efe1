from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.dub.learn.slow_expression import LARGEST_GAIN, REACH_S, SHUT_PX, FootageMouths, slow_expression, with_slow_expression
from services.common.array_types import Float32, Float64
from services.common.face.crops import head_template
from services.common.face.landmarks import LIP_CORNERS, MOUTH_AREA, lip_width, mouth_area_positions, mouth_opening, shut_lips

FRAMES = 300
SECONDS: Float64 = np.arange(FRAMES) / 25.0
MEAN = head_template()[list(MOUTH_AREA)]
SHUT = shut_lips(MEAN)
ONE_SHOT = np.zeros(FRAMES, np.int64)


def opened(openings: Float64) -> Float32:
    """Mouths with lips this far apart, crop pixels."""
    share = np.asarray(openings / mouth_opening(MEAN), np.float32)
    return SHUT + share[:, None, None] * (MEAN - SHUT)


def smiling(mouths: Float32, width: Float64 | float) -> Float32:
    """The same mouths with corners further apart by `width`, crop pixels."""
    smile = mouths.copy()
    right, left = mouth_area_positions(LIP_CORNERS)
    smile[:, right, 0] -= np.asarray(width, np.float32) / 2
    smile[:, left, 0] += np.asarray(width, np.float32) / 2
    return smile


def talk(rate_hz: float, most: float = 10.0) -> Float64:
    """Openings of a mouth that opens and shuts `rate_hz` times a second, crop pixels."""
    return most / 2 * (1.0 - np.cos(2 * np.pi * rate_hz * SECONDS))


OLD_WORDS, NEW_WORDS = opened(talk(3.0)), opened(talk(2.2))
TALKING = FootageMouths(OLD_WORDS, OLD_WORDS, np.ones(FRAMES, np.bool_), SECONDS, ONE_SHOT)


def test_footage_smile_in_new_mouth() -> None:
    """A smile of the footage is in the new mouth."""
    slow = slow_expression(replace(TALKING, filmed=smiling(OLD_WORDS, 6.0)))
    new = with_slow_expression(NEW_WORDS, slow)
    np.testing.assert_allclose(lip_width(new), lip_width(NEW_WORDS) + 6.0, atol=0.05)
    np.testing.assert_allclose(mouth_opening(new), mouth_opening(NEW_WORDS), atol=0.01)


def test_explained_motion_changes_nothing() -> None:
    """A person who moves as the sound explains changes nothing."""
    np.testing.assert_allclose(with_slow_expression(NEW_WORDS, slow_expression(TALKING)), NEW_WORDS, atol=1e-4)


def test_slow_smile_has_no_lag() -> None:
    """A smile that comes slowly comes neither late nor early."""
    slow = slow_expression(replace(TALKING, filmed=smiling(OLD_WORDS, np.where(SECONDS < 6.0, 0.0, 8.0))))
    width = lip_width(SHUT + slow.offset) - lip_width(SHUT)
    assert width[100] == pytest.approx(0.0, abs=0.05)
    assert width[200] == pytest.approx(8.0, abs=0.05)
    assert width[149:151].mean() == pytest.approx(4.0, abs=0.2)
    np.testing.assert_allclose(width[149::-1][:100] + width[150:][:100], 8.0, atol=0.2)


def test_syllables_of_the_old_words_do_not_pass() -> None:
    slow = slow_expression(replace(TALKING, filmed=smiling(OLD_WORDS, 5.0 * np.sin(2 * np.pi * 3.0 * SECONDS))))
    assert np.abs(slow.offset[50:-50]).max() < 0.01


@pytest.mark.parametrize("rest", [0.0, 3.0, 8.0], ids=["shut lips", "parted lips", "an open mouth"])
def test_lips_that_the_new_words_shut_stay_shut(rest: float) -> None:
    slow = slow_expression(replace(TALKING, filmed=smiling(opened(talk(3.0) * 1.5 + rest), 4.0)))
    said = talk(2.2)
    before, after = mouth_opening(NEW_WORDS), mouth_opening(with_slow_expression(NEW_WORDS, slow))
    shut = said <= SHUT_PX
    assert shut.sum() > 50
    np.testing.assert_allclose(after[shut], before[shut], atol=1e-3)
    assert after[~shut].mean() > before[~shut].mean() + 0.5


def test_smaller_opening_is_kept() -> None:
    """A person who opens the mouth less does so in the new words."""
    slow = slow_expression(replace(TALKING, filmed=opened(talk(3.0, 7.5))))
    wide = talk(2.2) > 5.0
    np.testing.assert_allclose(slow.gain[100:-100], 0.78, atol=0.03)
    assert (mouth_opening(with_slow_expression(NEW_WORDS, slow))[wide] < mouth_opening(NEW_WORDS)[wide]).all()


def test_gain_opens_no_mouth_at_rest() -> None:
    """A person who rests with parted lips keeps this opening, and opens the mouth more only in the new words."""
    rest = 6.0
    slow = slow_expression(replace(TALKING, filmed=opened(talk(3.0) * 1.5)), rest_opening=rest)
    assert slow.gain[100:-100].min() > 1.2
    resting = with_slow_expression(opened(np.full(FRAMES, rest)), slow)
    np.testing.assert_allclose(mouth_opening(resting), rest, atol=1e-3)
    assert mouth_opening(with_slow_expression(NEW_WORDS, slow)).max() > mouth_opening(NEW_WORDS).max() + 0.5


def test_no_gain_is_larger_than_the_largest() -> None:
    for factor in (0.1, 10.0):
        gain = slow_expression(replace(TALKING, filmed=opened(talk(3.0) * factor))).gain
        assert gain.min() >= 1 / LARGEST_GAIN - 1e-6
        assert gain.max() <= LARGEST_GAIN + 1e-6


def test_pause_says_nothing_about_opening() -> None:
    """Parted lips in a pause say nothing about the opening of words."""
    pause = replace(TALKING, filmed=opened(np.full(FRAMES, 6.0)), explained=opened(np.zeros(FRAMES)))
    np.testing.assert_allclose(slow_expression(pause).gain, 1.0)


def test_the_mean_mouth_explains_footage_without_sound() -> None:
    slow = slow_expression(replace(TALKING, filmed=smiling(OLD_WORDS, 6.0), explained=opened(np.array([5.0]))[0]))
    np.testing.assert_array_equal(slow.gain, 1.0)
    np.testing.assert_allclose(lip_width(with_slow_expression(NEW_WORDS, slow)), lip_width(NEW_WORDS) + 6.0, atol=0.1)


def test_expressions_do_not_cross_shot_cuts() -> None:
    shot = (np.arange(FRAMES) >= 150).astype(np.int64)
    slow = slow_expression(replace(TALKING, filmed=smiling(OLD_WORDS, np.where(shot == 0, 6.0, 0.0)), shot=shot))
    width = lip_width(SHUT + slow.offset) - lip_width(SHUT)
    np.testing.assert_allclose(width[:150], 6.0, atol=0.05)
    np.testing.assert_allclose(width[150:], 0.0, atol=0.05)


def test_frames_without_a_usable_face_have_no_say() -> None:
    usable = np.ones(FRAMES, np.bool_)
    usable[140:150] = usable[::7] = False
    filmed = smiling(OLD_WORDS, 6.0)
    filmed[~usable] = np.nan
    width = lip_width(SHUT + slow_expression(replace(TALKING, filmed=filmed, usable=usable)).offset) - lip_width(SHUT)
    np.testing.assert_allclose(width, 6.0, atol=0.1)


def test_few_frames_are_no_expression() -> None:
    """A few frames alone are not taken for an expression."""
    usable = np.zeros(FRAMES, np.bool_)
    usable[150:152] = True
    slow = slow_expression(replace(TALKING, filmed=smiling(OLD_WORDS, 6.0), usable=usable))
    width = lip_width(SHUT + slow.offset) - lip_width(SHUT)
    assert 0.0 < width[150] < 1.5
    assert width[50] == 0.0


def test_pieces_same_expression_as_whole() -> None:
    """Pieces of footage give the same expression as all of it."""
    rng = np.random.default_rng(3)
    filmed = (OLD_WORDS + rng.normal(0.0, 2.0, OLD_WORDS.shape)).astype(np.float32)
    whole = slow_expression(replace(TALKING, filmed=filmed))
    reach = int(REACH_S * 25)
    first, last = 150 - reach, 160 + reach
    part = FootageMouths(
        filmed[first:last], OLD_WORDS[first:last], TALKING.usable[first:last], SECONDS[first:last], ONE_SHOT[first:last]
    )
    piece = slow_expression(part, slice(reach, reach + 10))
    np.testing.assert_allclose(piece.offset, whole.offset[150:160], atol=1e-5)
    np.testing.assert_allclose(piece.gain, whole.gain[150:160], atol=1e-5)
