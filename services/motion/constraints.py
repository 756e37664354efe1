"""Constraints on predicted mouths: lips touch on p, b, m; in silence the mouth goes to the person's rest, then shuts.

Each frame depends on a fixed neighbourhood of frames, so a stream in other pieces gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Array, Float32, UInt8
from services.common.face.landmarks import NUM_LIPS
from services.common.wire.phones import SILENCE
from services.motion.types import SpeechFeatures

CONTEXT_PAST: Final = 24
"""Frames that the constraints need before the first frame."""
CONTEXT_AHEAD: Final = 1
"""Fewest frames that the constraints need after the last frame: 40 ms."""
_PRESENCE_FADE: Final = 8
"""Frames over which sure speech before a frame ceases to count, up to CONTEXT_PAST frames before."""
_PAUSE: Final = 6
"""Frames of the longest pause in which a person's correction counts in full: people have their own way to pause. Live speech looks
one frame ahead, so one frame there."""
_NO_SOUND: Final = -9.0
"""Log energy of a mel band below which a row of 10 ms has no sound: noise of -75 dB of full scale. Recorded speech is not so quiet
even in pauses; a microphone that is switched off and the end of synthetic speech are.
"""
_BELOW_VOICE: Final = 55.0 * float(np.log(10.0)) / 10.0
"""A frame that is quieter than the loudest frame of the voice by 55 dB (log energy) has no voice. The detector of speech notices
the end of a voice some frames late. Pauses with room tone are louder; in short ones, people leave the mouth open."""
_FAINT: Final = 33.0 * float(np.log(10.0)) / 10.0
"""The sound of a last word decays: a frame that is quieter than the loudest frame of the voice by 33 dB is no longer the word."""
_NO_PHONE: Final = 0.5
"""Probability of silence in the posteriorgram from which a row holds no phone."""
_ABOVE_FLOOR: Final = 6.0 * float(np.log(10.0)) / 10.0
"""Room tone stays within 6 dB of the quietest frame of the last 4 s. Breath is louder, and opens the mouth."""
_BREATH: Final = 0.1
"""Speech probability above which a frame without a phone is breath, unless the probability falls after a voice."""
FAINT: Final = 1
TONE: Final = 2
QUIET: Final = 3
"""Degrees of quiet frames (QuietFrames)."""
_ROOM_TONE: Final = -7.8
"""Log energy from which sound before the first word counts as room tone: noise of -70 dB of full scale."""
LEVEL_PAST: Final = 100
"""Frames before a frame in which the loudness of the voice is measured: 4 s."""
_RISE: Final = 5
"""Frames before speech in which the mouth leaves the rest. The detector notices speech one or two frames late."""
_QUIET_RISE: Final = 3
"""Frames before the end of a quiet pause in which the mouth leaves the rest."""
_VOICE: Final = 0.5
"""Speech probability from which the loudness of a frame is the loudness of the voice."""
_SHUT_FROM, _SHUT_AT = 12.0, 24.0
"""Frames of silence after which the mouth begins to shut, and is shut. People leave the mouth a little open in shorter pauses
(docs/models/speech_map.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstraintConfig:
    """Strength and extent of the constraints.

    Attributes:
        bilabial_low: probability of p, b, m from the posteriorgram below which nothing happens.
        bilabial_high: probability from which the lips touch fully.
        bilabial_shape: weight of a peak at distance 0 and 1 frame.
        closed_low: probability of closed lips from the speech encoder below which nothing happens.
        closed_high: probability from which the lips touch fully.
        silent_low: speech probability up to which a frame is silent.
        silent_high: speech probability from which a frame is speech.
        voiced_low: speech probability from which a person's correction begins to count.
        voiced_high: speech probability from which a person's correction counts in full.
        presence_low: up to this highest speech probability around a frame, there is no speech at the frame, only noise or music.
        presence_high: from this highest speech probability around a frame, there is speech at the frame.
        pause: frames of the shortest silence in which the mouth goes to the rest. In shorter ones with room tone, people leave the
            mouth open.
        quiet_pause: the same, of frames that are too quiet for a voice.
        tone_pause: the same, of frames that hold room tone and no breath.
        wait: silent frames after the speech before the mouth begins to go to the rest. Speech that is there as a whole needs none:
            there, the length of a silence is known at its first frame.
        fall: frames in which the mouth goes to the rest once a silence has begun.
        ends_when_quiet: whether frames that are too quiet for a voice are silent at once. The detector of speech needs some
            frames to notice.
        jaw_share: how far the jaw follows the lips into the closed shape on p, b, m.
        frames_ahead: frames after a frame in which speech is looked for, at least CONTEXT_AHEAD.
    """

    bilabial_low: float = 0.8
    bilabial_high: float = 0.95
    bilabial_shape: tuple[float, float] = (1.0, 0.5)
    closed_low: float = 0.2
    closed_high: float = 0.6
    silent_low: float = 0.02
    silent_high: float = 0.05
    voiced_low: float = 0.02
    voiced_high: float = 0.15
    presence_low: float = 0.45
    presence_high: float = 0.5
    pause: int = 4
    quiet_pause: int = 4
    tone_pause: int = 10
    wait: int = 1
    fall: int = 3
    ends_when_quiet: bool = True
    jaw_share: float = 0.5
    frames_ahead: int = 2


LIVE: Final = ConstraintConfig(closed_low=0.4, closed_high=0.8)
"""Constraints for speech that is still to come: 80 ms of look-ahead. A predictor that looks less far ahead has fewer frames.

Live speech is less sure of closed lips than speech in files: lips that close from .4 on close on .87 of p, b, m in place of .95,
with an r of the opening of .67 in place of .64."""
WHOLE: Final = ConstraintConfig(frames_ahead=10, pause=10, quiet_pause=6, wait=0, fall=4, ends_when_quiet=False)
"""Constraints for speech that is there as a whole: 400 ms of look-ahead."""


def _smoothstep(x: Float32, low: float, high: float) -> Float32:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


class QuietFrames:
    """How quiet the frames of one stream are: FAINT frames hold no voice, TONE frames only room tone, QUIET frames are too quiet.

    A frame is QUIET without sound, or 55 dB quieter than the voice of the last 4 s. A frame is FAINT if it is 33 dB quieter than
    that voice, or if the posteriorgram shows no phone. A FAINT frame is TONE within 6 dB of the quietest frame of the last 4 s, if
    the detector of speech detects no breath.
    """

    def __init__(self) -> None:
        """Start before the first frame."""
        self._voice = np.full(LEVEL_PAST, -np.inf, np.float32)
        self._loudness = np.full(LEVEL_PAST, np.inf, np.float32)
        self._probability = np.ones(1, np.float32)

    def push(self, speech_probability: Float32, features: SpeechFeatures) -> UInt8:
        """Return how quiet the next frames are, uint8 [T]: 0, FAINT, TONE or QUIET.

        Args:
            speech_probability: float32 [T], from the detector of speech.
            features: features of the frames.
        """
        if not len(features):
            return np.zeros(0, np.uint8)
        loudness = frame_loudness(features.mel)
        voice = np.concatenate([self._voice, np.where(speech_probability >= _VOICE, loudness, -np.inf).astype(np.float32)])
        self._voice = voice[len(voice) - LEVEL_PAST :]
        loudest = np.lib.stride_tricks.sliding_window_view(voice, LEVEL_PAST + 1).max(axis=1)
        past = np.concatenate([self._loudness, loudness])
        self._loudness = past[len(past) - LEVEL_PAST :]
        floor = np.maximum(
            np.lib.stride_tricks.sliding_window_view(past, LEVEL_PAST + 1).min(axis=1), loudest - np.float32(_BELOW_VOICE)
        )
        quiet = loudness <= np.maximum(loudest - np.float32(_BELOW_VOICE), np.float32(_NO_SOUND))
        # The second least of the four rows: a phone counts from two rows on.
        no_phone = np.sort(features.posteriorgram[..., SILENCE], axis=1)[:, 1] >= _NO_PHONE
        faint = no_phone | (loudness <= loudest - np.float32(_FAINT))
        probability = np.concatenate([self._probability, speech_probability])
        self._probability = probability[-1:]
        calm = (speech_probability <= _BREATH) | (np.diff(probability) <= 0.0)
        tone = faint & calm & (loudness <= floor + np.float32(_ABOVE_FLOOR))
        return np.select([quiet, tone, faint], [np.uint8(QUIET), np.uint8(TONE), np.uint8(FAINT)], np.uint8(0))


def frame_loudness(mel: Float32) -> Float32:
    """Return the log energy of the loudest band of each frame, float32 [T, 4, 80] -> float32 [T].

    The second loudest of the four rows counts: the window of the first row after the end of sound still holds the end.
    """
    return np.asarray(np.sort(mel.max(axis=2), axis=1)[:, -2], np.float32)


def voiced_share(speech_probability: Float32, config: ConstraintConfig) -> Float32:
    """Return how far frames belong to speech: float32 [T] in [0, 1], 1 in speech and in pauses of up to six frames (live: one).

    A person's correction is learned from seconds of footage, which may have no silence at all. Applied to a long silence, the
    correction would open the mouth after the last word. So the correction counts by this share.

    Args:
        speech_probability: float32 [P + T + A], with P = CONTEXT_PAST frames before the T frames and A = `frames_ahead` after.
        config: see ConstraintConfig.
    """
    voiced = _smoothstep(speech_probability, config.voiced_low, config.voiced_high)
    ahead = min(_PAUSE, config.frames_ahead - 1)
    near = np.lib.stride_tricks.sliding_window_view(voiced, ahead + 1).max(axis=-1)
    smooth = (near[:-2] + near[1:-1] + near[2:]) / np.float32(3.0)
    return np.asarray(smooth[CONTEXT_PAST - 1 : len(speech_probability) - config.frames_ahead - 1], dtype=np.float32)


def begins_within_speech(speech_probability: Float32, loudness: Float32, config: ConstraintConfig) -> bool:
    """Return whether speech begins with the sound, though voice activity notices the speech some frames late.

    This is so if sure speech follows within `pause` frames, and the sound before it is room tone or voice: recordings that are cut
    so close to the speech show open mouths. Live speech is not known far enough ahead, so the answer is False there.

    Args:
        speech_probability: float32 [T], from the first frame on.
        loudness: float32 [T], see frame_loudness.
        config: see ConstraintConfig.
    """
    sure = speech_probability[: config.pause] >= config.presence_high
    if config.frames_ahead < config.pause or not sure.any():
        return False
    before = loudness[: max(int(sure.argmax()), 1)]
    return bool(np.median(before) > np.float32(_ROOM_TONE))


def closure_weights(bilabial: Float32, config: ConstraintConfig) -> Float32:
    """Return how far the lips close on p, b, m of the posteriorgram: float32 [T] in [0, 1].

    Lips close some 40 ms before the sound (mouth_curves.REAL_MS): a frame shows the lips of the next frame's sound, if that sound
    is known.

    Args:
        bilabial: float32 [P + T + A], probability of p, b, m, with P = CONTEXT_PAST frames before the T frames and
            A = `frames_ahead` after.
        config: see ConstraintConfig.
    """
    peak = _smoothstep(bilabial, config.bilabial_low, config.bilabial_high)
    here, near = config.bilabial_shape
    spread = np.maximum(here * peak[1:-1], near * np.maximum(peak[:-2], peak[2:]))
    lead = min(1, config.frames_ahead - 1)
    return np.asarray(spread[CONTEXT_PAST - 1 + lead : len(spread) - (config.frames_ahead - 1) + lead], dtype=np.float32)


def closed_lips_weights(closed: Float32, config: ConstraintConfig) -> Float32:
    """Return how far the lips close where the speech encoder's states tell of closed lips: float32 [T] in [0, 1].

    Args:
        closed: float32 [T], probability of closed lips in [0, 1].
        config: see ConstraintConfig.
    """
    return _smoothstep(closed, config.closed_low, config.closed_high)


class SilenceWeights(NamedTuple):
    """How far the mouth is relaxed, at rest and shut for silence, float32 [T] in [0, 1] each.

    Attributes:
        relaxed: how far the mouth is the one that motion is measured from (Style.rest_mouth), which is a little open.
        resting: how far the mouth is the person's resting mouth.
        shut: how far the mouth is shut.
    """

    relaxed: Float32
    resting: Float32
    shut: Float32


def silence_weights(speech_probability: Float32, quiet: UInt8, config: ConstraintConfig) -> SilenceWeights:
    """Return how far the mouth is relaxed, at rest and shut, for silence.

    In faint frames, of which `quiet_pause` frames are too quiet for a voice, and in `tone_pause` frames of room tone, the mouth is
    at rest, from the fourth frame to the third frame before the voice. In a silence of `pause` frames, where the detector of speech
    is sure that nobody speaks, the mouth is relaxed: people leave the mouth a little open there. After a second of silence the
    mouth is shut. If none of the frames n - P .. n + A is surely speech, the mouth stays shut: weak speech has strong speech beside
    it, music that sounds a little like speech has none.

    Args:
        speech_probability: float32 [P + T + A], with P = CONTEXT_PAST frames before the T frames and A = `frames_ahead` after.
        quiet: uint8 [P + T + A], see QuietFrames.
        config: see ConstraintConfig.
    """
    ahead = config.frames_ahead
    silent = np.asarray(1.0 - _smoothstep(speech_probability, config.silent_low, config.silent_high), np.float32)
    relaxed, before = _relaxed(silent, config)
    resting = _resting_when_quiet(quiet, config)
    shut = np.maximum(relaxed, resting) * _smoothstep(before, _SHUT_FROM, _SHUT_AT)
    sure = _smoothstep(speech_probability, config.presence_low, config.presence_high)
    # Speech far from the frame counts less and less, so that the mouth neither shuts nor opens from one frame to the next.
    back, forth = np.arange(CONTEXT_PAST, 0, -1), np.arange(ahead + 1)
    near = np.minimum(1.0, np.append((CONTEXT_PAST + 1 - back) / _PRESENCE_FADE, (ahead + 1 - forth) / (min(_RISE, ahead) + 1)))
    around = np.lib.stride_tricks.sliding_window_view(sure, CONTEXT_PAST + 1 + ahead)
    present = (around * near.astype(np.float32)).max(axis=-1)
    return SilenceWeights(
        np.asarray(1.0 - (1.0 - relaxed) * present, np.float32), resting, np.asarray(1.0 - (1.0 - shut) * present, np.float32)
    )


def _runs(silent: Array, config: ConstraintConfig) -> tuple[Array, Array]:
    """Return how far the frames before and after each frame belong to one silence with the frame: [T, P + 1] and [T, A + 1].

    Both begin with the frame itself. Doubtful frames count in part.

    Args:
        silent: float32 or bool [P + T + A], how far each frame is silent.
    """
    windows = np.lib.stride_tricks.sliding_window_view(silent, CONTEXT_PAST + 1 + config.frames_ahead)
    return np.cumprod(windows[:, CONTEXT_PAST::-1], axis=1), np.cumprod(windows[:, CONTEXT_PAST:], axis=1)


def _at_rest(before: Array, after: Array, long_enough: Array, rise: int, config: ConstraintConfig) -> Float32:
    """Return how far the mouth is at rest in a silence, float32 [T] in [0, 1].

    Args:
        before: [T], length of the silence up to each frame, frames.
        after: [T], length of the silence from each frame on.
        long_enough: [T], whether, or how far, the silence is long enough for a rest.
        rise: frames before the end of the silence in which the mouth leaves the rest.
    """
    share = np.minimum((before - config.wait) / config.fall, after / (min(rise, config.frames_ahead) + 1))
    return _smoothstep(np.asarray(long_enough * share, np.float32), 0.0, 1.0)


def _relaxed(silent: Float32, config: ConstraintConfig) -> tuple[Float32, Float32]:
    """Return how far the mouth is relaxed in [0, 1], and the length of the silence up to each frame, frames: float32 [T] each.

    Args:
        silent: float32 [P + T + A] in [0, 1], how far each frame is silent.
        config: see ConstraintConfig.
    """
    before, after = (run.sum(axis=1) for run in _runs(silent, config))
    here = silent[CONTEXT_PAST : len(silent) - config.frames_ahead]
    long_enough = np.clip(before + after - here - (config.pause - 1), 0.0, 1.0)
    return _at_rest(before, after, long_enough, _RISE, config), before


def _resting_when_quiet(quiet: UInt8, config: ConstraintConfig) -> Float32:
    """Return how far the mouth is at rest in [0, 1], float32 [T]: in quiet pauses, and in pauses with room tone.

    A quiet pause is a run of faint frames of which `quiet_pause` frames are QUIET. So the mouth goes to the rest where the voice
    ends, though the sound of the voice decays into the quiet.

    Args:
        quiet: uint8 [P + T + A], see QuietFrames.
        config: see ConstraintConfig.
    """
    back, forth = _runs(quiet >= FAINT, config)
    windows = np.lib.stride_tricks.sliding_window_view(quiet == QUIET, CONTEXT_PAST + 1 + config.frames_ahead)
    here = windows[:, CONTEXT_PAST]
    number = (back * windows[:, CONTEXT_PAST::-1]).sum(axis=1) + (forth * windows[:, CONTEXT_PAST:]).sum(axis=1) - here
    faint = _at_rest(back.sum(axis=1), forth.sum(axis=1), number >= config.quiet_pause, _QUIET_RISE, config)
    before, after = (run.sum(axis=1) for run in _runs(quiet >= TONE, config))
    tone = _at_rest(before, after, before + after - 1 >= config.tone_pause, _QUIET_RISE, config)
    return np.maximum(faint, tone)


def apply_constraints(
    mouth_landmarks: Float32,
    rest_mouth: Float32,
    resting_mouth: Float32,
    closed_mouth: Float32,
    closing: Float32,
    speech_probability: Float32,
    quiet: UInt8,
    config: ConstraintConfig,
) -> Float32:
    """Close the lips on p, b, m, and bring the mouth to rest in silence.

    On p, b, m only height and depth move to the closed shape, because the width carries the rounding of the neighbouring sounds. In
    silence all three coordinates move.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space.
        rest_mouth: float32 [59, 3], mouth that motion is measured from.
        resting_mouth: float32 [59, 3], the person's mouth at rest.
        closed_mouth: float32 [59, 3].
        closing: float32 [T] in [0, 1], see closure_weights and closed_lips_weights.
        speech_probability: float32 [P + T + A], see silence_weights.
        quiet: uint8 [P + T + A], see QuietFrames.
        config: see ConstraintConfig.

    Returns:
        float32 [T, 59, 3].
    """
    silence = silence_weights(speech_probability, quiet, config)
    mouths = mouth_landmarks + silence.relaxed[:, None, None] * (rest_mouth - mouth_landmarks)
    mouths = mouths + silence.resting[:, None, None] * (resting_mouth - mouths)
    shape = np.zeros((mouths.shape[1], 3), np.float32)
    shape[:, 1:] = 1.0
    shape[NUM_LIPS:] *= config.jaw_share
    pressed = mouths + closing[:, None, None] * shape * (closed_mouth - mouths)
    return np.asarray(pressed + silence.shut[:, None, None] * (closed_mouth - pressed), dtype=np.float32)
