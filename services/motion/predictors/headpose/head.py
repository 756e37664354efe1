"""The head of one person who speaks: signals of the speech, scores that follow the signals, and poses."""

from __future__ import annotations

from services.common.array_types import Float32, Float64
from services.motion.models import MotionModels
from services.motion.predictors.headpose.head_rhythm import ScoreStream, SignalStream
from services.motion.predictors.headpose.head_style import PoseMap
from services.motion.predictors.headpose.model import HeadposeModel
from services.motion.predictors.headpose.style import head_style_of, rhythm_of
from services.motion.style import Style


class Head:
    """Stream of head poses of one person."""

    def __init__(self, models: MotionModels, style: Style) -> None:
        """Start at the first frame.

        Raises:
            InvalidRequest: the style does not tell how the head moves.
        """
        self._poses = PoseMap(head_style_of(style))
        self._signals = SignalStream(HeadposeModel.of(models).rhythm)
        self._scores = ScoreStream(rhythm_of(style, models))

    def push(self, pose: Float32, content: Float32, speech_probability: float) -> Float64:
        """Return the head-pose vector of the next frame, float64 [6].

        Args:
            pose: float32 [6], the LSTM's answer for the frame.
            content: float32 [4, 44], content rows of the frame.
            speech_probability: speech probability of the frame.
        """
        row = self._signals.push(pose, content, speech_probability)
        return self._poses.pose(self._scores.push(row, speech_probability))
