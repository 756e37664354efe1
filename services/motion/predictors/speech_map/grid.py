"""The predictor `speech_map` on the 25 frames/s grid.

Each grid frame n is a pure function of the states of frames n - b .. n + a (speech_map.py), so the same features in other pieces
give the same bytes. A personalised style adds a correction (personalize.py), with p the states about frame n and the map's own
answer:

    coefficients = map(window) + C p(window, map(window))        in units of the person's spread

and a gain g of the opening, the first coefficient, about the mean mouth's coefficient m, which never presses lips together:

    c_0' = m + g (c_0 - m)

and a gain g_w of the lip width about that of the mean mouth: the lips' points move along x from the middle of the lips.

The lips close where the map of closed lips is sure (constraints.closed_lips_weights).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.face.landmarks import NUM_LIPS, lip_gaps, lip_width
from services.motion.basis import LandmarkBasis
from services.motion.constraints import ConstraintConfig
from services.motion.grid import Grid, amplified, motion_of_windows
from services.motion.models import MotionModels
from services.motion.speech_map import Hearing, SpeechMapModel, correction_inputs
from services.motion.speech_states import silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures

CORRECTION: Final = "speech_map_correction"
"""Name of the style's array C, float32 [K, 49 + K]. A style has this array once it is personalised for `speech_map`."""
OPENING_GAIN: Final = "speech_map_opening_gain"
WIDTH_GAIN: Final = "speech_map_width_gain"
"""Names of the style's arrays g and g_w, float32 [1]. A style has these arrays once it is personalised for `speech_map`."""


class SpeechMapGrid(Grid):
    """The predictor `speech_map` of one person on the grid."""

    def __init__(
        self, model: SpeechMapModel, hearing: Hearing, models: MotionModels, style: Style, constraints: ConstraintConfig | None
    ) -> None:
        """Start at the first frame.

        Args:
            model: the maps.
            hearing: which map to use.
            models: as services.motion.predictor.Predictor.open takes it, as are `style` and `constraints`.
            style: the person.
            constraints: see Grid.
        """
        self._map, self._basis = model.maps[hearing.feature], model.basis
        super().__init__(style, constraints, self._silence(hearing.past), silent_states(hearing.past), hearing.ahead)
        self._spread = model.spread(style.spread, models)
        self._correction = style.added.get(CORRECTION)
        self._gain = OpeningGain(style, self._basis, self._spread) if OPENING_GAIN in style.added else None
        self._width_gain = style.added[WIDTH_GAIN][0] if WIDTH_GAIN in style.added else np.float32(1.0)

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames, self._map.hearing.feature)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return states_of(features, self._map.hearing.feature)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, heard, speaking, voiced, self._map.hearing.width, self._mouth)

    def _closing(self, count: int, heard: Float32, bilabial: Float32) -> Float32:
        return self._map.closing(heard[: count + self._map.hearing.width - 1], self._constraints)

    def _mouth(self, window: Float32, voiced: float) -> Float32:
        """Return the mouth of a window of states: float32 [59, 3], before constraints."""
        coefficients = self._map.predict(window)
        if self._correction is not None:
            inputs = correction_inputs(window, coefficients, self._map.hearing)
            coefficients = coefficients + np.float32(voiced) * (self._correction @ inputs)
        mouth = self._style.rest_mouth + self._basis.reconstruct((coefficients * self._spread).astype(np.float32))
        if self._gain is not None:
            mouth = self._gain.applied(mouth, coefficients[0], voiced)
        return widened(amplified(mouth, self._style), self._style, np.float32(1.0 + voiced * (self._width_gain - 1.0)))


def widened(mouth: Float32, style: Style, gain: np.float32) -> Float32:
    """Return a mouth, float32 [59, 3], with its lip width scaled about the width of the mean mouth; jaw and chin stay."""
    if gain == 1.0:
        return mouth
    width, mean = np.float32(lip_width(mouth)), np.float32(lip_width(style.mean_mouth))
    found = mouth.copy()
    lips = found[:NUM_LIPS, 0]
    middle = lips.mean()
    found[:NUM_LIPS, 0] = middle + (lips - middle) * ((mean + gain * (width - mean)) / max(width, np.float32(1e-3)))
    return found


class OpeningGain:
    """A person's gain of the opening."""

    def __init__(self, style: Style, basis: LandmarkBasis, spread: Float32) -> None:
        """Prepare the gain of a style that is personalised for `speech_map`.

        Args:
            style: the person.
            basis: basis of the coefficients.
            spread: float32 [K], the person's spread of each coefficient.
        """
        self._more = style.added[OPENING_GAIN][0] - np.float32(1.0)
        self._unit = basis.components[0] * spread[0]
        self._mean = basis.project(style.mean_mouth - style.rest_mouth)[0] / spread[0]
        self._parts = _gap(style.rest_mouth + self._unit) - _gap(style.rest_mouth)

    def applied(self, mouth: Float32, opening: np.float32, voiced: float) -> Float32:
        """Return a mouth, float32 [59, 3], with the gain. Lips are brought together as far as they touch, and no further.

        Args:
            mouth: float32 [59, 3].
            opening: the mouth's first coefficient.
            voiced: share of the gain, 0 to 1.
        """
        touching = -max(_gap(mouth), np.float32(0.0)) / self._parts
        return np.asarray(mouth + max(np.float32(voiced) * self._more * (opening - self._mean), touching) * self._unit, np.float32)


def _gap(mouth: Float32) -> np.float32:
    """Return the mean height of the gap between the lips, crop pixels; negative where the lips overlap."""
    return np.float32(lip_gaps(mouth)[:, 1].mean())
