from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.face.landmarks import lip_width, mouth_opening
from services.motion.constraints import (
    CONTEXT_PAST,
    LIVE,
    WHOLE,
    ConstraintConfig,
    apply_constraints,
    begins_within_speech,
    closed_lips_weights,
    closure_weights,
    heard_speech,
    silence_weights,
    voiced_share,
)
from tests.unit.motion.synthesised import mouths, rest_mouth

CONFIG = LIVE
AROUND = CONTEXT_PAST + LIVE.frames_ahead
"""Frames around a stretch that the constraints look at."""
RELAXED = mouths(np.full(1, 2.0, np.float32))[0]
"""A mouth at rest, a little open."""


def test_bilabial_shuts_neighbours_half() -> None:
    """A sure bilabial shuts its own frame and half of its neighbours."""
    bilabial = np.zeros(5 + AROUND, np.float32)
    bilabial[CONTEXT_PAST + 2] = 1.0
    near = CONFIG.bilabial_shape[1]
    np.testing.assert_allclose(closure_weights(bilabial, CONFIG), [0, near, 1, near, 0], atol=1e-6)


def test_lips_close_by_encoder_confidence() -> None:
    """Lips close as far as the encoder hears closed lips."""
    closed = np.array([0.0, CONFIG.closed_low, 0.4, CONFIG.closed_high, 1.0], np.float32)
    np.testing.assert_allclose(closed_lips_weights(closed, CONFIG), [0, 0, 0.5, 1, 1], atol=1e-6)


def constrained(mouth: Float32, closing: Float32, speaking: Float32, config: ConstraintConfig = CONFIG) -> Float32:
    return apply_constraints(mouth, RELAXED, rest_mouth(), closing, speaking, config)


def test_closed_lips_touch_and_keep_their_width() -> None:
    open_wide = mouths(np.full(3, 10.0, np.float32), 4.0)
    result = constrained(open_wide, np.array([0, 1, 0], np.float32), np.ones(3 + AROUND, np.float32))
    np.testing.assert_allclose(mouth_opening(result[1]), mouth_opening(rest_mouth()), atol=0.1)
    np.testing.assert_allclose(lip_width(result[1]), lip_width(open_wide[1]), rtol=0.02)


def test_nothing_changes_in_speech_with_open_lips() -> None:
    spoken = mouths(np.linspace(0, 9, 20).astype(np.float32))
    np.testing.assert_array_equal(constrained(spoken, np.zeros(20, np.float32), np.ones(20 + AROUND, np.float32)), spoken)


def test_a_long_silence_gives_exactly_the_closed_mouth() -> None:
    result = constrained(mouths(np.full(10, 7.0, np.float32)), np.zeros(10, np.float32), np.zeros(10 + AROUND, np.float32))
    np.testing.assert_allclose(result, np.repeat(rest_mouth()[None], 10, axis=0), atol=1e-4)


def silence_between(before: int, silent: int, after: int, config: ConstraintConfig) -> tuple[Float32, Float32]:
    """Weights of rest and shut mouth of every frame, with speech around the silence."""
    speech_before, speech_after = np.ones(CONTEXT_PAST + before), np.ones(after + config.frames_ahead)
    return silence_weights(np.concatenate([speech_before, np.zeros(silent), speech_after]).astype(np.float32), config)


@pytest.mark.parametrize(("config", "step"), [(WHOLE, 0.4), (LIVE, 0.5)], ids=["whole", "live"])
def test_rest_four_frames_after_speech(config: ConstraintConfig, step: float) -> None:
    """The mouth is at rest in the fourth frame after the speech and stays."""
    rest, shut = silence_between(5, 60, 5, config)
    assert rest[:5].max() == 0.0
    assert (np.diff(rest[4:9]) >= 0.0).all()
    assert np.diff(rest[4:9]).max() < step
    np.testing.assert_allclose(rest[8:60], 1.0, atol=1e-6)
    # The mouth shuts in the second half of a second of silence.
    assert shut[5 + 11] == 0.0
    np.testing.assert_allclose(shut[5 + 24 : 60], 1.0, atol=1e-6)


@pytest.mark.parametrize("config", [WHOLE, LIVE], ids=["whole", "live"])
def test_mouth_leaves_rest_before_speech(config: ConstraintConfig) -> None:
    """The mouth leaves the rest shortly before the speech."""
    rest, _ = silence_between(5, 60, 5, config)
    onset = 65
    frames = min(5, config.frames_ahead)
    np.testing.assert_allclose(rest[40 : onset - frames], 1.0, atol=1e-6)
    assert (np.diff(rest[onset - frames - 1 : onset + 1]) < 0.0).all()
    assert rest[onset:].max() == 0.0


