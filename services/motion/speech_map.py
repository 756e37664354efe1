"""The fitted maps: linear filters from neighbouring states of the speech encoder to motion, for files and for live speech.

    coefficients   = W (s_{n - b}, ..., s_{n + a}) + w              in units of the person's spread
    P(closed lips) = 1 / (1 + exp(-(v (s_{n - b}, ..., s_{n + a}) + u)))

s_n are the 192 numbers of frame n that the audio stage's speech encoder makes. Files and live speech have maps of their own,
because the encoder takes them in other windows. Live speech has a map for each look-ahead a, 0 to 3 frames: a map that looks
further ahead predicts better, and each frame of look-ahead delays the stream by 40 ms. The file holds the landmark basis that the
maps were fitted in, so the basis of other networks may change.

In live speech, one regression for all look-aheads tells whether somebody speaks:

    P(speech) = 1 / (1 + exp(-(a (s_{n - 3}, ..., s_n) + c)))

The audio stage's detector of speech notices the beginning of speech some frames late. The states show it at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Array, Float32
from services.common.face.landmarks import NUM_LIPS, lip_gaps, lip_width
from services.common.methods import LIVE_LOOK_AHEAD, LIVE_LOOK_AHEAD_CHOICES
from services.motion.basis import LandmarkBasis
from services.motion.constraints import ConstraintConfig, closed_lips_weights
from services.motion.expression import expression_spread
from services.motion.models import MotionModels
from services.motion.person_predictor import amplified
from services.motion.runtime import read_constants, shaped
from services.motion.speech_states import (
    NUM_POOLED_STATES,
    NUM_STATES,
    STATES,
    STATES_AHEAD,
    STATES_PAST,
    pooled_states,
    silent_states,
    states_of,
)
from services.motion.style import Style
from services.motion.types import SpeechFeatures

MODEL_FILE: Final = "speech_map.safetensors"
_REMEDY: Final = "fit the maps again (python -m research.methods.dubstage.motion)"
ARRAYS: Final = ("weight", "bias", "closed_weight", "closed_bias")
"""Arrays of a map in the file."""

_ANSWER_SCALE: Final = np.float32(0.5)
"""Factor of the map's answer beside the states that a correction takes: a ridge punishes a factor of a small number more."""
LIVE_STATES: Final = "speech_states_live"
"""Tensor of AudioFeatureBlock with the states of live speech."""
_VOICE_ACTIVITY: Final = f"{LIVE_STATES}.voice_activity."
"""Beginning of the names of the arrays of VoiceActivity in the file."""
VOICE_ACTIVITY_PAST: Final = 3
"""Context frames of VoiceActivity before a frame."""
_SPEECH_FROM, _SPEECH_AT = 0.8, 0.95
"""P(speech) up to which a frame counts as no speech, and from which a frame counts as sure speech."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputWindow:
    """Input window of one of the maps.

    Attributes:
        feature: tensor of AudioFeatureBlock with the states.
        past: b, frames of states before the predicted frame.
        ahead: a, frames of states after the predicted frame.
        live: whether the speech is still to come. Then VoiceActivity tells whether somebody speaks.
    """

    feature: str
    past: int
    ahead: int
    live: bool = False

    @property
    def name(self) -> str:
        """Name of the map in the file, such as `speech_states` (files) or `speech_states_live.1` (live speech, 1 frame ahead)."""
        return f"{self.feature}.{self.ahead}" if self.live else self.feature

    @property
    def width(self) -> int:
        """Number of frames in the window."""
        return self.past + 1 + self.ahead


FILES: Final = InputWindow(feature=STATES, past=STATES_PAST, ahead=STATES_AHEAD)
LIVE_INPUT_WINDOWS: Final = {
    ahead: InputWindow(feature=LIVE_STATES, past=4, ahead=ahead, live=True) for ahead in LIVE_LOOK_AHEAD_CHOICES
}
"""Inputs of the maps of live speech by their look-ahead."""
LIVE: Final = LIVE_INPUT_WINDOWS[LIVE_LOOK_AHEAD]
"""Input of the map of a live stream whose caller chooses no look-ahead."""
INPUT_WINDOWS: Final = (FILES, *LIVE_INPUT_WINDOWS.values())


@dataclass(frozen=True)
class VoiceActivity:
    """Logistic regression that tells speech from silence and noise.

    Attributes:
        weight: float32 [4 * 192], a; the first frame comes first.
        bias: float32 [1], c.
    """

    weight: Float32
    bias: Float32

    def probability(self, window: Float32) -> float:
        """Return P(speech) of the last frame of a window, float32 [4, 192]."""
        return _logistic(float(self.weight @ np.ascontiguousarray(window).reshape(-1)) + float(self.bias[0]))

    def arrays(self) -> dict[str, Float32]:
        """Return the arrays of the file, by name without the beginning that they share."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


