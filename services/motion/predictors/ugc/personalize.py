"""Personalisation for `ugc`: a correction of the coefficients from seconds or minutes of the person's footage.

    c' = c + C p

p is the speech around a frame, pooled over time (pooled_speech.py). C is a ridge regression from p on what the network misses
(correction.py). Cross-validation over blocks of a second of the footage chooses the ridge: if the person's sound explains little of
what the network misses, the correction is small. The solution has a closed form without random numbers. From 20 s of footage on, a
memory of the person's moments (memory.py) is added if cross-validation finds that less is missed with the memory.

A gain and an offset per coefficient reached less, and added nothing to the correction. A ridge regression on the last hidden
layer did not hold on other footage of the same person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from services.motion.correction import choose_ridge, fit_correction
from services.motion.models import MotionModels
from services.motion.personalization import Step, WindowPrediction, frames_to_learn_from, predict_in_blocks, true_coefficients
from services.motion.predictors.ugc.grid import CORRECTION
from services.motion.predictors.ugc.inputs import WINDOW, heard_clip, pooled_content
from services.motion.predictors.ugc.memory import MEMORY, MOMENTS, learned_memory
from services.motion.predictors.ugc.model import UgcModel
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures

MAX_FRAMES: Final = 7500
"""Frames that a correction is learned from: five minutes of usable frames."""


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[Step]:
    """Refine a style for `ugc`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).
    """
    frames = frames_to_learn_from(footage.usable, MAX_FRAMES)
    rows, model = heard_clip(features), UgcModel.of(models)
    target = true_coefficients(footage, frames, style, models.basis, style.spread)

    def predict(frame: int) -> WindowPrediction:
        window = rows[frame : frame + WINDOW]
        return WindowPrediction(model.predict(window, style.modulation), pooled_content(window))

    missed = yield from predict_in_blocks(frames, target, predict)
    weight = style.spread.astype(np.float64) ** 2
    choice = choose_ridge(missed.pooled, missed.residual, weight)
    memory = learned_memory(missed, weight, choice.loss)
    if memory is None:
        learned = {CORRECTION: fit_correction(missed.pooled, missed.residual, choice.ridge)}
    else:
        learned = {CORRECTION: memory.slopes, MOMENTS: memory.moments, MEMORY: memory.weights}
    loss = choice.loss if memory is None else memory.loss
    kept = {name: array for name, array in style.added.items() if name not in (CORRECTION, MOMENTS, MEMORY)}
    refined = replace(style, added={**kept, **learned})
    yield Step(len(frames) + 1, len(frames) + 1, min(loss, 1.0), refined)