@pytest.mark.parametrize(("config", "short", "long"), [(WHOLE, 9, 10), (LIVE, 3, 6)], ids=["whole", "live"])
def test_a_short_pause_moves_nothing(config: ConstraintConfig, short: int, long: int) -> None:
    assert silence_between(5, short, 20, config)[0].max() == 0.0
    assert silence_between(5, long, 20, config)[0].max() > 0.3


@pytest.mark.parametrize(("silent", "within"), [(0, True), (9, True), (10, False)])
def test_short_initial_silence_is_pause(silent: int, within: bool) -> None:
    """A silence at the beginning is a pause if it is as short."""
    speaking = np.where(np.arange(60) < silent, np.float32(0.0), np.float32(1.0))
    assert begins_within_speech(speaking, WHOLE) is within
    assert not begins_within_speech(speaking, LIVE)
    assert not begins_within_speech(0.3 * speaking, WHOLE)


def test_lips_touch_independent_of_look_ahead() -> None:
    """Lips touch at the same frame whatever the look ahead."""
    bilabial = np.zeros(20 + AROUND, np.float32)
    bilabial[CONTEXT_PAST + 3] = 1.0
    live, whole = closure_weights(bilabial, LIVE), closure_weights(bilabial, WHOLE)
    assert live.argmax() == whole.argmax() == 3
    np.testing.assert_array_equal(whole, live[: len(whole)])


def test_speechlike_music_keeps_mouth_shut() -> None:
    """Music that sounds a little like speech keeps the mouth shut."""
    speaking = np.zeros(60, np.float32)
    speaking[20:25] = 0.44
    np.testing.assert_array_equal(silence_weights(speaking, CONFIG), 1.0)


def test_weak_speech_beside_strong_speech_is_spoken() -> None:
    speaking = np.full(60, 0.9, np.float32)
    speaking[20:26] = 0.35
    np.testing.assert_allclose(silence_weights(speaking, CONFIG), 0.0, atol=1e-6)


def test_live_frames_without_sound_are_silent() -> None:
    """The end of the sound counts at once in live speech, whatever the detector of speech still says. Quiet speech is sound."""
    speaking, mel = np.full(4, 0.9, np.float32), np.full((4, 4, 80), np.log(1e-6), np.float32)
    mel[0, :, 30], mel[1, 0, 30], mel[2, :2, 30] = -6.0, 2.0, 2.0
    np.testing.assert_array_equal(heard_speech(speaking, mel, LIVE), np.array([0.9, 0.0, 0.9, 0.0], np.float32))
    np.testing.assert_array_equal(heard_speech(speaking, mel, WHOLE), speaking)


@pytest.mark.parametrize(("pause", "share"), [(3, 1.0), (6, 1.0), (12, 0.0)])
def test_correction_only_in_short_pauses(pause: int, share: float) -> None:
    """A correction counts in short pauses and not in long ones."""
    speaking = np.full(CONTEXT_PAST + 60 + WHOLE.frames_ahead, 0.9, np.float32)
    speaking[CONTEXT_PAST + 20 : CONTEXT_PAST + 20 + pause] = 0.0
    found = voiced_share(speaking, WHOLE)
    assert found[:19].min() == found[20 + pause :].min() == 1.0
    assert found[20:].min() == share


def test_a_correction_ends_with_the_speech() -> None:
    speaking = np.zeros(CONTEXT_PAST + 60 + WHOLE.frames_ahead, np.float32)
    speaking[CONTEXT_PAST : CONTEXT_PAST + 20] = 0.9
    found = voiced_share(speaking, WHOLE)
    np.testing.assert_allclose(found[[18, 19, 20, 21, 40]], [1.0, 2 / 3, 1 / 3, 0.0, 0.0], atol=1e-6)
    live = voiced_share(speaking[: CONTEXT_PAST + 60 + LIVE.frames_ahead], LIVE)
    np.testing.assert_array_equal(live[15:], found[15:])


def test_part_of_span_same_frames() -> None:
    """A piece of a span gives the same frames."""
    rng = np.random.default_rng(0)
    frames = mouths(rng.uniform(0, 9, 30).astype(np.float32))
    closing = rng.uniform(0, 1, 30).astype(np.float32)
    speaking = np.where(rng.uniform(0, 1, 30 + AROUND) < 0.3, 0.9, 0.03).astype(np.float32)
    whole = constrained(frames, closing, speaking)
    piece = constrained(frames[11:19], closing[11:19], speaking[11 : 19 + AROUND])
    np.testing.assert_array_equal(piece, whole[11:19])