class VoiceActivityStream:
    """Speech probability of one stream: the higher one of the audio stage's detector and of VoiceActivity."""

    def __init__(self, activity: VoiceActivity) -> None:
        """Start before the first frame."""
        self._activity = activity
        self._before = silent_states(VOICE_ACTIVITY_PAST)

    def push(self, features: SpeechFeatures) -> Float32:
        """Return the speech probability of the next frames, float32 [T] in [0, 1].

        Raises:
            InvalidRequestError: the features have no such states.
        """
        states = np.concatenate([self._before, states_of(features, LIVE_STATES)])
        self._before = states[len(states) - VOICE_ACTIVITY_PAST :]
        windows = (states[frame : frame + VOICE_ACTIVITY_PAST + 1] for frame in range(len(features)))
        probability = np.array([self._activity.probability(window) for window in windows], np.float32)
        sure = np.clip((probability - _SPEECH_FROM) / (_SPEECH_AT - _SPEECH_FROM), 0.0, 1.0)
        return np.maximum(features.speech_probability, np.asarray(sure, np.float32))


def _logistic(score: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(score, -30.0), 30.0)))


@dataclass(frozen=True)
class LinearMap:
    """One of the maps.

    Attributes:
        weight: float32 [K, width * 192], W; the first frame comes first.
        bias: float32 [K], w.
        closed_weight: float32 [width * 192], v.
        closed_bias: float32 [1], u.
        input_window: the map's input.
    """

    weight: Float32
    bias: Float32
    closed_weight: Float32
    closed_bias: Float32
    input_window: InputWindow

    def arrays(self) -> dict[str, Float32]:
        """Return the arrays of the file, by name without the map's."""
        return {name: getattr(self, name) for name in ARRAYS}

    def predict(self, window: Float32) -> Float32:
        """Return the coefficients of one window: float32 [width, 192] -> float32 [K] in units of the person's spread.

        Each call takes one window: the bits of a batched matrix product may depend on the size of the batch.
        """
        return np.asarray(self.weight @ np.ascontiguousarray(window).reshape(-1) + self.bias, np.float32)

    def closed(self, window: Float32) -> float:
        """Return the probability of closed lips of one window, float32 [width, 192]."""
        return _logistic(float(self.closed_weight @ np.ascontiguousarray(window).reshape(-1)) + float(self.closed_bias[0]))

    def closing(self, network_input: Float32, past: int, count: int, constraints: ConstraintConfig) -> Float32:
        """Return how far the lips close at frames of the grid, float32 [count] in [0, 1], see constraints.closed_lips_weights.

        Args:
            network_input: inputs of a predictor's network, float32 [T, C], of which the last 192 numbers are the states.
            past: frames before the first of the frames.
            count: number of frames.
            constraints: strength of the constraints.
        """
        states = network_input[past - self.input_window.past :, -NUM_STATES:]
        windows = (states[frame : frame + self.input_window.width] for frame in range(count))
        return closed_lips_weights(np.array([self.closed(window) for window in windows], np.float32), constraints)


