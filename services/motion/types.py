"""Types of the motion stage: no grpc, no network code.

Axes: T motion frames (25 a second), W frames of a window, K motion coefficients, H hidden channels, P = 59 mouth-area points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]
Bool: TypeAlias = npt.NDArray[np.bool_]

METHODS: Final = ("ugc", "everybody", "headpose")
"""Motion predictors that the stage has."""
ROWS_PER_FRAME: Final = 4
"""Acoustic rows (10 ms) of one motion frame (40 ms)."""
NUM_PHONES: Final = 40
NUM_MELS: Final = 80
NUM_POINTS: Final = 59
NUM_CEPSTRA: Final = 20
"""Cepstra of the global speaker in a row of `identity_removed`."""
WINDOW_PAST: Final = 32
WINDOW_AHEAD: Final = 2
"""Frames of features after the emitted one: 80 ms of look-ahead."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
MAX_LAG: Final = 15
"""Lags are searched from -15 to 15 frames (0.6 s)."""


@dataclass(frozen=True, slots=True)
class SpeechFeatures:
    """Audio features of consecutive motion frames.

    Attributes:
        posteriorgram: float32 [T, 4, 40], phone probabilities of the four 10 ms rows of each frame.
        mel: float32 [T, 4, 80], natural log of mel band power.
        speech_probability: float32 [T], in [0, 1].
        identity_removed: float32 [T, 4, 20], cepstra of the global speaker; what `everybody` hears, and None where it is not used.
    """

    posteriorgram: Float32
    mel: Float32
    speech_probability: Float32
    identity_removed: Float32 | None = None

    def __len__(self) -> int:
        return len(self.speech_probability)

    def __getitem__(self, frames: slice | npt.NDArray[np.intp]) -> SpeechFeatures:
        removed = None if self.identity_removed is None else self.identity_removed[frames]
        return SpeechFeatures(self.posteriorgram[frames], self.mel[frames], self.speech_probability[frames], removed)

    @staticmethod
    def joined(parts: list[SpeechFeatures]) -> SpeechFeatures:
        """Parts one behind the other; at least one."""
        removed = [part.identity_removed for part in parts if part.identity_removed is not None]
        return SpeechFeatures(
            np.concatenate([part.posteriorgram for part in parts]),
            np.concatenate([part.mel for part in parts]),
            np.concatenate([part.speech_probability for part in parts]),
            np.concatenate(removed) if len(removed) == len(parts) else None,
        )


@dataclass(frozen=True, slots=True)
class Motion:
    """Predicted mouths, and head poses where the method moves the head, of consecutive frames.

    Attributes:
        first_frame: index of the first one on its timeline.
        mouth_landmarks: float32 [T, 59, 3], head space, crop pixels.
        speech_probability: float32 [T].
        expression: float32 [T, E], coefficients of the morphable model, measured from the person's rest mouth; None where the
            method has none.
        poses: float64 [T, 6], head-pose vectors in pixels of the footage; None where the method does not move the head.
        blink: float32 [T], closure of the eyes, 0 open to 1 shut; None where the method does not move the head.
    """

    first_frame: int
    mouth_landmarks: Float32
    speech_probability: Float32
    expression: Float32 | None = None
    poses: npt.NDArray[np.float64] | None = None
    blink: Float32 | None = None


@dataclass(frozen=True, slots=True)
class LagEstimate:
    """How sound and picture of a clip lie against each other.

    Attributes:
        lag_frames: frames of 40 ms; positive when the sound comes after the picture.
        confidence: best score minus the median score, >= 0; also how well this face fits this sound.
        scores: float32 [31], mean cosine similarity of sound and mouth at lags -15..15.
        distance: mean Euclidean distance of the unit embeddings at the best lag, 0 to 2.
    """

    lag_frames: int
    confidence: float
    scores: Float32
    distance: float
