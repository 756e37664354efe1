"""The factor of the mouth's movement: a scale about the shut mouth, with no opening beyond the person's range."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.face.landmarks import mouth_opening
from services.motion.models import MotionModels
from services.motion.person_predictor import LARGEST_OPENING, with_expressiveness, without_snaps
from services.motion.predictor import encode_mouths
from services.motion.style import FASTEST_STEP, WIDEST_OPENING, Style
from services.motion.types import Footage
from tests.unit.motion.synthesised import mouths

TALKING = mouths(np.array([0.0, 1.0, 4.0, 5.0, 9.0], np.float32))
OPENINGS = mouth_opening(TALKING)


def every(factor: float, count: int = len(OPENINGS)) -> Float32:
    return np.full(count, factor, np.float32)


@pytest.fixture(scope="module")
def person(models: MotionModels) -> Style:
    """A person whose widest opening is the last one of OPENINGS."""
    opening = 5.0 + 4.0 * np.sin(np.arange(100) * 0.7)
    return encode_mouths(Footage(mouths(opening.astype(np.float32)), np.ones(100, np.bool_)), models)


def test_factor_1_keeps_bits(person: Style) -> None:
    """With the factor 1, every mouth keeps its bits."""
    assert with_expressiveness(TALKING, person, every(1.0)).tobytes() == TALKING.tobytes()


def test_scaling_about_shut_mouth(person: Style) -> None:
    """The movement about the shut mouth is scaled and the shut mouth stays."""
    for factor in (0.5, 1.2):
        scaled = with_expressiveness(TALKING, person, every(factor))
        np.testing.assert_allclose(mouth_opening(scaled), factor * OPENINGS, atol=1e-3)
        shut = with_expressiveness(person.closed_mouth[None], person, every(factor, 1))
        np.testing.assert_array_equal(shut[0], person.closed_mouth)


def test_no_mouth_opens_beyond_the_persons_range(person: Style) -> None:
    largest = LARGEST_OPENING * float(person.added[WIDEST_OPENING][0])
    assert largest == pytest.approx(LARGEST_OPENING * OPENINGS[-1], rel=0.02)
    found = mouth_opening(with_expressiveness(TALKING, person, every(1.5)))
    np.testing.assert_allclose(found, np.minimum(1.5 * OPENINGS, largest), atol=1e-3)
    wide = with_expressiveness(mouths(np.array([40.0], np.float32)), person, every(1.0, 1))
    assert mouth_opening(wide)[0] == pytest.approx(largest)


def test_no_widest_opening_no_limit(person: Style, style: Style) -> None:
    """A style without the widest opening has no limit."""
    assert WIDEST_OPENING not in style.added
    np.testing.assert_allclose(mouth_opening(with_expressiveness(TALKING, style, every(1.5))), 1.5 * OPENINGS, atol=1e-3)


def test_the_widest_opening_is_that_of_usable_frames(models: MotionModels) -> None:
    opening = np.where(np.arange(200) < 100, 5.0 + 4.0 * np.sin(np.arange(200) * 0.7), 50.0).astype(np.float32)
    found = encode_mouths(Footage(mouths(opening), np.arange(200) < 100), models).added[WIDEST_OPENING]
    assert found.dtype == np.float32
    assert float(found[0]) == pytest.approx(OPENINGS[-1], rel=0.02)


def test_snap_duration_by_jaw_speed() -> None:
    """A snap takes as many frames as the person's fastest jaw needs."""
    snapping = mouths(np.array([1.0, 1.0, 13.0, 13.0, 13.0, 0.0, 0.0, 0.0, 0.0], np.float32))
    opening, limited = mouth_opening(snapping), mouth_opening(without_snaps(snapping, None, 5.0))
    np.testing.assert_allclose(np.diff(limited), [0.0, 5.0, 5.0, 2.0, -5.0, -5.0, -3.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(limited[[0, 4, 8]], opening[[0, 4, 8]], atol=1e-3)
    assert without_snaps(snapping, None, 13.5).tobytes() == snapping.tobytes()


def test_a_limit_holds_from_piece_to_piece() -> None:
    snapping = mouths(np.array([1.0, 9.0, 0.0, 9.0, 9.0, 2.0], np.float32))
    whole = without_snaps(snapping, None, 3.0)
    first = without_snaps(snapping[:2], None, 3.0)
    assert np.concatenate([first, without_snaps(snapping[2:], first[-1], 3.0)]).tobytes() == whole.tobytes()


def test_the_fastest_step_is_between_neighbouring_usable_frames(models: MotionModels) -> None:
    opening = 8.0 + 6.0 * np.sin(np.arange(100) * 0.2)
    opening[40] += 30.0
    usable = np.arange(100) != 40
    opening[70:] += 20.0
    found = encode_mouths(Footage(mouths(opening.astype(np.float32)), usable), models).added[FASTEST_STEP]
    assert float(found[0]) == pytest.approx(np.abs(np.diff(opening))[69], abs=0.01)


def test_slow_jaw_counts_half(models: MotionModels) -> None:
    """A slow jaw in few seconds counts as half of the widest opening."""
    opening = (8.0 + 6.0 * np.sin(np.arange(100) * 0.05)).astype(np.float32)
    added = encode_mouths(Footage(mouths(opening), np.ones(100, np.bool_)), models).added
    assert added[FASTEST_STEP][0] == pytest.approx(0.5 * added[WIDEST_OPENING][0])