class SpeechMapModel:
    """The maps with their basis.

    Attributes:
        basis: landmark basis of the coefficients.
        maps: the maps by their input.
        voice_activity: tells whether somebody speaks, for all maps of live speech. None: the audio stage's detector alone tells.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the maps. Arguments and errors: see PredictorModel."""
        named = read_constants(folder / MODEL_FILE)
        self.basis = LandmarkBasis.named(named)
        self.maps = {
            input_window: _map(named.arrays, input_window, len(self.basis.typical_spread), folder) for input_window in INPUT_WINDOWS
        }
        sizes = {"weight": ((VOICE_ACTIVITY_PAST + 1) * NUM_STATES,), "bias": (1,)}
        own = shaped(named.arrays, sizes, folder / MODEL_FILE, _REMEDY, _VOICE_ACTIVITY)
        self.voice_activity: VoiceActivity | None = VoiceActivity(**own)

    @classmethod
    def of(cls, models: MotionModels) -> SpeechMapModel:
        """Return the model that belongs to the shared networks; the first call loads the model."""
        return models.own(cls)

    def arrays(self) -> dict[str, Float32]:
        """Return the arrays of the file, by name."""
        arrays = self.basis.arrays()
        for input_window, each in self.maps.items():
            arrays |= {f"{input_window.name}.{name}": values for name, values in each.arrays().items()}
        if self.voice_activity is not None:
            arrays |= {f"{_VOICE_ACTIVITY}{name}": values for name, values in self.voice_activity.arrays().items()}
        return arrays

    def version(self, *input_windows: InputWindow) -> str:
        """Return the first 12 digits of the SHA-256 of the arrays that a predictor with maps of these inputs computes with."""
        parts = [self.maps[input_window].arrays() for input_window in input_windows]
        if self.voice_activity is not None and any(input_window.live for input_window in input_windows):
            parts.append(self.voice_activity.arrays())
        return hashlib.sha256(b"".join(each.tobytes() for part in parts for each in part.values())).hexdigest()[:12]

    def spread(self, style_spread: Float32, models: MotionModels) -> Float32:
        """Return the person's spread of each coefficient, float32 [K], from the spread in the style, which has another basis.

        Equal bases give the style's spread up to rounding.
        """
        return expression_spread(style_spread, models.basis, self.basis)


def _map(arrays: Mapping[str, Array], input_window: InputWindow, num_coefficients: int, folder: Path) -> LinearMap:
    inputs = input_window.width * NUM_STATES
    shapes = dict(zip(ARRAYS, ((num_coefficients, inputs), (num_coefficients,), (inputs,), (1,)), strict=True))
    return LinearMap(**shaped(arrays, shapes, folder / MODEL_FILE, _REMEDY, f"{input_window.name}."), input_window=input_window)


def num_correction_inputs(num_coefficients: int) -> int:
    """Return the count of numbers that a correction of the map takes, for K coefficients: 49 + K."""
    return NUM_POOLED_STATES + num_coefficients


def correction_shape(models: MotionModels) -> tuple[int, int]:
    """Return the shape of a person's correction of the map, (K, 49 + K)."""
    num_coefficients = len(SpeechMapModel.of(models).basis.typical_spread)
    return num_coefficients, num_correction_inputs(num_coefficients)


def correction_inputs(window: Float32, answer: Float32, input_window: InputWindow) -> Float32:
    """Return the features of a frame that a correction of the map takes: float32 [49 + K], the last number 1.

    Args:
        window: float32 [width, 192], states about the frame.
        answer: float32 [K], coefficients of the map.
        input_window: input of the map.
    """
    pooled = pooled_states(window, input_window.past)
    return np.concatenate([pooled[:-1], _ANSWER_SCALE * answer, pooled[-1:]]).astype(np.float32)


