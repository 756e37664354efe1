"""Figures of mouth curves, on curves whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.wire import mouth_curves as curves
from services.common.wire.phones import NUM_PHONES, PHONE_INDEX

FRAME_S = 0.04
ALL = np.ones(100, np.bool_)
EVENTS = np.arange(0.5, 18.0, 0.813)
"""Times that fall on every part of a frame."""


def spoken(*parts: tuple[int, int], length: int = 100) -> np.ndarray:
    flags = np.zeros(length, np.bool_)
    for begin, end in parts:
        flags[begin:end] = True
    return flags


def test_stretches_leave_out_the_settling_and_the_attack() -> None:
    assert curves.silent_spans(spoken((30, 60)), FRAME_S) == [slice(0, 25), slice(64, 100)]


def test_only_long_pauses_count() -> None:
    """Short pauses do not count and long ones do."""
    assert curves.silent_spans(spoken((0, 40), (64, 100)), FRAME_S) == []
    assert curves.silent_spans(spoken((0, 40), (65, 100)), FRAME_S) == [slice(44, 60)]


def test_stretches_are_as_long_at_other_frame_rates() -> None:
    assert curves.silent_spans(spoken((60, 120), length=200), FRAME_S / 2) == [slice(0, 50), slice(128, 200)]


def test_speech_without_silence_and_silence_without_speech() -> None:
    assert curves.silent_spans(ALL, FRAME_S) == []
    assert curves.silent_spans(~ALL, FRAME_S) == [slice(0, 100)]


def test_rest_from_fourth_frame() -> None:
    """A mouth at rest from the fourth frame on is at rest."""
    opening = np.where(spoken((25, 64)), 12.0, 2.0)
    assert curves.silence_opening(opening, spoken((30, 60)), FRAME_S, rest=2.0, extent=20.0) == 0.0


def test_one_late_frame_shows() -> None:
    """One late frame tells and the length of the silence does not."""
    opening = np.where(spoken((30, 65)), 12.0, 2.0)
    heard = spoken((30, 60))
    of_100 = curves.silence_opening(opening, heard, FRAME_S, rest=2.0, extent=20.0)
    assert of_100 == pytest.approx((0.0 + 0.5) / 2)
    longer = np.concatenate([opening, np.full(100, 2.0)])
    assert curves.silence_opening(longer, np.concatenate([heard, ~ALL]), FRAME_S, rest=2.0, extent=20.0) == of_100


def test_silence_score_ignores_scale() -> None:
    """The figures of silence do not depend on scale and count no pressed lips."""
    opening, heard = np.where(spoken((30, 70)), 12.0, 1.0), spoken((30, 60))
    share = curves.silence_opening(opening, heard, FRAME_S, rest=2.0, extent=20.0)
    assert share == pytest.approx(0.25)
    assert curves.silence_opening(3 * opening, heard, FRAME_S, rest=6.0, extent=60.0) == pytest.approx(share)


def test_without_silence_nothing_is_measured() -> None:
    assert math.isnan(curves.silence_opening(np.ones(100), ALL, FRAME_S, rest=0.0, extent=1.0))


def test_quick_part_keeps_words_and_drops_the_drift() -> None:
    time = np.arange(500) * FRAME_S
    word, drift = np.sin(2 * np.pi * 4.0 * time), 5.0 * np.sin(2 * np.pi * 0.05 * time)
    inner = slice(25, -25)
    assert curves.spread(curves.quick_part(word + drift, FRAME_S)[inner]) == pytest.approx(curves.spread(word), rel=0.03)
    assert curves.spread(curves.quick_part(drift, FRAME_S)[inner]) < 0.02 * curves.spread(drift)


def test_quick_part_leaves_out_unknown_frames() -> None:
    curve = np.full(60, 7.0)
    curve[20:30] = np.nan
    quick = curves.quick_part(curve, FRAME_S)
    assert np.isnan(quick[20:30]).all()
    assert np.abs(quick[np.isfinite(quick)]).max() == 0.0


def test_steps_do_not_cross_unknown_frames() -> None:
    found = curves.steps(np.array([0.0, 3.0, np.nan, 50.0, 49.0]))
    assert curves.fastest(found) == 3.0
    assert np.isnan(found).tolist() == [True, False, True, True, False]
    assert math.isnan(curves.fastest(np.array([np.nan])))


def posteriorgram(phone: str, centres_ms: list[int]) -> np.ndarray:
    rows = np.zeros((400, NUM_PHONES), np.float32)
    for centre in centres_ms:
        rows[centre // 10 - 3 : centre // 10 + 3, PHONE_INDEX[phone]] = 0.9
    return rows.reshape(100, 4, NUM_PHONES)


def test_phones_have_their_centres_and_groups() -> None:
    assert curves.phone_times(posteriorgram("M", [500, 1500]), curves.CLOSURES) == pytest.approx([0.5, 1.5])
    assert len(curves.phone_times(posteriorgram("M", [500]), curves.OPEN_VOWELS)) == 0
    flash = posteriorgram("M", [])
    flash[10, 2, PHONE_INDEX["M"]] = 1.0
    assert len(curves.phone_times(flash, curves.CLOSURES)) == 0
    with pytest.raises(InvalidRequestError, match="'Q' is no phone"):
        curves.phone_times(flash, ["Q"])


def bumps(late_s: float, frame_s: float = FRAME_S) -> tuple[np.ndarray, np.ndarray]:
    """Openings with a smooth bump of 160 ms at each event, and the times of the frames."""
    seconds = np.arange(0.0, 20.0, frame_s)
    away = seconds[:, None] - EVENTS - late_s
    return np.exp(-0.5 * (away / 0.07) ** 2).sum(axis=1), seconds


def test_edge_phone_is_unknown() -> None:
    """A phone at the edge of the curve is unknown."""
    truth, seconds = bumps(0.0)
    assert np.isnan(curves.around_phones(truth, seconds, np.array([0.1]))).any()


def own_curves(length: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Opening 2 or 12 and width 50 or 46 in turns while the person speaks, 2 and 50 afterwards."""
    turn, speaks = np.arange(length) % 2 == 1, np.arange(length) < length // 2
    return np.where(turn & speaks, 12.0, 2.0), np.where(turn & speaks, 46.0, 50.0), speaks


