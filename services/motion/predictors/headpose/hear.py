"""Answers of the speech map and of the network of `headpose` for a whole clip, for personalisation."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.chassis.calls import check_still_wanted
from services.motion.models import MotionModels
from services.motion.personalization import Step
from services.motion.predictors.headpose.head_rhythm import SignalStream
from services.motion.predictors.headpose.inputs import content_of, heard_clip
from services.motion.predictors.headpose.model import MOUTH, HeadposeModel
from services.motion.speech_map import SpeechMapModel, correction_inputs
from services.motion.speech_states import neighbours, states_of
from services.motion.types import SpeechFeatures

_CHUNK: Final = 50
"""Frames per step of progress."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Answers for frames 0 .. T - 1 of a clip.

    Attributes:
        coefficients: float64 [T, K], the map's answer in units of the person's spread.
        signals: float64 [T, 13], see head_rhythm.
        pooled: float64 [T, 49 + K], see speech_map.correction_inputs.
    """

    coefficients: Float64
    signals: Float64
    pooled: Float64


def hear(features: SpeechFeatures, num_frames: int, models: MotionModels) -> Generator[Step, None, Heard]:
    """Run map and network over the first frames of a clip.

    Args:
        features: of the clip.
        num_frames: T, frames to run over.
        models: the networks.

    Yields:
        One step per 50 frames; one more step is due after the last frame.

    Returns:
        The answers.
    """
    model = HeadposeModel.of(models)
    rows = heard_clip(features, model.past, model.ahead)
    each = SpeechMapModel.of(models).maps[MOUTH.feature]
    windows = neighbours(states_of(features), MOUTH.past, MOUTH.ahead)
    h, c, stream = model.rest(), model.rest(), SignalStream(model.rhythm)
    coefficients: list[Float32] = []
    found: list[Float64] = []
    pooled: list[Float32] = []
    for frame in range(num_frames):
        check_still_wanted()
        window = rows[frame : frame + model.window]
        step = model.step(window, h, c)
        h, c = step.h, step.c
        coefficients.append(each.predict(windows[frame]))
        pooled.append(correction_inputs(windows[frame], coefficients[-1], MOUTH))
        content = content_of(rows[model.past + frame])
        found.append(stream.push(step.pose, content, float(features.speech_probability[frame])))
        if (frame + 1) % _CHUNK == 0:
            yield Step(frame + 1, num_frames + 1, 1.0, None)
    return Heard(np.array(coefficients, np.float64), np.array(found), np.array(pooled, np.float64))
