"""What the predictors of all methods share: features are held until those after a frame are there, then mouths come, constrained.

Each grid frame is answered with fixed numbers of frames before and after it (silence before the first and after the last).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Final

import numpy as np

from services.motion.constraints import CONTEXT_PAST, ConstraintConfig, apply_constraints
from services.motion.features import bilabial_probability, silence
from services.motion.style import Style
from services.motion.types import NUM_POINTS, WINDOW_AHEAD, Float32, Motion, SpeechFeatures

AMPLITUDE: Final = 0.82
"""Of the predicted movement. Least squares asks for .7 or so at correlations of .5 to .7, and the full size errs at full size; up
to .82 the pictures' error stays as it is and mouths are livelier.
"""


def expected(mouth: Float32, style: Style, amplitude: float = AMPLITUDE) -> Float32:
    """What the sound does not tell is not acted out: movement about the mean mouth at `amplitude`, float32 [..., 59, 3]."""
    return style.mean_mouth + np.float32(amplitude) * (mouth - style.mean_mouth)


class Grid(ABC):
    """A predictor of mouths on the 25 frames/s grid, each as soon as the frames of features after it are there.

    Args:
        style: the person.
        constraints: closure of bilabials and of silence.
        held: features before the stream; as many frames as a frame needs before it.
        heard: what the network hears of them, float32 [P, 4, C].
        ahead: frames that a frame needs after it.
    """

    def __init__(
        self, style: Style, constraints: ConstraintConfig | None, held: SpeechFeatures, heard: Float32, ahead: int
    ) -> None:
        self._style, self._constraints = style, constraints or ConstraintConfig()
        self._held, self._heard = held, heard
        self._past, self._ahead = len(held), ahead
        self._next = 0
        self._num_features = 0

    @property
    def num_features(self) -> int:
        """Frames of features taken so far."""
        return self._num_features

    def push(self, features: SpeechFeatures) -> Motion:
        """Mouths of the grid frames that these features complete, maybe none.

        Raises:
            InvalidRequest: the features lack what the method hears.
        """
        motion = self._advance(features)
        self._num_features += len(features)
        return motion

    def push_silence(self, num_frames: int) -> Motion:
        """As `push`, of frames behind the end of the speech."""
        return self._advance(self._silence(num_frames))

    def expression(self, mouth_landmarks: Float32) -> Float32 | None:
        """Expression coefficients of mouths float32 [T, 59, 3]: float32 [T, E], None where the method has none."""
        return None

    def _silence(self, num_frames: int) -> SpeechFeatures:
        """Features of digital silence."""
        return silence(num_frames)

    @abstractmethod
    def _hear(self, features: SpeechFeatures) -> Float32:
        """What the network hears of the next frames of the stream, float32 [T, 4, C]."""

    @abstractmethod
    def _predict(self, first: int, heard: Float32, speaking: Float32) -> Motion:
        """Motion of the grid frames `first` .. first + R - 1, at least one, before constraints.

        Args:
            first: the next frame of the grid.
            heard: float32 [P + R + A, 4, C], with the frames before and after them.
            speaking: float32 [R], speech probability of the frames themselves.
        """

    def _advance(self, features: SpeechFeatures) -> Motion:
        held = SpeechFeatures.joined([self._held, features])
        heard = np.concatenate([self._heard, self._hear(features)])
        ready = max(len(held) - self._past - self._ahead, 0)
        first = self._next
        self._held, self._heard = held[ready:], heard[ready:]
        self._next += ready
        if not ready:
            return Motion(first, np.zeros((0, NUM_POINTS, 3), np.float32), np.zeros(0, np.float32))
        motion = self._predict(first, heard, held.speech_probability[self._past : self._past + ready])
        around = slice(self._past - CONTEXT_PAST, self._past + ready + WINDOW_AHEAD)
        constrained = apply_constraints(
            motion.mouth_landmarks,
            self._style.closed_mouth,
            bilabial_probability(held[around]),
            held.speech_probability[around],
            self._constraints,
        )
        return replace(motion, mouth_landmarks=constrained)
