"""Planted pauses, and the figures of mouths in them."""

from __future__ import annotations

import numpy as np
import pytest

from research.motion.pauses import (
    Pause,
    PausedSpeech,
    PauseOpening,
    Person,
    forwards_and_backwards,
    groups_of,
    levelled,
    opening_in_pause,
    quiet_rows,
    rows_db,
    with_pauses,
    with_sound,
    with_tone,
)
from services.common.array_types import Float32
from services.motion.style import Style
from tests.unit.motion.made_clips import made_clip

RATE = 16000


def words(*spans_s: tuple[float, float], length_s: float = 5.0) -> Float32:
    """Noise in spans, and hardly any sound between them."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0.0, 1e-5, round(length_s * RATE))
    for begin, end in spans_s:
        samples[round(begin * RATE) : round(end * RATE)] = rng.normal(0.0, 0.1, round(end * RATE) - round(begin * RATE))
    return samples.astype(np.float32)


TALK = words((0.0, 1.9), (2.1, 3.4), (3.6, 5.0))


def person() -> Person:
    empty = np.zeros((59, 3), np.float32)
    nothing = np.zeros(0, np.float32)
    style = Style(empty, empty, empty, nothing, nothing, nothing)
    return Person("a", style, made_clip(0), rest=1.0, extent=10.0)


def test_quiet_rows_are_between_words() -> None:
    """Pauses are planted between words."""
    first, second = quiet_rows(TALK)
    assert 190 <= first < 210
    assert 340 <= second < 360


def test_planted_pause_knows_voice_ends() -> None:
    """A planted pause knows where the voice ends and begins."""
    speech = with_pauses(TALK, [200, 350], [0.5, 1.0])
    assert len(speech.samples) == len(TALK) + 1.5 * RATE
    first, second = speech.pauses
    assert (first.length_s, second.length_s) == (0.5, 1.0)
    assert (first.voice_ends_s, first.voice_begins_s) == pytest.approx((1.9, 2.6))
    assert (second.voice_ends_s, second.voice_begins_s) == pytest.approx((3.9, 5.1))
    assert not speech.samples[2 * RATE : round(2.5 * RATE)].any()


def test_sound_lies_inside_pause() -> None:
    """A planted sound has silence beside it, and the voice around it ends and begins as without it."""
    sound = np.full(RATE // 2, 0.3, np.float32)
    speech = with_sound(TALK, [200, 350], sound)
    assert [pause.length_s for pause in speech.pauses] == pytest.approx([0.9, 0.9])
    assert speech.pauses == with_pauses(TALK, [200, 350], [0.9]).pauses
    for begin_s in (2.2, 2.2 + 1.5 + 0.9):
        begin = round(begin_s * RATE)
        np.testing.assert_allclose(speech.samples[begin : begin + len(sound)], 0.3, atol=1e-3)
        assert np.abs(speech.samples[begin - 1000 : begin]).max() < 1e-3
        assert np.abs(speech.samples[begin + len(sound) : begin + len(sound) + 1000]).max() < 1e-3


def test_frames_between_settling_and_attack() -> None:
    """The mouth must rest from 5 frames after the voice to 5 frames before the voice."""
    assert Pause(0.5, 1.9, 2.6).frames() == slice(53, 61)
    short = Pause(0.1, 1.0, 1.2).frames()
    assert short.start == short.stop


def test_levels() -> None:
    """Speech is brought to -20 dB, and a tone has its level under all of the speech."""
    assert np.median(rows_db(levelled(words((0.0, 5.0))))) == pytest.approx(-20.0, abs=0.3)
    silent = PausedSpeech(np.zeros(5 * RATE, np.float32), ())
    assert np.median(rows_db(with_tone(silent, -45.0).samples)) == pytest.approx(-45.0, abs=0.3)
    assert with_tone(silent, None) is silent


def test_opening_in_pause_by_range() -> None:
    """The opening counts above the rest, in shares of the range."""
    opening = np.full(100, 9.0, np.float32)
    opening[53:61] = [0.5, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert opening_in_pause(opening, Pause(0.5, 1.9, 2.6), person()) == pytest.approx((0.0125, 0.1))
    assert opening_in_pause(opening, Pause(0.1, 1.0, 1.2), person()) is None


def test_groups_by_expression_length_tone() -> None:
    """Pauses are summed up by expression, and by expression, length and room tone."""
    pauses = [
        PauseOpening("a", "v", None, "", False, 0.0, 0.5, 0.01, 0.05),
        PauseOpening("b", "v", None, "", False, 0.0, 0.5, 0.03, 0.2),
        PauseOpening("a", "v", -45.0, "", True, 0.0, 2.0, 0.0, 0.0),
        PauseOpening("a", "v", None, "laugh.wav", True, 0.0, 2.0, 0.5, 0.5),
    ]
    groups = groups_of(pauses)
    assert list(groups) == [
        "kept expression",
        "kept expression, 2 s, noise at -45 dB",
        "kept expression, laugh.wav",
        "neutral",
        "neutral, 0.5 s, digital silence",
    ]
    assert (groups["neutral"].count, groups["neutral"].rested) == (2, 0.5)
    assert groups["neutral"].mean == pytest.approx(0.02)
    assert groups["kept expression"].rested == 0.5


def test_footage_forwards_and_backwards() -> None:
    """Footage is shown forwards and backwards until the speech ends."""
    assert forwards_and_backwards(9, 4).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert forwards_and_backwards(3, 1).tolist() == [0, 0, 0]