def test_speaking_motion_of_a_known_person() -> None:
    person = curves.speaking_motion(*own_curves())
    assert person is not None
    assert (person.rest_opening, person.opening_range, person.fastest_step) == (2.0, 10.0, 10.0)
    assert person.opening_spread == pytest.approx(5.0)
    assert person.width_spread == pytest.approx(2.0, rel=0.05)


def test_short_or_still_has_no_motion() -> None:
    """Too little footage and a still mouth have no speaking motion."""
    opening, width, speaks = own_curves()
    assert curves.speaking_motion(np.where(np.arange(200) < 24, opening, np.nan), width, speaks) is None
    assert curves.speaking_motion(np.full(200, 3.0), width, speaks) is None


def test_dub_like_person_same_metrics() -> None:
    """A dub like its person has the figures of its person."""
    opening, width, speaks = own_curves()
    person = curves.speaking_motion(opening, width, speaks)
    assert person is not None
    figures = curves.motion_metrics(person, opening, width, speaks, None)
    assert figures.silence_opening == 0.0
    assert (figures.opening_spread, figures.width_spread, figures.fastest_step) == pytest.approx((1.0, 1.0, 1.0))


def test_a_dub_is_compared_while_it_speaks() -> None:
    opening, width, speaks = own_curves()
    person = curves.speaking_motion(opening, width, speaks)
    assert person is not None
    half = 2.0 + (opening - 2.0) / 2
    half[100:106] = 7.0  # the mouth stays open for six frames after the voice
    figures = curves.motion_metrics(person, half, 50.0 + (width - 50.0) * 0.7, speaks, None)
    assert figures.silence_opening == pytest.approx(0.5)
    assert figures.opening_spread == pytest.approx(0.5)
    assert figures.width_spread == pytest.approx(0.7, rel=0.02)
    assert figures.fastest_step == pytest.approx(0.5)
    silent = curves.motion_metrics(person, half, width, np.zeros(200, np.bool_), None)
    assert math.isnan(silent.opening_spread)
    assert math.isnan(silent.vowel_shift_ms)


def heard_at(phone: str) -> np.ndarray:
    """Return a posteriorgram of 500 frames with a phone about each event."""
    rows = np.zeros((2000, NUM_PHONES), np.float32)
    for event in EVENTS:
        centre = round(100 * event)
        rows[centre - 3 : centre + 3, PHONE_INDEX[phone]] = 0.9
    return rows.reshape(500, 4, NUM_PHONES)


@pytest.mark.parametrize(("trigger", "phone"), [("vowel", "AA"), ("closure", "M")])
@pytest.mark.parametrize("late_ms", [0.0, 30.0])
def test_dub_times_against_real_people(trigger: curves.Trigger, phone: str, late_ms: float) -> None:
    """A dub is late against real people's mouths, whatever the times of its own person."""
    bump, _ = bumps((curves.REAL_MS[trigger] - curves.PHONES_LATE_MS + late_ms) / 1e3)
    opening = bump if trigger == "vowel" else 1.0 - bump
    width, speaks = 50.0 + opening, np.ones(500, np.bool_)
    for of_person in (opening, np.roll(opening, 3)):
        person = curves.speaking_motion(of_person, width, speaks)
        assert person is not None
        figures = curves.motion_metrics(person, opening, width, speaks, heard_at(phone))
        shifts = {"vowel": figures.vowel_shift_ms, "closure": figures.closure_shift_ms}
        assert shifts.pop(trigger) == pytest.approx(late_ms, abs=3.0)
        assert all(math.isnan(other) for other in shifts.values())


def test_correlation_of_known_curves() -> None:
    wave = np.sin(7 * FRAME_S * np.arange(100))
    assert curves.correlation(wave, 3 * wave + 1) == pytest.approx(1.0)
    assert curves.correlation(wave, -wave) == pytest.approx(-1.0)
    assert curves.correlation(wave, np.full_like(wave, 2.0)) == 0.0
    gaps = wave.copy()
    gaps[10:20] = np.nan
    assert curves.correlation(wave, gaps) == pytest.approx(1.0)
    assert np.isnan(curves.correlation(wave[:2], wave[:2]))
