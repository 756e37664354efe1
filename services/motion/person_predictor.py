"""A predictor that was opened for one person: features around a frame are collected, mouths predicted and constrained.

The predictor answers frames of the motion grid, 25 frames/s. A fixed number of frames of features before and after a grid frame
decide that frame. Before the first and after the last features of a stream there is silence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from services.common.array_types import Array, Float32
from services.common.face.landmarks import mouth_opening
from services.common.methods import MouthOptions
from services.common.server.call_context import check_not_cancelled
from services.motion.constraints import (
    CONTEXT_AHEAD,
    CONTEXT_PAST,
    LIVE,
    QUIET,
    ConstraintConfig,
    QuietFrames,
    apply_constraints,
    begins_within_speech,
    closure_weights,
    frame_loudness,
    voiced_share,
)
from services.motion.features import bilabial_probability, silence
from services.motion.style import FASTEST_STEP, RESTING_MOUTH, WIDEST_OPENING, Style
from services.motion.types import NUM_POINTS, Motion, SpeechFeatures

AMPLITUDE: Final = 1.04
"""Gain of the predicted movement: a prediction of least error moves less than the person does. Dubs have more movement with this
gain, and their pictures are as close to the video as without (docs/models/motion.md).
"""
LARGEST_OPENING: Final = 1.25
"""No predicted mouth opens wider than this times the person's widest opening (style.WIDEST_OPENING)."""
RESUME_PAST: Final = 160
"""Frames of features before a grid frame that tell all but the recurrent state: the networks' windows begin at most 32 frames
before, and the energies of each of these frames are measured against ENERGY_PAST frames."""


def amplified(mouth: Float32, style: Style) -> Float32:
    """Return mouths with their movement about the mean mouth scaled by AMPLITUDE, float32 [..., 59, 3]."""
    return style.mean_mouth + np.float32(AMPLITUDE) * (mouth - style.mean_mouth)


def with_expressiveness(mouths: Float32, style: Style, expressiveness: Float32) -> Float32:
    """Return mouths with their movement about the person's shut mouth scaled, and with no opening beyond the person's range.

        mouth' = shut + min(expressiveness, LARGEST_OPENING * widest / opening) * (mouth - shut)

    Shut lips stay shut, since the opening of the shut mouth is 0. With the factor 1, a mouth keeps its bits. A style without the
    widest opening has no limit.

    Args:
        mouths: float32 [T, 59, 3], head space.
        expressiveness: float32 [T], factor of the movement, > 0. 1: as the person speaks.
    """
    factor = np.asarray(expressiveness, np.float32)
    widest = style.added.get(WIDEST_OPENING)
    if widest is not None:
        factor = np.minimum(factor, np.float32(LARGEST_OPENING) * widest / np.maximum(mouth_opening(mouths), np.float32(1e-3)))
    scaled = style.closed_mouth + factor[:, None, None] * (mouths - style.closed_mouth)
    return np.where((factor == 1.0)[:, None, None], mouths, scaled)


def without_snaps(mouths: Float32, before: Float32 | None, largest: float) -> Float32:
    """Return mouths whose opening changes by at most `largest` from frame to frame, float32 [T, 59, 3].

        mouth'_n = mouth'_{n-1} + min(1, largest / |opening_n - opening'_{n-1}|) (mouth_n - mouth'_{n-1})

    Mouths within the limit keep their bits.

    Args:
        mouths: float32 [T, 59, 3], head space.
        before: float32 [59, 3], the mouth before the first one, as this function returned it; None: there is none.
        largest: largest change of the opening, crop pixels.
    """
    limited = mouths.copy()
    for mouth in limited:
        if before is not None:
            change = abs(float(mouth_opening(mouth)) - float(mouth_opening(before)))
            if change > largest:
                mouth[...] = before + np.float32(largest / change) * (mouth - before)
        before = mouth
    return limited


