"""Streams of motion, and speech whose vowels open the mouth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.common.face.landmarks import mouth_opening
from services.common.wire.timeline import Timeline
from services.motion.constraints import ConstraintConfig
from services.motion.expression import expression_spread
from services.motion.models import MotionModels
from services.motion.predictors.everyone.predictor import WINDOW, EveryoneModel, EveryonePredictor
from services.motion.speech_states import NUM_STATES, STATES
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.types import SpeechFeatures
from tests.unit.motion.synthesised import rest_mouth, speech


def opened(models: MotionModels, style: Style, timeline: Timeline, constraints: ConstraintConfig | None = None) -> MotionStream:
    return MotionStream(EveryonePredictor(models, style, constraints), timeline)


def person_spread(models: MotionModels, style: Style) -> np.ndarray:
    """Size of each coefficient of the person, float32 [E]."""
    return expression_spread(style.spread, models.basis, EveryoneModel.of(models).basis)


def spoken(models: MotionModels, phones: list[str], frames_each: int) -> SpeechFeatures:
    """Speech whose states are those that open the mouth most, of 200 random ones, on every phone but silence."""
    model, features = EveryoneModel.of(models), speech(phones, frames_each)
    candidates = np.random.default_rng(4).normal(0.0, 4.0, (200, NUM_STATES)).astype(np.float32)
    shown = [model.basis.reconstruct(model.predict(np.tile(each, (WINDOW, 1))) * model.basis.typical_spread) for each in candidates]
    widest = candidates[int(np.argmax([mouth_opening(rest_mouth() + mouth) for mouth in shown]))]
    sounding = np.repeat([phone != "SIL" for phone in phones], frames_each)
    return replace(features, extra={STATES: sounding[:, None].astype(np.float32) * widest})
