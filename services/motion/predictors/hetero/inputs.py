"""The window of mel spectrogram that `hetero` hears for a frame, and the pooled speech that a person's correction hears.

Xie et al. 2021, Sec. 3.2.1: 80 mel bands, and a step of 200 ms (20 rows of 10 ms) for each video frame. The audio stage's spectrum
has analysis windows of 25 ms, and the paper's has 40 ms. Bands are relative to the speech of the four seconds before, because the
network learns from few microphones and voices. The paper does not say how its spectrum is normalised.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.features import (
    ENERGY_PAST,
    NUM_CONTENT,
    ContentStream,
    content_before,
    content_rows,
    relative_energy,
    silence,
)
from services.motion.pooled_speech import pooled_speech
from services.motion.types import NUM_MELS, ROWS_PER_FRAME, SpeechFeatures

WINDOW_AHEAD: Final = 5
"""Frames of features after the predicted frame: 200 ms of look-ahead."""
WINDOW_PAST: Final = 13
"""Frames of features before the predicted frame: .52 s."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
NUM_HEARD: Final = NUM_MELS + NUM_CONTENT
"""Channels of a row that the grid keeps: relative mel power for the network, content rows for a person's correction."""
QUIET: Final = -1.5
"""Relative mel power of the silence before a stream: the typical value of quiet frames in speech."""
_POOLED_PAST: Final = 6
_POOLED_AHEAD: Final = 2
"""Frames around the predicted frame that a person's correction hears."""


def relative_mel(features: SpeechFeatures) -> Float32:
    """Return relative mel power of a whole stream, float32 [T, 4, 80] within [-3, 3], see features.relative_energy."""
    return relative_energy(features.mel, features.speech_probability)


def heard_before(num_frames: int) -> Float32:
    """Return the rows of the silence before a stream, float32 [T, 4, 124]."""
    mel = np.full((num_frames, ROWS_PER_FRAME, NUM_MELS), QUIET, np.float32)
    return np.concatenate([mel, content_before(num_frames)], axis=-1)


def heard_clip(features: SpeechFeatures) -> Float32:
    """Return the rows of a whole clip of T frames with the silence around the clip: float32 [13 + T + 5, 4, 124]."""
    whole = SpeechFeatures.joined([features, silence(WINDOW_AHEAD)])
    rows = np.concatenate([relative_mel(whole), content_rows(whole)], axis=-1)
    return np.concatenate([heard_before(WINDOW_PAST), rows])


def mel_of(rows: Float32) -> Float32:
    """Return what the network hears of rows: float32 [W, 4, 124] -> [W, 4, 80]."""
    return np.ascontiguousarray(rows[..., :NUM_MELS])


def pooled_window(window: Float32) -> Float32:
    """Return the pooled speech of a window of rows [19, 4, 124]: float32 [126], the last number 1."""
    around = window[WINDOW_PAST - _POOLED_PAST : WINDOW_PAST + 1 + _POOLED_AHEAD, :, NUM_MELS:]
    return pooled_speech(around, _POOLED_PAST)


class HeardStream:
    """Rows of a stream that comes in pieces: the same bytes as the rows of the whole stream."""

    def __init__(self) -> None:
        self._mel = np.zeros((0, ROWS_PER_FRAME, NUM_MELS), np.float32)
        self._speaking = np.zeros(0, np.float32)
        self._contents = ContentStream()

    def push(self, features: SpeechFeatures) -> Float32:
        """Return the rows of the next frames, float32 [T, 4, 124]."""
        begin = len(self._mel)
        mel = np.concatenate([self._mel, features.mel])
        speaking = np.concatenate([self._speaking, features.speech_probability])
        relative = relative_energy(mel, speaking, begin)
        keep = slice(max(0, len(mel) - ENERGY_PAST), None)
        self._mel, self._speaking = mel[keep], speaking[keep]
        return np.concatenate([relative, self._contents.push(features)], axis=-1)
