"""Personalisation for `ugc`: a correction of the coefficients from seconds of the person's footage.

    c' = c + C p

p is the speech about a frame pooled over time (pooled_speech.py), C a ridge regression from it on what the network missed
(correction.py). How strong the ridge is, cross-validation over blocks of a second of that footage says: where the person's sound
explains little of what was missed, little is corrected. Closed form: no random numbers.

A gain and an offset a coefficient reached less, and added nothing to the correction. Ridge regression on
the last hidden layer did not hold on other footage of the same person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.common.calls import check_still_wanted
from services.common.errors import NoUsableFootage
from services.motion.adapt.correction import choose_ridge, fit_correction
from services.motion.features import content_before, content_rows, silence
from services.motion.models import MotionModels
from services.motion.predict import pooled_content
from services.motion.style import Style
from services.motion.types import WINDOW, WINDOW_AHEAD, WINDOW_PAST, Bool, Float32, SpeechFeatures

MAX_FRAMES: Final = 250
"""Frames that are learned from: the first ten seconds that are usable."""
MIN_FRAMES: Final = 50
NUM_BLOCKS: Final = 5


@dataclass(frozen=True, slots=True)
class Step:
    """Progress: `loss` is what is left of the squared error of the style that came; `style` is set in the last one."""

    index: int
    count: int
    loss: float
    style: Style | None


def personalize(
    style: Style, features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, models: MotionModels
) -> Iterator[Step]:
    """Refine a style for `ugc`; its arrays for other methods stay as they are.

    Args:
        style: of EncodeStyle.
        features: of the enrolment footage, lag taken out, T frames.
        mouth_landmarks: float32 [T, 59, 3].
        usable: bool [T].
        models: the networks.

    Yields:
        A step a block, the refined style in the last one; its loss is that of blocks left out (correction.choose_ridge).

    Raises:
        NoUsableFootage: fewer than 50 usable frames.
    """
    frames = np.flatnonzero(usable)[:MAX_FRAMES]
    if len(frames) < MIN_FRAMES:
        raise NoUsableFootage(
            f"personalising motion needs {MIN_FRAMES} usable frames (2 s), the footage has {len(frames)}",
            subject="mouth_landmarks",
        )
    content = content_rows(SpeechFeatures.joined([features, silence(WINDOW_AHEAD)]))
    padded = np.concatenate([content_before(WINDOW_PAST), content])
    target = models.basis.project(mouth_landmarks[frames] - style.rest_mouth).astype(np.float64) / style.spread
    predicted: list[Float32] = []
    pooled: list[Float32] = []
    for block in np.array_split(frames, NUM_BLOCKS):
        check_still_wanted()
        windows = [padded[frame : frame + WINDOW] for frame in block]
        predicted += [models.predict(window, style.modulation) for window in windows]
        pooled += [pooled_content(window) for window in windows]
        yield Step(len(predicted), len(frames) + 1, 1.0, None)
    residual, heard = target - np.array(predicted, np.float64), np.array(pooled, np.float64)
    choice = choose_ridge(heard, residual, style.spread.astype(np.float64) ** 2)
    refined = replace(style, landmark_correction=fit_correction(heard, residual, choice.ridge))
    yield Step(len(frames) + 1, len(frames) + 1, min(choice.loss, 1.0), refined)
