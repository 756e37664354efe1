from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.array_types import Bool, Float32, UInt8
from services.common.face.landmarks import lip_width, mouth_opening
from services.motion.constraints import (
    CONTEXT_PAST,
    FAINT,
    LIVE,
    QUIET,
    TONE,
    WHOLE,
    ConstraintConfig,
    QuietFrames,
    SilenceWeights,
    apply_constraints,
    begins_within_speech,
    closed_lips_weights,
    closure_weights,
    silence_weights,
    voiced_share,
)
from services.motion.features import silence
from services.motion.types import SpeechFeatures
from tests.unit.motion.synthesised import mouths, rest_mouth, speech

CONFIG = LIVE
AROUND = CONTEXT_PAST + LIVE.frames_ahead
"""Frames around a stretch that the constraints look at."""
RELAXED = mouths(np.full(1, 2.0, np.float32))[0]
"""A mouth at rest, a little open."""


def test_bilabial_shuts_neighbours_half() -> None:
    """A sure bilabial shuts its own frame and half of its neighbours."""
    bilabial = np.zeros(5 + AROUND, np.float32)
    bilabial[CONTEXT_PAST + 3] = 1.0
    near = CONFIG.bilabial_shape[1]
    # The lips of a frame belong to the sound of the next frame.
    np.testing.assert_allclose(closure_weights(bilabial, CONFIG), [0, near, 1, near, 0], atol=1e-6)


def test_lips_close_by_encoder_confidence() -> None:
    """Lips close as far as the encoder hears closed lips."""
    closed = np.array([0.0, WHOLE.closed_low, 0.4, WHOLE.closed_high, 1.0], np.float32)
    np.testing.assert_allclose(closed_lips_weights(closed, WHOLE), [0, 0, 0.5, 1, 1], atol=1e-6)


def constrained(mouth: Float32, closing: Float32, speaking: Float32, quiet: Bool | None = None) -> Float32:
    """Constrained mouths of a person whose resting mouth is half as open as the relaxed mouth."""
    resting = rest_mouth() + np.float32(0.5) * (RELAXED - rest_mouth())
    quiet = np.zeros(len(speaking), np.bool_) if quiet is None else quiet
    return apply_constraints(mouth, RELAXED, resting, rest_mouth(), closing, speaking, degrees(quiet), CONFIG)


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


def degrees(quiet: Bool) -> UInt8:
    """Degrees of frames that are too quiet for a voice, or loud."""
    return np.where(quiet, np.uint8(QUIET), np.uint8(0))


def silence_between(before: int, silent: int, after: int, config: ConstraintConfig, *, quiet: bool = False) -> SilenceWeights:
    """Weights of every frame, with speech around a silence that is too quiet for a voice, or has room tone."""
    speech_before, speech_after = np.ones(CONTEXT_PAST + before), np.ones(after + config.frames_ahead)
    speaking = np.concatenate([speech_before, np.zeros(silent), speech_after]).astype(np.float32)
    return silence_weights(speaking, degrees((speaking == 0.0) & quiet), config)


@pytest.mark.parametrize(("config", "step"), [(WHOLE, 0.4), (LIVE, 0.5)], ids=["whole", "live"])
def test_rest_four_frames_after_speech(config: ConstraintConfig, step: float) -> None:
    """The mouth is at rest in the fourth frame after the speech and stays."""
    rest, _, shut = silence_between(5, 60, 5, config)
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
    rest = silence_between(5, 60, 5, config).relaxed
    onset = 65
    frames = min(5, config.frames_ahead)
    np.testing.assert_allclose(rest[40 : onset - frames], 1.0, atol=1e-6)
    assert (np.diff(rest[onset - frames - 1 : onset + 1]) < 0.0).all()
    assert rest[onset:].max() == 0.0


@pytest.mark.parametrize(("config", "short", "long"), [(WHOLE, 9, 10), (LIVE, 3, 6)], ids=["whole", "live"])
def test_a_short_pause_moves_nothing(config: ConstraintConfig, short: int, long: int) -> None:
    assert silence_between(5, short, 20, config)[0].max() == 0.0
    assert silence_between(5, long, 20, config)[0].max() > 0.3


