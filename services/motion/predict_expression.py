"""The motion predictor `everybody`: a second of ID-removed speech in, expression coefficients and mouths out.

Everybody's Talkin', Sec. 3.2.2. Each frame is a pure function of its window (expression_window.py), so pieces of any size give the
same bytes.
What the paper leaves out: loudness is heard too, as band energies relative to the speech just heard (the jaw opens by it, and
ID-removed cepstra have none left); p, b, m and silence shut the lips as in `ugc`; amplitude and rest mouth are the person's own.

A personalised style adds a correction (adapt/personalize_expression.py), with p the window pooled over time:

    expression = network(window) + C p(window)        in units of the person's spread
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Final

import numpy as np

from services.common.calls import check_still_wanted
from services.common.errors import InvalidRequest
from services.common.timeline import Timeline
from services.motion.constraints import ConstraintConfig
from services.motion.expression import expressed, expression_spread
from services.motion.expression_window import EXPRESSION_AHEAD, EXPRESSION_PAST, EXPRESSION_WINDOW, pooled_window
from services.motion.features import ContentStream, content_before, content_rows, silence
from services.motion.grid import AMPLITUDE, Grid
from services.motion.models import MotionModels
from services.motion.predict import MotionStream
from services.motion.style import Style
from services.motion.types import NUM_PHONES, ROWS_PER_FRAME, Float32, Motion, SpeechFeatures

LOOK_AHEAD: Final = Fraction(EXPRESSION_AHEAD, 25)
ENERGY_SCALE: Final = 0.5
"""Of the energies beside the cepstra; .5 was better than 1 and than 0 on val clips."""


def heard_rows(removed: Float32, content: Float32) -> Float32:
    """What the network hears: ID-removed cepstra [T, 4, 20] and the energies of content rows [T, 4, 44], [T, 4, 24] float32."""
    return np.concatenate([removed, np.float32(ENERGY_SCALE) * content[..., NUM_PHONES:]], axis=-1)


def heard_silence(num_frames: int, row: Float32) -> Float32:
    """What is heard before a stream, float32 [T, 4, 24]; `row` [20] is the ID-removed row of digital silence."""
    removed = np.broadcast_to(row, (num_frames, ROWS_PER_FRAME, len(row))).astype(np.float32)
    return heard_rows(removed, content_before(num_frames))


def silent_speech(num_frames: int, row: Float32) -> SpeechFeatures:
    """Features of digital silence with the ID-removed row that belongs to it."""
    rows = np.broadcast_to(row, (num_frames, ROWS_PER_FRAME, len(row))).astype(np.float32)
    return replace(silence(num_frames), identity_removed=rows)


def heard_clip(features: SpeechFeatures, row: Float32) -> Float32:
    """What is heard of a whole clip of T frames with the silence around it: float32 [20 + T + 4, 4, 24].

    Raises:
        InvalidRequest: the features lack the ID-removed cepstra.
    """
    rows = SpeechFeatures.joined([features, silent_speech(EXPRESSION_AHEAD, row)])
    return np.concatenate([heard_silence(EXPRESSION_PAST, row), heard_rows(_removed(rows), content_rows(rows))])


def _removed(features: SpeechFeatures) -> Float32:
    if features.identity_removed is None:
        raise InvalidRequest("features.identity_removed: `everybody` needs it", field="features.identity_removed")
    return features.identity_removed


class ExpressionGrid(Grid):
    """The predictor `everybody` on the grid: four frames of features after a frame.

    Args:
        models: the networks.
        style: the person.
        constraints: closure of bilabials and of silence.
        amplitude: of the movement about the mean mouth.
    """

    def __init__(
        self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None, amplitude: float = AMPLITUDE
    ) -> None:
        self._model, self._amplitude = models.expression, amplitude
        before = (self._silence(EXPRESSION_PAST), heard_silence(EXPRESSION_PAST, self._model.silence))
        super().__init__(style, constraints, *before, EXPRESSION_AHEAD)
        self._spread = expression_spread(style.spread, models.basis, self._model.basis)
        self._contents = ContentStream()

    def expression(self, mouth_landmarks: Float32) -> Float32:
        """Coefficients of the morphable model from the person's rest mouth: float32 [T, num_expression]."""
        return self._model.coefficients(mouth_landmarks - self._style.rest_mouth)

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silent_speech(num_frames, self._model.silence)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return heard_rows(_removed(features), self._contents.push(features))

    def _predict(self, first: int, heard: Float32, speaking: Float32) -> Motion:
        mouths = [self._mouth(heard[frame : frame + EXPRESSION_WINDOW]) for frame in range(len(speaking))]
        return Motion(first, np.stack(mouths), speaking)

    def _mouth(self, window: Float32) -> Float32:
        """Mouth of one window before constraints, float32 [59, 3]."""
        check_still_wanted()
        coefficients = self._model.predict(window)
        if self._style.expression_correction is not None:
            coefficients = coefficients + self._style.expression_correction @ pooled_window(window)
        return expressed(self._spread * coefficients, self._model.basis, self._style, self._amplitude)


def expression_stream(models: MotionModels, style: Style, timeline: Timeline, num_frames: int = 0) -> MotionStream:
    """`everybody` on an output timeline; arguments and errors as of MotionStream."""
    return MotionStream(models, style, timeline, num_frames, grid=ExpressionGrid(models, style))
