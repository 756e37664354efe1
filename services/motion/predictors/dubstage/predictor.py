"""The motion predictors `speech_map` (files) and `speech_map_live`, and their personalisation.

Live speech has a map for each look-ahead of 0 to 3 frames (speech_map.LIVE_INPUT_WINDOWS), of which the caller chooses one.

Both read the same style. A person who was enrolled before these predictors has a style without a correction, and is predicted
without one.

Each frame n of the 25 frames/s grid is a pure function of the states about frame n (services/motion/speech_map.py), so the same
features in other pieces give the same bytes. A personalised style adds a correction, with p the states about frame n and the map's
own answer:

    coefficients = map(window) + C p(window, map(window))        in units of the person's spread

and gains of the opening and of the lip width (speech_map.Gains).

The lips close where the map of closed lips is sure (constraints.closed_lips_weights).

The correction is learned from seconds or minutes of the person's footage. p are states of the speech encoder about a frame and the
map's answer c (speech_map.correction_inputs). C is a ridge regression from p on what the map of files misses (correction.py); the
map of live speech takes the same C. Cross-validation over blocks of a second of the footage chooses the ridge. The solution has a
closed form without random numbers.

A prediction of least error moves less than the person does. So the style also gets a gain of the opening, in place of
person_predictor.amplified. o_n are openings that are predicted on held-out blocks, m is the opening of the mean mouth, w_n is how
far the lips close:

    std_n((1 - w_n) (m + h (o_n - m))) = std(opening of the person)      h from 1 to LARGEST_GAIN
    g = 1 + T / (T + T0) (h - 1)                                         T frames of footage, T0 = 50

The gain of the lip width is found in the same way, with w_n = 0. Seconds of footage tell little of the person's spread
(docs/models/speech_map.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.face.landmarks import lip_width, mouth_opening
from services.common.methods import PREDICTORS
from services.motion.constraints import LIVE as LIVE_CONSTRAINTS
from services.motion.constraints import WHOLE, ConstraintConfig, closed_lips_weights
from services.motion.correction import choose_ridge, fit_correction, held_out_corrections
from services.motion.models import MotionModels
from services.motion.person_predictor import PersonPredictor, motion_of_windows
from services.motion.predictor import (
    Open,
    Predictor,
    StyleStep,
    WindowPrediction,
    frames_to_learn_from,
    predict_in_blocks,
    true_coefficients,
)
from services.motion.speech_map import (
    FILES,
    LIVE,
    LIVE_INPUT_WINDOWS,
    InputWindow,
    MapMouth,
    SpeechMapModel,
    correction_inputs,
    correction_shape,
)
from services.motion.speech_states import neighbours, silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import Footage, Motion, SpeechFeatures

CORRECTION: Final = "speech_map_correction"
"""Name of the style's array C, float32 [K, 49 + K]. A style has this array once it is personalised for `dubstage`."""
GAINS: Final = "speech_map_gains"
"""Name of the style's array of the gains of opening and lip width, float32 [2]. A style has this array once it is personalised for
`dubstage`."""
MAX_FRAMES: Final = 7500
"""Frames that a correction is learned from: five minutes of usable frames."""
MIN_FRAMES: Final = 25
"""Fewest usable frames that a correction is learned from: one second (docs/models/speech_map.md, *Short footage*)."""
LARGEST_GAIN: Final = 1.5
"""Largest gain of the opening and of the lip width."""
_PRIOR_FRAMES: Final = 50.0
"""A gain of 1 counts as much as this many frames of the person."""


def live_constraints(input_window: InputWindow) -> ConstraintConfig:
    """Return constraints of live speech that look as far ahead as a map does, so that they delay no frame."""
    return replace(LIVE_CONSTRAINTS, frames_ahead=input_window.ahead)


class SpeechMapPredictor(PersonPredictor):
    """The predictor `dubstage` of one person."""

    def __init__(
        self,
        model: SpeechMapModel,
        input_window: InputWindow,
        models: MotionModels,
        style: Style,
        constraints: ConstraintConfig | None,
    ) -> None:
        """Start at the first frame.

        Args:
            input_window: which map to use.
            models: as services.motion.predictor.Predictor.open takes it, as are `style` and `constraints`.
            constraints: see PersonPredictor. None: live_constraints(input_window).
        """
        self._input_window = input_window
        super().__init__(style, constraints or live_constraints(input_window), silent_states(input_window.past), input_window.ahead)
        self._mouth = MapMouth(model, input_window, models, style, style.added.get(CORRECTION), style.added.get(GAINS))

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames, self._input_window.feature)

    def _speech_probability(self, features: SpeechFeatures) -> Float32:
        return self._mouth.speech_probability(features)

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return states_of(features, self._input_window.feature)

    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, inputs, speaking, voiced, self._input_window.width, self._mouth)

    def _closing(self, count: int, inputs: Float32) -> Float32:
        return self._mouth.map.closing(inputs, self._past, count, self._constraints)