@pytest.mark.parametrize(("config", "short", "long"), [(WHOLE, 5, 6), (LIVE, 3, 6)], ids=["whole", "live"])
def test_quiet_pauses_rest_from_a_quarter_second(config: ConstraintConfig, short: int, long: int) -> None:
    """The mouth rests in a pause without any voice of a quarter of a second, and not in a shorter one."""
    assert silence_between(5, short, 20, config, quiet=True).resting.max() == 0.0
    assert silence_between(5, long, 20, config, quiet=True).resting.max() > 0.3
    assert silence_between(5, long, 20, config).resting.max() == 0.0


@pytest.mark.parametrize("silent", [12, 25, 50])
def test_quiet_pause_rests_within_five_frames(silent: int) -> None:
    """In a pause of half a second and more, the mouth rests from 5 frames after the voice to 5 frames before the voice."""
    resting = silence_between(5, silent, 20, WHOLE, quiet=True).resting
    np.testing.assert_allclose(resting[5 + 4 : 5 + silent - 4], 1.0, atol=1e-6)
    assert resting[:5].max() == resting[5 + silent :].max() == 0.0


@pytest.mark.parametrize(("silent", "level", "within"), [(0, -6.0, True), (9, -6.0, True), (10, -6.0, False), (9, -9.0, False)])
def test_short_initial_room_tone_is_pause(silent: int, level: float, within: bool) -> None:
    """Room tone at the beginning is a pause if it is as short; a beginning without sound is a silence."""
    speaking = np.where(np.arange(60) < silent, np.float32(0.0), np.float32(1.0))
    loudness = np.where(np.arange(60) < silent, np.float32(level), np.float32(2.0))
    assert begins_within_speech(speaking, loudness, WHOLE) is within
    assert not begins_within_speech(speaking, loudness, LIVE)
    assert not begins_within_speech(0.3 * speaking, loudness, WHOLE)


def test_lips_touch_independent_of_look_ahead() -> None:
    """Lips touch at the same frame whatever the look ahead."""
    bilabial = np.zeros(20 + AROUND, np.float32)
    bilabial[CONTEXT_PAST + 3] = 1.0
    live, whole = closure_weights(bilabial, LIVE), closure_weights(bilabial, WHOLE)
    assert live.argmax() == whole.argmax() == 2
    np.testing.assert_array_equal(whole, live[: len(whole)])


def test_speechlike_music_keeps_mouth_shut() -> None:
    """Music that sounds a little like speech keeps the mouth shut."""
    speaking = np.zeros(60, np.float32)
    speaking[20:25] = 0.44
    weights = silence_weights(speaking, np.zeros(60, np.uint8), CONFIG)
    assert weights.relaxed.min() == weights.shut.min() == 1.0


def test_weak_speech_beside_strong_speech_is_spoken() -> None:
    speaking = np.full(60, 0.9, np.float32)
    speaking[20:26] = 0.35
    np.testing.assert_allclose(silence_weights(speaking, np.zeros(60, np.uint8), CONFIG), 0.0, atol=1e-6)


def sound(levels: Float32) -> SpeechFeatures:
    """Features of a vowel with these log energies in all mel bands, float32 [T]."""
    features = speech(["AA"], len(levels))
    return replace(features, mel=np.broadcast_to(levels.astype(np.float32)[:, None, None], features.mel.shape))


def test_frames_without_voice_are_quiet() -> None:
    """A frame is too quiet for a voice without sound, or far below the voice. Two of four rows with sound are sound."""
    mel = np.full((5, 4, 80), np.log(1e-6), np.float32)
    mel[0, :, 30], mel[1, 0, 30], mel[2, :2, 30], mel[4, :, 30] = -6.0, 2.0, 5.0, -7.8
    features = replace(sound(np.zeros(5, np.float32)), mel=mel)
    np.testing.assert_array_equal(QuietFrames().push(np.full(5, 0.9, np.float32), features), [0, QUIET, 0, QUIET, QUIET])


