"""The predictor `headpose` on the 25 frames/s grid.

Headpose paper, Sec. 3.2: an LSTM from audio features to expression and head pose, one step per frame. The LSTM's state goes on from
the first frame, so the same features in other pieces give the same bytes. The mouth is that of the speech map (speech_map.py). The
LSTM's expression added nothing to the map (docs/models/audio_to_head_motion.md), so the LSTM moves the head alone. Beyond the
paper, p, b, m and silence shut the lips, and amplitude and rest mouth are the person's. Least squares learns the mean of the head's
movement, which hardly moves; head_rhythm.py and head_style.py bring back the person's distribution and pace of head poses.

A personalised style adds a correction of the mouth, as personalize.py describes.
"""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.chassis.calls import check_still_wanted
from services.motion.constraints import ConstraintConfig
from services.motion.expression_grid import ExpressionGrid
from services.motion.models import MotionModels
from services.motion.predictors.headpose.blink import blinks
from services.motion.predictors.headpose.head import Head
from services.motion.predictors.headpose.inputs import HeardStream, content_of, heard_before
from services.motion.predictors.headpose.model import CORRECTION, MOUTH, HeadposeModel
from services.motion.speech_map import MapMouth, SpeechMapModel
from services.motion.speech_states import NUM_STATES, beside_states, silence_with_states, silent_states, states_of
from services.motion.style import Style
from services.motion.types import ROWS_PER_FRAME, Motion, SpeechFeatures


class HeadposeGrid(ExpressionGrid):
    """The predictor `headpose` of one person on the grid, with three frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        Raises:
            InvalidRequest: the style does not tell how the head moves.
        """
        self._model = HeadposeModel.of(models)
        past = max(self._model.past, MOUTH.past)
        before = beside_states(heard_before(past), silent_states(past))
        super().__init__(self._model, models, style, constraints, before, MOUTH.ahead)
        self._map_mouth = MapMouth(SpeechMapModel.of(models), MOUTH, models, style, style.added.get(CORRECTION))
        self._head = Head(models, style)
        self._h, self._c = self._model.rest(), self._model.rest()
        self._stream = HeardStream()

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return silence_with_states(num_frames)

    def _hear(self, features: SpeechFeatures) -> Float32:
        """Return the LSTM's inputs and the states of the speech encoder, float32 [T, 256 + 192]."""
        states = states_of(features)
        return beside_states(self._stream.push(features), states)

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        rows, states = heard[:, :-NUM_STATES].reshape(len(heard), ROWS_PER_FRAME, -1), heard[:, -NUM_STATES:]
        mouths, poses = [], []
        for place, probability in enumerate(speaking.tolist()):
            check_still_wanted()
            frame = self._past + place
            step = self._model.step(rows[frame - self._model.past : frame + self._model.ahead + 1], self._h, self._c)
            self._h, self._c = step.h, step.c
            poses.append(self._head.push(step.pose, content_of(rows[frame]), probability))
            mouths.append(self._map_mouth(states[frame - MOUTH.past : frame + MOUTH.ahead + 1], float(voiced[place])))
        return Motion(first, np.stack(mouths), speaking, None, np.stack(poses), blinks(np.arange(first, first + len(speaking))))

    def _closing(self, count: int, heard: Float32) -> Float32:
        return self._map_mouth.map.closing(heard, self._past, count, self._constraints)
