"""Constraints on predicted mouths: lips touch on p, b, m; the mouth is shut in silence.

Each frame depends on a fixed neighbourhood of frames, so a stream in other pieces gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.face.landmarks import NUM_LIPS

CONTEXT_PAST: Final = 12
"""Frames that `apply_constraints` needs before the first frame."""
CONTEXT_AHEAD: Final = 2
"""Fewest frames that `apply_constraints` needs after the last frame: 80 ms."""
_PAUSE: Final = 6
"""Frames of the longest pause in which a person's correction counts in full: people have their own way to pause. Live speech looks
one frame ahead, so one frame there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstraintConfig:
    """Strength and extent of the constraints.

    Attributes:
        bilabial_low: probability of p, b, m below which nothing happens.
        bilabial_high: probability from which the lips touch fully.
        bilabial_shape: weight of a peak at distance 0 and 1 frame.
        speech_low: speech probability below which a frame is silent.
        speech_high: speech probability from which a frame is speech.
        presence_low: up to this highest speech probability around a frame, there is no speech at the frame, only noise or music.
        presence_high: from this highest speech probability around a frame, there is speech at the frame.
        attack_low: share of silent frames, among the frame and the twelve before, from which the mouth begins to shut. At 1 the
            mouth is shut.
        jaw_share: how far the jaw follows the lips into the closed shape on p, b, m.
        frames_ahead: frames after a frame in which silence is looked for, at least CONTEXT_AHEAD. People open the mouth
            some tenths of a second before they speak; live speech cannot wait that long.
    """

    bilabial_low: float = 0.35
    bilabial_high: float = 0.65
    bilabial_shape: tuple[float, float] = (1.0, 0.2)
    speech_low: float = 0.02
    speech_high: float = 0.15
    presence_low: float = 0.45
    presence_high: float = 0.5
    attack_low: float = 0.3
    jaw_share: float = 0.5
    frames_ahead: int = CONTEXT_AHEAD


LIVE: Final = ConstraintConfig()
"""Constraints for speech that is still to come: 80 ms of look-ahead."""
WHOLE: Final = ConstraintConfig(frames_ahead=10)
"""Constraints for speech that is there as a whole: 400 ms of look-ahead (docs/models/motion.md)."""


def _smoothstep(x: Float32, low: float, high: float) -> Float32:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def voiced_share(speech_probability: Float32, config: ConstraintConfig) -> Float32:
    """Return how far frames belong to speech: float32 [T] in [0, 1], 1 in speech and in pauses of up to six frames (live: one).

    A person's correction is learned from seconds of footage, which may have no silence at all. Applied to a long silence, the
    correction would open the mouth after the last word. So the correction counts by this share.

    Args:
        speech_probability: float32 [12 + T + A], with twelve frames before the T frames and A = `frames_ahead` after.
        config: see ConstraintConfig.
    """
    voiced = _smoothstep(speech_probability, config.speech_low, config.speech_high)
    ahead = min(_PAUSE, config.frames_ahead - 1)
    near = np.lib.stride_tricks.sliding_window_view(voiced, ahead + 1).max(axis=-1)
    smooth = (near[:-2] + near[1:-1] + near[2:]) / np.float32(3.0)
    return np.asarray(smooth[CONTEXT_PAST - 1 : len(speech_probability) - config.frames_ahead - 1], dtype=np.float32)


def closure_weights(bilabial: Float32, config: ConstraintConfig) -> Float32:
    """Return how far the lips close on p, b, m: float32 [T] in [0, 1].

    Args:
        bilabial: float32 [12 + T + A], probability of p, b, m, with twelve frames before the T frames and A = `frames_ahead` after.
        config: see ConstraintConfig.
    """
    peak = _smoothstep(bilabial, config.bilabial_low, config.bilabial_high)
    here, near = config.bilabial_shape
    spread = np.maximum(here * peak[1:-1], near * np.maximum(peak[:-2], peak[2:]))
    return np.asarray(spread[CONTEXT_PAST - 1 : len(spread) - (config.frames_ahead - 1)], dtype=np.float32)


def silence_weights(speech_probability: Float32, config: ConstraintConfig) -> Float32:
    """Return how far the mouth is shut for silence: float32 [T] in [0, 1], 1 if all of frames n-12..n+A are silent.

    The mouth shuts over the half second after the speech: people leave the mouth open in short pauses. The mouth opens within the A
    frames before the speech: viewers see a mouth that opens late, and do not see a mouth that shuts slowly. If none of frames
    n-12..n+A is surely speech, the mouth stays shut: weak speech has strong speech beside it, music that sounds a little like
    speech has none.

    Args:
        speech_probability: float32 [12 + T + A], with twelve frames before the T frames and A = `frames_ahead` after.
        config: see ConstraintConfig.
    """
    silent = np.asarray(1.0 - _smoothstep(speech_probability, config.speech_low, config.speech_high), np.float32)
    width = CONTEXT_PAST + 1 + config.frames_ahead
    windows = np.lib.stride_tricks.sliding_window_view(silent, width)
    before, ahead = windows[:, : CONTEXT_PAST + 1].mean(axis=-1), windows[:, CONTEXT_PAST:].mean(axis=-1)
    free = 1.0 - _smoothstep(before, config.attack_low, 1.0) * ahead
    around = np.lib.stride_tricks.sliding_window_view(speech_probability, width).max(axis=-1)
    present = _smoothstep(np.asarray(around, np.float32), config.presence_low, config.presence_high)
    return np.asarray(1.0 - free * present, dtype=np.float32)


def apply_constraints(
    mouth_landmarks: Float32,
    closed_mouth: Float32,
    bilabial: Float32,
    speech_probability: Float32,
    config: ConstraintConfig,
) -> Float32:
    """Close the lips on p, b, m and in silence.

    On p, b, m only height and depth move to the closed shape, because the width carries the rounding of the neighbouring sounds. In
    silence all three coordinates move.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space.
        closed_mouth: float32 [59, 3].
        bilabial: float32 [12 + T + A], see closure_weights.
        speech_probability: float32 [12 + T + A], see silence_weights.
        config: see ConstraintConfig.

    Returns:
        float32 [T, 59, 3].
    """
    shape = np.zeros((mouth_landmarks.shape[1], 3), np.float32)
    shape[:, 1:] = 1.0
    shape[NUM_LIPS:] *= config.jaw_share
    closing = closure_weights(bilabial, config)[:, None, None] * shape
    pressed = mouth_landmarks + closing * (closed_mouth - mouth_landmarks)
    quiet = silence_weights(speech_probability, config)[:, None, None]
    return np.asarray(pressed + quiet * (closed_mouth - pressed), dtype=np.float32)
