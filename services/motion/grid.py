"""What all predictors share on the 25 frames/s grid: features around a frame are collected, mouths predicted and constrained.

A fixed number of frames of features before and after a grid frame decide that frame. Before the first and after the last features
of a stream there is silence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from services.common.array_types import Float32
from services.common.chassis.calls import check_still_wanted
from services.motion.constraints import CONTEXT_PAST, LIVE, ConstraintConfig, apply_constraints, closure_weights, voiced_share
from services.motion.features import bilabial_probability, silence
from services.motion.style import Style
from services.motion.types import NUM_POINTS, Motion, SpeechFeatures

AMPLITUDE: Final = 1.04
"""Gain of the predicted movement: a prediction of least error moves less than the person does. Dubs have more movement with this
gain, and their pictures are as close to the film as without (docs/models/motion.md).
"""


def amplified(mouth: Float32, style: Style) -> Float32:
    """Return mouths with their movement about the mean mouth scaled by AMPLITUDE, float32 [..., 59, 3]."""
    return style.mean_mouth + np.float32(AMPLITUDE) * (mouth - style.mean_mouth)


def motion_of_windows(
    first: int, heard: Float32, speaking: Float32, voiced: Float32, length: int, mouth_of: Callable[[Float32, float], Float32]
) -> Motion:
    """Return the motion of frames that each depend on a window of network inputs alone, see Grid._predict.

    Args:
        first: as Grid._predict takes it.
        heard: as Grid._predict takes it.
        speaking: as Grid._predict takes it.
        voiced: as Grid._predict takes it.
        length: frames of a window. The first window begins with `heard`.
        mouth_of: returns the mouth of a window and of the share of the person's correction, float32 [59, 3].

    Raises:
        Cancelled: the call that this is done for is over.
    """
    mouths = []
    for frame in range(len(speaking)):
        check_still_wanted()
        mouths.append(mouth_of(heard[frame : frame + length], float(voiced[frame])))
    return Motion(first, np.stack(mouths), speaking)


class MotionGrid(Protocol):
    """A predictor that was opened for one person: speech features in, mouths on the 25 frames/s grid out."""

    @property
    def num_features(self) -> int:
        """Number of frames of features so far."""
        ...

    def push(self, features: SpeechFeatures) -> Motion:
        """Return the mouths of the grid frames that these features complete, maybe none.

        Raises:
            InvalidRequest: the features lack a tensor that the predictor hears.
        """
        ...

    def push_silence(self, num_frames: int) -> Motion:
        """Return the mouths of the grid frames that silence after the end of the speech completes."""
        ...

    def expression(self, mouth_landmarks: Float32) -> Float32 | None:
        """Return expression coefficients of mouths: float32 [T, 59, 3] -> [T, E]; None if the predictor answers landmarks alone."""
        ...


class Grid(ABC):
    """Predictor of one person's mouths on the 25 frames/s grid. Each frame is answered as soon as the frames after it are there."""

    def __init__(
        self, style: Style, constraints: ConstraintConfig | None, held: SpeechFeatures, heard: Float32, ahead: int
    ) -> None:
        """Start at the first frame.

        Args:
            style: the person.
            constraints: closure of the lips on p, b, m and in silence. None: constraints for live speech.
            held: features before the stream, P frames, as many as a frame needs before it; at least CONTEXT_PAST.
            heard: network inputs of these frames, float32 [P, 4, C].
            ahead: frames of features that the network needs after a frame. A frame is answered when these frames, and the frames
                that the constraints need, are there.

        Raises:
            ValueError: the constraints need more frames before a frame.
        """
        if len(held) < CONTEXT_PAST:
            raise ValueError(f"a grid with {len(held)} frames before a frame: the constraints need at least {CONTEXT_PAST}")
        self._style, self._constraints = style, constraints or LIVE
        self._held, self._heard = held, heard
        self._past, self._ahead = len(held), max(ahead, self._constraints.frames_ahead)
        self._next = 0
        self._num_features = 0

    @property
    def num_features(self) -> int:
        """Number of frames of features so far."""
        return self._num_features

    def push(self, features: SpeechFeatures) -> Motion:
        """Return the mouths of the grid frames that these features complete, maybe none.

        Raises:
            InvalidRequest: the features lack a tensor that the predictor hears.
        """
        motion = self._advance(features)
        self._num_features += len(features)
        return motion

    def push_silence(self, num_frames: int) -> Motion:
        """Return the mouths of the grid frames that silence after the end of the speech completes."""
        return self._advance(self._silence(num_frames))

    def expression(self, mouth_landmarks: Float32) -> Float32 | None:
        """Return expression coefficients of mouths: float32 [T, 59, 3] -> [T, E]; None if the predictor answers landmarks alone."""
        return None

    def _silence(self, num_frames: int) -> SpeechFeatures:
        """Return features of digital silence."""
        return silence(num_frames)

    @abstractmethod
    def _hear(self, features: SpeechFeatures) -> Float32:
        """Return the network inputs of the next frames of the stream, float32 [T, 4, C]."""

    @abstractmethod
    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        """Return the motion of the grid frames `first` .. first + R - 1, before constraints.

        Args:
            first: the next frame of the grid.
            heard: network inputs, float32 [P + R + A, 4, C], with the P frames before these R frames, and at least the frames after
                them that the network needs.
            speaking: float32 [R], speech probability of the R frames; R >= 1.
            voiced: float32 [R] in [0, 1], the share of the person's correction (constraints.voiced_share).
        """

    def _closing(self, count: int, heard: Float32, around: SpeechFeatures) -> Float32:
        """Return how far the lips close at the next `count` frames, float32 [count] in [0, 1].

        Args:
            count: R, number of frames.
            heard: as _predict takes it.
            around: features with CONTEXT_PAST frames before the R frames and the constraints' `frames_ahead` after them.
        """
        return closure_weights(bilabial_probability(around), self._constraints)

    def _advance(self, features: SpeechFeatures) -> Motion:
        held = SpeechFeatures.joined([self._held, features])
        heard = np.concatenate([self._heard, self._hear(features)])
        ready = max(len(held) - self._past - self._ahead, 0)
        first = self._next
        self._held, self._heard = held[ready:], heard[ready:]
        self._next += ready
        if not ready:
            return Motion(first, np.zeros((0, NUM_POINTS, 3), np.float32), np.zeros(0, np.float32))
        around = slice(self._past - CONTEXT_PAST, self._past + ready + self._constraints.frames_ahead)
        voiced = voiced_share(held.speech_probability[around], self._constraints)
        motion = self._predict(first, heard, held.speech_probability[self._past : self._past + ready], voiced)
        constrained = apply_constraints(
            motion.mouth_landmarks,
            self._style.rest_mouth,
            self._style.closed_mouth,
            self._closing(ready, heard, held[around]),
            held.speech_probability[around],
            self._constraints,
        )
        return replace(motion, mouth_landmarks=constrained)
