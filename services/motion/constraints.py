"""Constraints on predicted mouths: lips touch on p, b, m; in silence the mouth goes to the person's rest, then shuts.

Each frame depends on a fixed neighbourhood of frames, so a stream in other pieces gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.face.landmarks import NUM_LIPS

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
_SOUND_ROWS: Final = 2
"""Rows with sound from which a frame has sound. The window of the first row after the end of sound still hears the end."""
_RISE: Final = 5
"""Frames before speech in which the mouth leaves the rest."""
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
        pause: frames of the shortest silence in which the mouth goes to the rest.
        wait: silent frames after the speech before the mouth begins to go to the rest. Speech that is there as a whole needs none:
            there, the length of a silence is known at its first frame.
        fall: frames in which the mouth goes to the rest once a silence has begun.
        ends_with_sound: whether frames without any sound are silent at once. The detector of speech needs some frames to notice.
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
    wait: int = 1
    fall: int = 3
    ends_with_sound: bool = True
    jaw_share: float = 0.5
    frames_ahead: int = 2


LIVE: Final = ConstraintConfig()
"""Constraints for speech that is still to come: 80 ms of look-ahead. A predictor that hears less far ahead has fewer frames."""
WHOLE: Final = ConstraintConfig(frames_ahead=10, pause=10, wait=0, fall=4, ends_with_sound=False)
"""Constraints for speech that is there as a whole: 400 ms of look-ahead."""


def _smoothstep(x: Float32, low: float, high: float) -> Float32:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def heard_speech(speech_probability: Float32, mel: Float32, config: ConstraintConfig) -> Float32:
    """Return the speech probability that the constraints work with, float32 [T]: 0 for frames without sound, if the config says so.

    Args:
        speech_probability: float32 [T], from the detector of speech.
        mel: float32 [T, 4, 80], natural logarithm of mel band power.
        config: see ConstraintConfig.
    """
    if not config.ends_with_sound:
        return speech_probability
    sounding = (mel.max(axis=2) > _NO_SOUND).sum(axis=1) >= _SOUND_ROWS
    return np.where(sounding, speech_probability, np.float32(0.0))


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


def begins_within_speech(speech_probability: Float32, config: ConstraintConfig) -> bool:
    """Return whether a silence at the beginning of sound counts as a pause, because sure speech follows within `pause` frames.

    Nothing is known of the time before. Voice activity also takes some frames to notice speech that sound begins with. Live speech
    is not known far enough ahead, so the answer is False there.

    Args:
        speech_probability: float32 [T], from the first frame on.
        config: see ConstraintConfig.
    """
    return config.frames_ahead >= config.pause and bool((speech_probability[: config.pause] >= config.presence_high).any())


def closure_weights(bilabial: Float32, config: ConstraintConfig) -> Float32:
    """Return how far the lips close on p, b, m of the posteriorgram: float32 [T] in [0, 1].

    Args:
        bilabial: float32 [P + T + A], probability of p, b, m, with P = CONTEXT_PAST frames before the T frames and
            A = `frames_ahead` after.
        config: see ConstraintConfig.
    """
    peak = _smoothstep(bilabial, config.bilabial_low, config.bilabial_high)
    here, near = config.bilabial_shape
    spread = np.maximum(here * peak[1:-1], near * np.maximum(peak[:-2], peak[2:]))
    return np.asarray(spread[CONTEXT_PAST - 1 : len(spread) - (config.frames_ahead - 1)], dtype=np.float32)


def closed_lips_weights(closed: Float32, config: ConstraintConfig) -> Float32:
    """Return how far the lips close where the speech encoder hears closed lips: float32 [T] in [0, 1].

    Args:
        closed: float32 [T], probability of closed lips in [0, 1].
        config: see ConstraintConfig.
    """
    return _smoothstep(closed, config.closed_low, config.closed_high)


def silence_weights(speech_probability: Float32, config: ConstraintConfig) -> tuple[Float32, Float32]:
    """Return how far the mouth is at rest, and how far the mouth is shut, for silence: two times float32 [T] in [0, 1].

    In a silence of at least `pause` frames, the mouth is at rest from the fourth frame to the fourth frame before the speech; after
    a second of silence the mouth is shut. Of real people, the mouth is as open in the frames about a pause as on average. If none
    of the frames n - P .. n + A is surely speech, the mouth stays shut: weak speech has strong speech beside it, music that sounds
    a little like speech has none.

    Args:
        speech_probability: float32 [P + T + A], with P = CONTEXT_PAST frames before the T frames and A = `frames_ahead` after.
        config: see ConstraintConfig.
    """
    ahead = config.frames_ahead
    silent = np.asarray(1.0 - _smoothstep(speech_probability, config.silent_low, config.silent_high), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(silent, CONTEXT_PAST + 1 + ahead)
    # Lengths of the silence up to each frame and from each frame, in frames. Doubtful frames count in part.
    before = np.cumprod(windows[:, CONTEXT_PAST::-1], axis=1).sum(axis=1)
    after = np.cumprod(windows[:, CONTEXT_PAST:], axis=1).sum(axis=1)
    long_enough = np.clip(before + after - windows[:, CONTEXT_PAST] - (config.pause - 1), 0.0, 1.0)
    fall = (before - config.wait) / config.fall
    rise = after / (min(_RISE, ahead) + 1)
    resting = _smoothstep(np.asarray(long_enough * np.minimum(fall, rise), np.float32), 0.0, 1.0)
    shut = resting * _smoothstep(before, _SHUT_FROM, _SHUT_AT)
    sure = _smoothstep(speech_probability, config.presence_low, config.presence_high)
    # Speech far from the frame counts less and less, so that the mouth neither shuts nor opens from one frame to the next.
    back, forth = np.arange(CONTEXT_PAST, 0, -1), np.arange(ahead + 1)
    near = np.minimum(1.0, np.append((CONTEXT_PAST + 1 - back) / _PRESENCE_FADE, (ahead + 1 - forth) / (min(_RISE, ahead) + 1)))
    around = np.lib.stride_tricks.sliding_window_view(sure, CONTEXT_PAST + 1 + ahead)
    present = (around * near.astype(np.float32)).max(axis=-1)
    return np.asarray(1.0 - (1.0 - resting) * present, np.float32), np.asarray(1.0 - (1.0 - shut) * present, np.float32)


def apply_constraints(
    mouth_landmarks: Float32,
    rest_mouth: Float32,
    closed_mouth: Float32,
    closing: Float32,
    speech_probability: Float32,
    config: ConstraintConfig,
) -> Float32:
    """Close the lips on p, b, m, and bring the mouth to rest in silence.

    On p, b, m only height and depth move to the closed shape, because the width carries the rounding of the neighbouring sounds. In
    silence all three coordinates move.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space.
        rest_mouth: float32 [59, 3], the person's mouth at rest.
        closed_mouth: float32 [59, 3].
        closing: float32 [T] in [0, 1], see closure_weights and closed_lips_weights.
        speech_probability: float32 [P + T + A], see silence_weights.
        config: see ConstraintConfig.

    Returns:
        float32 [T, 59, 3].
    """
    resting, shut = silence_weights(speech_probability, config)
    mouths = mouth_landmarks + resting[:, None, None] * (rest_mouth - mouth_landmarks)
    shape = np.zeros((mouths.shape[1], 3), np.float32)
    shape[:, 1:] = 1.0
    shape[NUM_LIPS:] *= config.jaw_share
    pressed = mouths + closing[:, None, None] * shape * (closed_mouth - mouths)
    return np.asarray(pressed + shut[:, None, None] * (closed_mouth - pressed), dtype=np.float32)
