"""Speech with ID-removed cepstra, and streams of motion."""

from __future__ import annotations

from services.common.wire.timeline import Timeline
from services.motion.models import MotionModels
from services.motion.predictors.everybody.predictor import EverybodyPredictor
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.types import SpeechFeatures
from tests.unit.motion.synthesised import random_features, with_identity_removed


def opened(models: MotionModels, style: Style, timeline: Timeline) -> MotionStream:
    return MotionStream(EverybodyPredictor(models, style), timeline)


def heard(num_frames: int, seed: int = 0) -> SpeechFeatures:
    return with_identity_removed(random_features(num_frames, seed), seed=seed + 1)
