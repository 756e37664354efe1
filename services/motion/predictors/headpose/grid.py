"""The predictor `headpose` on the 25 frames/s grid.

Headpose paper, Sec. 3.2: an LSTM from audio features to expression and head pose, one step per frame. The LSTM's state goes on from
the first frame, so the same features in other pieces give the same bytes. Beyond the paper, p, b, m and silence shut the lips, and
amplitude and rest mouth are the person's. Least squares learns the mean of the head's movement, which hardly moves;
head_rhythm.py and head_style.py bring back the person's distribution and pace of head poses.

A personalised style adds a correction of the expression, as personalize.py describes.
"""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.chassis.calls import check_still_wanted
from services.motion.constraints import CONTEXT_PAST, ConstraintConfig
from services.motion.expression_grid import ExpressionGrid
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.predictors.headpose.blink import blinks
from services.motion.predictors.headpose.head import Head
from services.motion.predictors.headpose.inputs import HeardStream, content_of, heard_before, pooled_content
from services.motion.predictors.headpose.model import CORRECTION, HeadposeModel
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures


class HeadposeGrid(ExpressionGrid):
    """The predictor `headpose` of one person on the grid, with two frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        Raises:
            InvalidRequest: the style does not tell how the head moves.
        """
        self._model = HeadposeModel.of(models)
        past = max(self._model.past, CONTEXT_PAST)
        super().__init__(self._model, models, style, constraints, silence(past), heard_before(past), self._model.ahead)
        self._correction = style.added.get(CORRECTION)
        self._head = Head(models, style)
        self._h, self._c = self._model.rest(), self._model.rest()
        self._stream = HeardStream()

    def _hear(self, features: SpeechFeatures) -> Float32:
        return self._stream.push(features)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        mouths, poses = [], []
        for place, probability in enumerate(speaking.tolist()):
            check_still_wanted()
            frame = self._past + place
            expression, pose = self._step(heard[frame - self._model.past : frame + self._model.ahead + 1], float(voiced[place]))
            poses.append(self._head.push(pose, content_of(heard[frame]), probability))
            mouths.append(self._mouth(expression))
        return Motion(first, np.stack(mouths), speaking, None, np.stack(poses), blinks(np.arange(first, first + len(speaking))))

    def _step(self, window: Float32, voiced: float) -> tuple[Float32, Float32]:
        """Run one step of the LSTM; return the expression [E] with the person's correction, and the pose [6]."""
        step = self._model.step(window, self._h, self._c)
        self._h, self._c = step.h, step.c
        if self._correction is None:
            return step.expression, step.pose
        return step.expression + np.float32(voiced) * (self._correction @ pooled_content(window, self._model.past)), step.pose
