from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from research.evaluation.protocol import folds_of, wrong_speeches
from research.evaluation.types import FrameRange
from services.common.errors import InvalidRequestError


def test_short_clip_two_folds() -> None:
    """Both folds of a short clip enrol on three fifths and test on two fifths."""
    folds = folds_of(125, Fraction(25))
    assert [(f.enrol, f.test) for f in folds] == [
        (FrameRange(0, 75), FrameRange(75, 125)),
        (FrameRange(50, 125), FrameRange(0, 50)),
    ]


def test_long_clip_enrols_ten_seconds() -> None:
    """A long clip enrols on its first ten seconds."""
    (fold,) = folds_of(607, Fraction(25))
    assert (fold.enrol, fold.test) == (FrameRange(0, 250), FrameRange(250, 607))


@pytest.mark.parametrize(("frames", "count"), [(16 * 30, 2), (509, 2), (510, 1)])
def test_seventeen_seconds_is_the_border_at_ntsc_rate(frames: int, count: int) -> None:
    assert len(folds_of(frames, Fraction(30000, 1001))) == count


def test_ntsc_ten_seconds_are_299_whole_frames() -> None:
    assert folds_of(900, Fraction(30000, 1001))[0].enrol.stop == 299


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="too few"):
        folds_of(20, Fraction(25))


def test_enrolment_ends_at_test_part() -> None:
    """Every length of enrolment ends where the same test part begins."""
    folds = [fold for seconds in (5.0, 10.0, 48.0) for fold in folds_of(1500, Fraction(25), seconds)]
    assert {fold.test for fold in folds} == {FrameRange(1200, 1500)}
    assert [fold.enrol for fold in folds] == [FrameRange(1075, 1200), FrameRange(950, 1200), FrameRange(0, 1200)]


def test_too_long_enrolment_refused() -> None:
    """More enrolment than the clip has before its test part is refused."""
    with pytest.raises(InvalidRequestError, match=r"60 s .* 48\.0 s"):
        folds_of(1500, Fraction(25), 60.0)


def test_one_fold_can_be_chosen_by_its_number() -> None:
    both = folds_of(125, Fraction(25))
    assert [folds_of(125, Fraction(25), only=number) for number in (0, 1)] == [(both[0],), (both[1],)]
    with pytest.raises(InvalidRequestError, match="fold 1: this clip has 1, numbered from 0"):
        folds_of(607, Fraction(25), only=1)


def test_circular_shifts_keep_samples() -> None:
    """Circular shifts keep every sample and never the own alignment."""
    own = np.arange(16_000, dtype=np.float32)
    speeches = wrong_speeches(own)
    assert len(speeches) == 10
    assert len({speech.name for speech in speeches}) == 10
    for speech in speeches:
        assert not np.array_equal(speech.samples, own)
        assert np.array_equal(np.sort(speech.samples), own)


def test_shifts_exceed_lag_search() -> None:
    """Shifts stay beyond the reach of a lag search."""
    own = np.zeros(5 * 16_000, np.float32)
    own[0] = 1.0
    moved = [int(speech.samples.argmax()) for speech in wrong_speeches(own)]
    assert min(moved) == 11_200
    assert max(moved) == len(own) - 11_200
    assert len(set(moved)) == 10


def test_the_control_needs_ten_speeches() -> None:
    with pytest.raises(InvalidRequestError, match="at least 10"):
        wrong_speeches(np.zeros(7, np.float32), count=9)