def test_decay_and_breath_are_faint() -> None:
    """A frame is faint 33 dB below the voice, and without a phone."""
    features = sound(np.array([-5.5, 2.1, -5.4, -5.55, 0.0], np.float32))
    features.posteriorgram[4] = silence(1).posteriorgram[0]
    found = QuietFrames().push(np.array([0.0, 0.9, 0.9, 0.9, 0.2], np.float32), features)
    np.testing.assert_array_equal(found, [0, 0, 0, TONE, FAINT])


def test_breath_is_no_room_tone() -> None:
    """A faint frame 6 dB above the quietest of the last 4 s is breath; so is one in which the detector hears a little speech."""
    features = sound(np.array([2.0, -7.0, -5.7, -5.5, -7.0, -7.0], np.float32))
    features.posteriorgram[1:] = silence(1).posteriorgram[0]
    found = QuietFrames().push(np.array([0.9, 0.3, 0.1, 0.1, 0.05, 0.2], np.float32), features)
    np.testing.assert_array_equal(found, [0, TONE, TONE, FAINT, TONE, FAINT])


@pytest.mark.parametrize(("config", "rests"), [(WHOLE, 10), (LIVE, 14)], ids=["whole", "live"])
def test_mouth_rests_in_room_tone(config: ConstraintConfig, rests: int) -> None:
    """The mouth rests in .4 s of room tone; live, once .4 s have passed. A shorter pause moves nothing."""
    for silent, most in ((rests, 1.0), (9, 0.0)):
        speaking = np.ones(CONTEXT_PAST + 5 + silent + 20 + config.frames_ahead, np.float32)
        quiet = np.zeros(len(speaking), np.uint8)
        quiet[CONTEXT_PAST + 5 : CONTEXT_PAST + 5 + silent] = TONE
        resting = silence_weights(speaking, quiet, config).resting
        assert resting.max() == pytest.approx(most, abs=1e-6)
        assert resting[:5].max() == resting[5 + silent :].max() == 0.0


def test_rest_begins_where_voice_ends() -> None:
    """The mouth goes to the rest where the voice ends, if quiet follows the decay; faint sound alone gives no rest."""
    speaking = np.ones(CONTEXT_PAST + 40 + WHOLE.frames_ahead, np.float32)
    quiet = np.zeros(len(speaking), np.uint8)
    quiet[CONTEXT_PAST + 10 : CONTEXT_PAST + 25] = FAINT
    assert silence_weights(speaking, quiet, WHOLE).resting.max() == 0.0
    quiet[CONTEXT_PAST + 14 : CONTEXT_PAST + 22] = QUIET
    resting = silence_weights(speaking, quiet, WHOLE).resting
    np.testing.assert_allclose(resting[13:22], 1.0, atol=1e-6)
    assert resting[:10].max() == resting[25:].max() == 0.0


def test_quiet_frames_in_pieces() -> None:
    """Pieces of a stream give the same quiet frames as the whole stream."""
    rng = np.random.default_rng(3)
    speaking = rng.uniform(0.0, 1.0, 300).astype(np.float32)
    features = sound(rng.uniform(-12.0, 3.0, 300).astype(np.float32))
    stream, at, parts = QuietFrames(), 0, []
    for size in rng.integers(1, 9, 100):
        parts.append(stream.push(speaking[at : at + size], features[at : at + size]))
        at += size
    np.testing.assert_array_equal(np.concatenate(parts), QuietFrames().push(speaking, features))


def test_mouth_rests_in_quiet_pause() -> None:
    """The mouth goes to the person's resting mouth where no voice is, and no further in the first half of a second."""
    quiet = np.zeros(20 + AROUND, np.bool_)
    quiet[CONTEXT_PAST + 4 : CONTEXT_PAST + 16] = True
    speaking = np.where(quiet, np.float32(0.0), np.float32(1.0))
    spoken = mouths(np.full(20, 7.0, np.float32))
    found = mouth_opening(constrained(spoken, np.zeros(20, np.float32), speaking, quiet))
    resting = mouth_opening(rest_mouth() + np.float32(0.5) * (RELAXED - rest_mouth()))
    np.testing.assert_allclose(found[8:11], resting, atol=0.1)
    np.testing.assert_allclose(found[:4], mouth_opening(spoken[:4]), atol=1e-4)


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
