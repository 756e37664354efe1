"""The predictor `speech_map` on the 25 frames/s grid.

Each grid frame n is a pure function of the states of frames n - b .. n + a (services/motion/speech_map.py), so the same features in
other pieces give the same bytes. A personalised style adds a correction (personalize.py), with p the states about frame n and the
map's own answer:

    coefficients = map(window) + C p(window, map(window))        in units of the person's spread

and gains of the opening and of the lip width (speech_map.Gains).

The lips close where the map of closed lips is sure (constraints.closed_lips_weights).
"""

from __future__ import annotations

from typing import Final

from services.common.array_types import Float32
from services.motion.constraints import ConstraintConfig
from services.motion.grid import Grid, motion_of_windows
from services.motion.models import MotionModels
from services.motion.speech_map import Hearing, MapMouth, SpeechMapModel
from services.motion.speech_states import silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures

CORRECTION: Final = "speech_map_correction"
"""Name of the style's array C, float32 [K, 49 + K]. A style has this array once it is personalised for `speech_map`."""
GAINS: Final = "speech_map_gains"
"""Name of the style's array of the gains of opening and lip width, float32 [2]. A style has this array once it is personalised for
`speech_map`."""


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
        self._hearing = hearing
        super().__init__(style, constraints, silent_states(hearing.past), hearing.ahead)
        self._mouth = MapMouth(model, hearing, models, style, style.added.get(CORRECTION), style.added.get(GAINS))

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames, self._hearing.feature)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return states_of(features, self._hearing.feature)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, heard, speaking, voiced, self._hearing.width, self._mouth)

    def _closing(self, count: int, heard: Float32) -> Float32:
        return self._mouth.map.closing(heard, self._past, count, self._constraints)