def personalized(
    model: SpeechMapModel, input_window: InputWindow, style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels
) -> Iterator[StyleStep]:
    """Refine a style.

    Args:
        input_window: which map to use.
        style: as services.motion.predictor.Predictor.personalize takes it, as are the other arguments.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).
    """
    frames = frames_to_learn_from(footage.usable, MAX_FRAMES, MIN_FRAMES)
    each = model.maps[input_window]
    windows = neighbours(states_of(features, input_window.feature), input_window.past, input_window.ahead)
    spread = model.spread(style.spread, models)
    target = true_coefficients(footage, frames, style, model.basis, spread)

    def predict(frame: int) -> WindowPrediction:
        answer = each.predict(windows[frame])
        return WindowPrediction(answer, correction_inputs(windows[frame], answer, input_window))

    errors = yield from predict_in_blocks(frames, target, predict)
    choice = choose_ridge(errors.pooled, errors.residual, spread.astype(np.float64) ** 2)
    correction = fit_correction(errors.pooled, errors.residual, choice.ridge)
    foreseen = target - errors.residual + held_out_corrections(errors.pooled, errors.residual, choice.ridge)
    predicted = style.rest_mouth + model.basis.reconstruct((foreseen * spread).astype(np.float32))
    closed = np.array([each.closed(windows[frame]) for frame in frames], np.float32)
    seen = footage.mouth_landmarks[frames]
    gains = [
        spread_gain(measure(seen), measure(predicted), float(measure(style.mean_mouth)), closing)
        for measure, closing in ((mouth_opening, closed_lips_weights(closed, WHOLE)), (lip_width, np.zeros_like(closed)))
    ]
    refined = style.adding(**{CORRECTION: correction, GAINS: np.array(gains, np.float32)})
    yield StyleStep(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), refined)


def spread_gain(seen: Float32, predicted: Float32, mean: float, closing: Float32) -> float:
    """Return the gain of the opening, or of the lip width, that brings predictions towards the person's spread, 1 to LARGEST_GAIN.

    Args:
        seen: float32 [T], openings or widths of the person, crop pixels.
        predicted: float32 [T], the same of the mouths that are predicted for these frames.
        mean: the same of the person's mean mouth.
        closing: float32 [T] in [0, 1], how far the lips close (constraints.closed_lips_weights).
    """
    free = 1.0 - closing.astype(np.float64)
    about, level = free * (predicted - mean), free * mean
    # var(level + h about) = var(seen), a quadratic equation in h.
    square, cross = float(about.var()), float(np.cov(level, about, bias=True)[0, 1])
    missing = float(seen.var(dtype=np.float64)) - float(level.var())
    root = cross**2 + square * missing
    ratio = (np.sqrt(root) - cross) / square if root > 0.0 and square > 1e-6 else 1.0
    ratio = float(np.clip(ratio, 1.0, LARGEST_GAIN))
    return 1.0 + (ratio - 1.0) * len(seen) / (len(seen) + _PRIOR_FRAMES)


def opener_of(input_window: InputWindow) -> Open:
    """Return the function that opens the predictor with the map of this input."""

    def open_predictor(models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> PersonPredictor:
        return SpeechMapPredictor(SpeechMapModel.of(models), input_window, models, style, constraints)

    return open_predictor


def predictor_of(name: str, input_window: InputWindow, choices: Sequence[InputWindow] = ()) -> Predictor:
    """Return the predictor that takes the states of files, or of live speech.

    Args:
        name: name of the predictor's row.
        input_window: which map to use.
        choices: inputs of the maps of the look-aheads that a caller may choose.
    """

    def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
        return personalized(SpeechMapModel.of(models), input_window, style, features, footage, models)

    return Predictor(
        spec=PREDICTORS[name],
        version=lambda models: SpeechMapModel.of(models).version(*(choices or (input_window,))),
        open=opener_of(input_window),
        open_ahead={each.ahead: opener_of(each) for each in choices},
        personalize=personalize,
        style_arrays={CORRECTION: correction_shape, GAINS: lambda _: (2,)},
    )


PREDICTOR: Final = predictor_of("dubstage", FILES)
PREDICTOR_LIVE: Final = predictor_of("dubstage_live", LIVE, tuple(LIVE_INPUT_WINDOWS.values()))
