"""Made-up speech features and mouths whose properties the tests know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LIP_CORNERS, NUM_LIPS, mouth_area_positions
from services.common.wire.phones import PHONES
from services.motion.features import silence
from services.motion.speech_map import LinearMap
from services.motion.types import SpeechFeatures


def rest_mouth() -> Float32:
    """A symmetric closed mouth over a jaw arc, float32 [59, 3], head space."""
    mouth = np.zeros((59, 3), np.float32)
    for ring, height in ((slice(0, 20), 8.0), (slice(20, 40), 1.0)):
        half = np.linspace(-1.0, 1.0, 11)
        mouth[ring, 0] = 35.0 * np.concatenate([half[:10], half[:0:-1]])
        mouth[ring, 1] = height * np.concatenate([half[:10] ** 2 - 1.0, 1.0 - half[:0:-1] ** 2])
    angle = np.linspace(0.0, np.pi, 17)
    mouth[NUM_LIPS : NUM_LIPS + 17, 0] = -80.0 * np.cos(angle)
    mouth[NUM_LIPS : NUM_LIPS + 17, 1] = 70.0 * np.sin(angle)
    mouth[-2:, 0] = (-82.0, 82.0)
    return mouth


def mouths(opening: Float32, width: Float32 | float = 0.0) -> Float32:
    """Mouths whose lower lip and jaw drop by `opening` and whose corners move out by `width`: float32 [T, 59, 3]."""
    lower = np.concatenate([np.arange(11, 20), np.arange(31, 40)])
    frames = np.repeat(rest_mouth()[None], len(opening), axis=0)
    frames[:, lower, 1] += opening[:, None]
    frames[:, NUM_LIPS:, 1] += 0.6 * opening[:, None]
    right, left = mouth_area_positions(LIP_CORNERS)
    frames[:, right, 0] -= width
    frames[:, left, 0] += width
    assert set(mouth_area_positions(INNER_LOWER_MIDDLE)) <= set(lower.tolist())
    assert not set(mouth_area_positions(INNER_UPPER_MIDDLE)) & set(lower.tolist())
    return frames.astype(np.float32)


def speech(phones: list[str], frames_each: int = 3) -> SpeechFeatures:
    """Features of phones one after the other, `frames_each` motion frames each; louder on vowels."""
    quiet = silence(len(phones) * frames_each)
    posteriorgram = np.full_like(quiet.posteriorgram, 0.002)
    mel = quiet.mel.copy()
    speaking = np.ones(len(quiet), np.float32)
    for index, phone in enumerate(phones):
        part = slice(index * frames_each, (index + 1) * frames_each)
        posteriorgram[part, :, PHONES.index(phone)] = 1.0 - 0.002 * (len(PHONES) - 1)
        mel[part] = -2.0 if phone[0] in "AEIOU" else -7.0
        if phone == "SIL":
            speaking[part] = 0.0
            mel[part] = quiet.mel[0]
    return SpeechFeatures(posteriorgram, mel, speaking)


def random_features(num_frames: int, seed: int = 0) -> SpeechFeatures:
    """Features that change quickly: any mix-up of frames shows."""
    rng = np.random.default_rng(seed)
    scores = np.exp(3.0 * rng.standard_normal((num_frames, 4, len(PHONES))))
    return SpeechFeatures(
        (scores / scores.sum(-1, keepdims=True)).astype(np.float32),
        (-6.0 + 2.0 * rng.standard_normal((num_frames, 4, 80))).astype(np.float32),
        rng.uniform(0.5, 1.0, num_frames).astype(np.float32),
    )


def with_identity_removed(features: SpeechFeatures, seed: int = 1) -> SpeechFeatures:
    """The features and ID-removed cepstra that change quickly."""
    rng = np.random.default_rng(seed)
    return replace(features, extra={"identity_removed": rng.standard_normal((len(features), 4, 20)).astype(np.float32)})


def with_states(features: SpeechFeatures, *names: str, seed: int = 2) -> SpeechFeatures:
    """The features and states of the speech encoder that change quickly."""
    states = np.random.default_rng(seed).standard_normal((len(features), 192)).astype(np.float32)
    return replace(features, extra={**features.extra, **dict.fromkeys(names, states)})


def with_closed_lips(features: SpeechFeatures, each: LinearMap, frames: Sequence[int]) -> SpeechFeatures:
    """The features with states from which a speech map hears closed lips at frames that lie at least a window apart."""
    states = features.extra[each.input_window.feature].copy()
    own = each.closed_weight.reshape(each.input_window.width, -1)[each.input_window.past]
    for frame in frames:
        around = states[frame - each.input_window.past : frame + each.input_window.ahead + 1].reshape(-1)
        missing = 6.0 - float(each.closed_weight @ around) - float(each.closed_bias[0])
        states[frame] += np.float32(missing / float(own @ own)) * own
    return replace(features, extra={**features.extra, each.input_window.feature: states})


def head_poses(num_frames: int, seed: int = 5) -> Float64:
    """Head-pose vectors of somebody who moves smoothly: float64 [T, 6], sums of sines about a pose that is not frontal."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_frames)[:, None] / 25.0
    speed, phase = rng.uniform(2.0, 6.0, (2, 6)), rng.uniform(0.0, 2.0 * np.pi, (2, 6))
    waves = np.sin(speed[0] * time + phase[0]) + 0.5 * np.sin(speed[1] * time + phase[1])
    size = np.array([0.05, 0.08, 0.03, 9.0, 6.0, 0.02])
    return np.array([-0.1, 0.06, 0.02, 320.0, 210.0, 1.3]) + size * (waves - waves[0])