class MapMouth:
    """Mouths of one person from states, before constraints.

        coefficients = map(window) + voiced * C p(window, map(window))        in units of the person's spread; p: correction_inputs

    Then the person's gains, see Gains, which take the place of person_predictor.amplified by the same share `voiced`.
    """

    map: LinearMap

    def __init__(
        self,
        model: SpeechMapModel,
        input_window: InputWindow,
        models: MotionModels,
        style: Style,
        correction: Float32 | None,
        gains: Float32 | None = None,
    ) -> None:
        """Take a person.

        Args:
            input_window: which map to use.
            correction: the person's correction C, float32 [K, 49 + K]. None: the map without a correction.
            gains: gains of the opening and of the lip width, float32 [2]. None: none.
        """
        self.map = model.maps[input_window]
        activity = model.voice_activity if input_window.live else None
        self._activity = None if activity is None else VoiceActivityStream(activity)
        self._basis, self._style = model.basis, style
        self._spread, self._correction = model.spread(style.spread, models), correction
        self._gains = None if gains is None else Gains(gains, style, model.basis, self._spread)

    def speech_probability(self, features: SpeechFeatures) -> Float32:
        """Return the speech probability of the next frames of the stream, float32 [T] in [0, 1], see VoiceActivityStream."""
        return features.speech_probability if self._activity is None else self._activity.push(features)

    def __call__(self, window: Float32, voiced: float) -> Float32:
        """Return the mouth of a window of states: float32 [width, 192] -> [59, 3].

        Args:
            window: states of the frames of the map's input window.
            voiced: share of the person's correction (constraints.voiced_share).
        """
        coefficients = self.map.predict(window)
        if self._correction is not None:
            inputs = correction_inputs(window, coefficients, self.map.input_window)
            coefficients = coefficients + np.float32(voiced) * (self._correction @ inputs)
        mouth = self._style.rest_mouth + self._basis.reconstruct((coefficients * self._spread).astype(np.float32))
        if self._gains is None:
            return amplified(mouth, self._style)
        gained = self._gains.widened(self._gains.opened(mouth, coefficients[0], voiced), voiced)
        return np.asarray(gained + np.float32(1.0 - voiced) * (amplified(gained, self._style) - gained), np.float32)


class Gains:
    """A person's gains: a prediction of least error moves less than the person does.

        c_0' = m + g (c_0 - m)

    is the opening, the first coefficient, with the gain g about the mean mouth's coefficient m. The lip width has a gain about the
    width of the mean mouth: the points of the lips move along x from the middle of the lips.
    """

    def __init__(self, gains: Float32, style: Style, basis: LandmarkBasis, spread: Float32) -> None:
        """Prepare the gains.

        Args:
            gains: float32 [2], of the opening and of the lip width.
            basis: basis of the coefficients.
            spread: float32 [K], the person's spread of each coefficient.
        """
        self._opening, self._width = gains[0] - np.float32(1.0), gains[1] - np.float32(1.0)
        self._unit = basis.components[0] * spread[0]
        self._mean = basis.project(style.mean_mouth - style.rest_mouth)[0] / spread[0]
        self._mean_width = np.float32(lip_width(style.mean_mouth))
        self._parts = _gap(style.rest_mouth + self._unit) - _gap(style.rest_mouth)

    def opened(self, mouth: Float32, opening: np.float32, voiced: float) -> Float32:
        """Return a mouth, float32 [59, 3], with the gain of the opening. Lips come together as far as they touch, and no further.

        Args:
            mouth: float32 [59, 3].
            opening: the mouth's first coefficient.
            voiced: share of the gain, 0 to 1.
        """
        touching = -max(_gap(mouth), np.float32(0.0)) / self._parts
        target = np.float32(voiced) * self._opening * (opening - self._mean)
        return np.asarray(mouth + max(target, touching) * self._unit, np.float32)

    def widened(self, mouth: Float32, voiced: float) -> Float32:
        """Return a mouth, float32 [59, 3], with the gain of the lip width; jaw and chin stay. Arguments: see opened."""
        width = max(np.float32(lip_width(mouth)), np.float32(1e-3))
        target = width + np.float32(voiced) * self._width * (width - self._mean_width)
        moved = mouth.copy()
        lips = moved[:NUM_LIPS, 0]
        middle = lips.mean()
        moved[:NUM_LIPS, 0] = middle + (lips - middle) * (target / width)
        return moved


def _gap(mouth: Float32) -> np.float32:
    """Return the mean height of the gap between the lips, crop pixels; negative where the lips overlap."""
    return np.float32(lip_gaps(mouth)[:, 1].mean())