def motion_of_windows(
    first: int, inputs: Float32, speaking: Float32, voiced: Float32, length: int, mouth_of: Callable[[Float32, float], Float32]
) -> Motion:
    """Return the motion of frames that each depend on a window of network inputs alone, see PersonPredictor._predict.

    Args:
        first: as PersonPredictor._predict takes it.
        inputs: as PersonPredictor._predict takes it.
        speaking: as PersonPredictor._predict takes it.
        voiced: as PersonPredictor._predict takes it.
        length: frames of a window. The first window begins with `inputs`.
        mouth_of: returns the mouth of a window and of the share of the person's correction, float32 [59, 3].

    Raises:
        WorkCancelledError: the call that this is done for is over.
    """
    mouths = []
    for frame in range(len(speaking)):
        check_not_cancelled()
        mouths.append(mouth_of(inputs[frame : frame + length], float(voiced[frame])))
    return Motion(first, np.stack(mouths), speaking)


def resume_from(next_frame: int) -> int:
    """Return the frame of features with which a predictor that goes on at `next_frame` begins."""
    return max(0, next_frame - RESUME_PAST)


class PersonPredictor(ABC):
    """Predictor of one person: speech features in, mouths on the 25 frames/s grid out.

    Each frame is answered as soon as the frames of features after the frame are there.

    Attributes:
        options: set before the first features come. Where the lips close on p, b, m, an expressiveness above 1 goes to 1, so that
            lips that close in part open no wider.
    """

    def __init__(self, style: Style, constraints: ConstraintConfig | None, inputs: Float32, ahead: int) -> None:
        """Start at the first frame.

        Args:
            constraints: closure of the lips on p, b, m and in silence. None: constraints for live speech.
            inputs: network inputs of the silence before the stream, float32 [P, 4, C], as many frames as the network needs before a
                frame.
            ahead: frames of features that the network needs after a frame. A frame is answered when these frames, and the frames
                that the constraints need, are there.
        """
        self._style, self._constraints = style, constraints or LIVE
        self._last_inputs = inputs
        # The constraints look further back than some networks do.
        self._quiet_frames, self._first_loudness = QuietFrames(), np.zeros(0, np.float32)
        self._quiet = np.zeros(CONTEXT_PAST, np.uint8)
        self._speaking, self._bilabial = np.zeros(CONTEXT_PAST, np.float32), np.zeros(CONTEXT_PAST, np.float32)
        self._past, self._ahead = len(inputs), max(ahead, self._constraints.frames_ahead)
        self._next = self._answer_from = 0
        self._num_features = 0
        self._sound_at_once = False
        self._last_mouth: Float32 | None = None
        self.options = MouthOptions()

    @property
    def num_features(self) -> int:
        """Number of frames of features so far."""
        return self._num_features

    def push(self, features: SpeechFeatures) -> Motion:
        """Return the mouths of the grid frames that these features complete, maybe none.

        Raises:
            InvalidRequestError: the features lack a tensor that the predictor takes.
        """
        motion = self._advance(features)
        self._num_features += len(features)
        return motion

    def push_silence(self, num_frames: int) -> Motion:
        """Return the mouths of the grid frames that silence after the end of the speech completes."""
        return self._advance(self._silence(num_frames))

    def expression(self, mouth_landmarks: Float32) -> Float32 | None:
        """Return expression coefficients of mouths: float32 [T, 59, 3] -> [T, E]; None: the predictor answers landmarks."""
        return None

    @property
    def next_frame(self) -> int:
        """The next grid frame that is answered."""
        return self._next

    def arrays(self) -> dict[str, Array]:
        """Return the recurrent state before `next_frame`: arrays whose shapes depend only on the predictor."""
        nothing = np.zeros((NUM_POINTS, 3), np.float32)
        return {"mouth": nothing if self._last_mouth is None else self._last_mouth}

    def resume(self, next_frame: int, arrays: Mapping[str, Array]) -> None:
        """Go on as the predictor that these values are of. The features begin with frame `resume_from(next_frame)`."""
        self._next = self._num_features = resume_from(next_frame)
        self._answer_from = next_frame
        self._last_mouth = arrays["mouth"]

    def _silence(self, num_frames: int) -> SpeechFeatures:
        """Return features of digital silence."""
        return silence(num_frames)

    def _speech_probability(self, features: SpeechFeatures) -> Float32:
        """Return the speech probability of the next frames of the stream, float32 [T] in [0, 1]."""
        return features.speech_probability

    @abstractmethod
    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        """Return the network inputs of the next frames of the stream, float32 [T, 4, C]."""

    @abstractmethod
    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        """Return the motion of the grid frames `first` .. first + R - 1, before constraints.

        Args:
            first: the next frame of the grid.
            inputs: network inputs, float32 [P + R + A, 4, C], with the P frames before these R frames, and at least the frames
                after them that the network needs.
            speaking: float32 [R], speech probability of the R frames; R >= 1.
            voiced: float32 [R] in [0, 1], the share of the person's correction (constraints.voiced_share).
        """

    def _closing(self, count: int, inputs: Float32) -> Float32 | None:
        """Return how far the network's input closes the lips at the next `count` frames, float32 [count] in [0, 1].

        None: the predictor's input does not tell of closed lips. Then the lips close on the sure p, b, m of the posteriorgram
        (constraints.closure_weights), which also closes lips that stay open (docs/models/speech_map.md).

        Args:
            count: R, number of frames.
            inputs: as _predict takes it.
        """
        return None

    def _voiced_share(self, speaking: Float32) -> Float32:
        """Return constraints.voiced_share. Without a frame ahead, each frame gets the share of the frame before."""
        if self._constraints.frames_ahead >= CONTEXT_AHEAD:
            return voiced_share(speaking, self._constraints)
        # The share of the last frame needs the frame after, which is not known.
        before = np.concatenate([speaking[:1], speaking])
        return voiced_share(before, replace(self._constraints, frames_ahead=CONTEXT_AHEAD))

    def _advance(self, features: SpeechFeatures) -> Motion:
        if len(self._speaking) == CONTEXT_PAST and self._next == 0 and len(features):
            # New speech that is laid under a video begins with digital silence: the person is silent before.
            self._sound_at_once = bool((features.mel[0] > silence(1).mel[0]).any())
        inputs = np.concatenate([self._last_inputs, self._inputs_of(features)])
        if self._next == 0:
            self._first_loudness = np.concatenate([self._first_loudness, frame_loudness(features.mel)])
        probability = self._speech_probability(features)
        quiet = self._quiet_frames.push(probability, features)
        if self._constraints.ends_when_quiet:
            probability = np.where(quiet == QUIET, np.float32(0.0), probability)
        speaking, quiet = np.concatenate([self._speaking, probability]), np.concatenate([self._quiet, quiet])
        bilabial = np.concatenate([self._bilabial, bilabial_probability(features)])
        ready = max(len(inputs) - self._past - self._ahead, 0)
        first = self._next
        if ready and first == 0 and self._sound_at_once:
            loudness = self._first_loudness[: len(speaking) - CONTEXT_PAST]
            if begins_within_speech(speaking[CONTEXT_PAST:], loudness, self._constraints):
                speaking[:CONTEXT_PAST] = 1.0
        if (answered := min(ready, self._answer_from - first)) > 0:
            # The predictor that this one goes on from has answered these frames.
            inputs, speaking, bilabial, quiet = inputs[answered:], speaking[answered:], bilabial[answered:], quiet[answered:]
            first, ready = first + answered, ready - answered
        self._last_inputs = inputs[ready:]
        self._speaking, self._bilabial, self._quiet = speaking[ready:], bilabial[ready:], quiet[ready:]
        self._next = first + ready
        if not ready:
            return Motion(first, np.zeros((0, NUM_POINTS, 3), np.float32), np.zeros(0, np.float32))
        around = slice(CONTEXT_PAST + ready + self._constraints.frames_ahead)
        voiced = self._voiced_share(speaking[around])
        motion = self._predict(first, inputs, speaking[CONTEXT_PAST : CONTEXT_PAST + ready], voiced)
        if (closing := self._closing(ready, inputs)) is None:
            closing = closure_weights(bilabial[around], self._constraints)
        wide = self.options.expressiveness
        factor = np.float32(wide) - np.float32(max(wide - 1.0, 0.0)) * closing
        constrained = apply_constraints(
            with_expressiveness(motion.mouth_landmarks, self._style, np.asarray(factor, np.float32)),
            self._style.rest_mouth,
            self._style.added.get(RESTING_MOUTH, self._style.closed_mouth),
            self._style.closed_mouth,
            closing,
            speaking[around],
            quiet[around],
            self._constraints,
        )
        if (fastest := self._style.added.get(FASTEST_STEP)) is not None:
            constrained = without_snaps(constrained, self._last_mouth, float(fastest[0]) * max(wide, 1.0))
            self._last_mouth = constrained[-1].copy()
        return replace(motion, mouth_landmarks=constrained)
