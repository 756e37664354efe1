"""Types of the motion stage: no gRPC, no network code.

Axes: T motion frames (25 per second), W frames of a window, K landmark coefficients, E expression coefficients, P = 59 mouth-area
points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float32, Float64
from services.common.face.landmarks import NUM_UPPER

ROWS_PER_FRAME: Final = 4
"""Acoustic rows (10 ms) per motion frame (40 ms)."""
NUM_PHONES: Final = 40
NUM_MELS: Final = 80
NUM_POINTS: Final = 59
NUM_POSE_POINTS: Final = NUM_UPPER
"""Points of the upper face that a style may be encoded with."""
EXTRA_FEATURES: Final[Mapping[str, tuple[int, ...]]] = {
    "mfcc": (ROWS_PER_FRAME, 40),
    "identity_removed": (ROWS_PER_FRAME, 20),
    "speech_states": (192,),
    "speech_states_live": (192,),
}
"""Further tensors of AudioFeatureBlock that a predictor may take: name -> shape of one frame."""
MAX_LAG: Final = 15
"""Lags are searched from -15 to 15 frames (0.6 s)."""


@dataclass(frozen=True, slots=True)
class SpeechFeatures:
    """Audio features of consecutive motion frames.

    Attributes:
        posteriorgram: float32 [T, 4, 40], phone probabilities of the four 10 ms rows of each frame.
        mel: float32 [T, 4, 80], natural logarithm of mel band power.
        speech_probability: float32 [T], in [0, 1].
        extra: further tensors by the names of EXTRA_FEATURES, float32 [T, *shape]. Holds only what the predictor takes.
    """

    posteriorgram: Float32
    mel: Float32
    speech_probability: Float32
    extra: Mapping[str, Float32] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.speech_probability)

    def __getitem__(self, frames: slice | npt.NDArray[np.intp]) -> SpeechFeatures:
        extra = {name: values[frames] for name, values in self.extra.items()}
        return SpeechFeatures(self.posteriorgram[frames], self.mel[frames], self.speech_probability[frames], extra)

    @staticmethod
    def joined(parts: list[SpeechFeatures]) -> SpeechFeatures:
        """Return the parts (at least one) one after the other. Extra tensors that a part lacks are left out."""
        shared = [name for name in parts[0].extra if all(name in part.extra for part in parts)]
        return SpeechFeatures(
            np.concatenate([part.posteriorgram for part in parts]),
            np.concatenate([part.mel for part in parts]),
            np.concatenate([part.speech_probability for part in parts]),
            {name: np.concatenate([part.extra[name] for part in parts]) for name in shared},
        )


@dataclass(frozen=True, slots=True)
class Footage:
    """Tracked faces at 25 frames per second.

    Attributes:
        mouth_landmarks: float32 [T, 59, 3], head space, crop pixels.
        usable: bool [T].
        head_poses: float64 [T, 6], head-pose vectors in pixels of the footage. None unless the predictor moves the head.
        pose_landmarks: float32 [T, 99, 3], upper part of the face layout (services.common.face.landmarks) in head space,
            crop pixels. None if the caller gave none.
    """

    mouth_landmarks: Float32
    usable: Bool
    head_poses: Float64 | None = None
    pose_landmarks: Float32 | None = None


@dataclass(frozen=True, slots=True)
class Motion:
    """Predicted mouths of consecutive frames, with head poses if the predictor moves the head.

    Attributes:
        first_frame: index of the first frame on its timeline.
        mouth_landmarks: float32 [T, 59, 3], head space, crop pixels.
        speech_probability: float32 [T].
        expression: float32 [T, E], coefficients of the morphable model, measured from the person's rest mouth. None if the
            predictor answers only landmarks.
        poses: float64 [T, 6], head-pose vectors in pixels of the footage. None unless the predictor moves the head.
        blink: float32 [T], closure of the eyes from 0 (open) to 1 (shut). None unless the predictor moves the head.
    """

    first_frame: int
    mouth_landmarks: Float32
    speech_probability: Float32
    expression: Float32 | None = None
    poses: Float64 | None = None
    blink: Float32 | None = None


@dataclass(frozen=True, slots=True)
class LagEstimate:
    """Lag between sound and picture of a clip.

    Attributes:
        lag_frames: frames of 40 ms; positive when the sound comes after the picture.
        confidence: best score less the median score, >= 0. Also tells how well this face fits this sound.
        scores: float32 [31], weighted mean correlation of sound and mouth at lags -15..15.
        lag_fraction: part of a frame to add to `lag_frames`, a multiple of 1/4 from -1/2 to 1/2.
    """

    lag_frames: int
    confidence: float
    scores: Float32
    lag_fraction: float = 0.0
