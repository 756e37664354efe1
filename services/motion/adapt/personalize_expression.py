"""Personalisation for `everybody`: a correction of the expression from seconds of the person's footage.

    e' = e + C p

The paper trains its network on a quarter of an hour of the person; this is what ten seconds can add to a network that never saw
them. p is the pooled window (expression_window.py): few enough numbers that seconds determine C (correction.py), and most of what
the network's linear filter hears. Closed form: no random numbers.

A gain and an offset a coefficient reached less, and added nothing to this. The strength is fixed: cross-validation of the whole
error did not choose better, for its folds differ by more than what is to be gained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from services.common.calls import check_still_wanted
from services.common.errors import NoUsableFootage
from services.motion.adapt.correction import fit_correction
from services.motion.adapt.personalize import MAX_FRAMES, MIN_FRAMES, NUM_BLOCKS, Step
from services.motion.expression import expression_spread
from services.motion.expression_window import EXPRESSION_WINDOW, pooled_window
from services.motion.models import MotionModels
from services.motion.predict_expression import heard_clip
from services.motion.style import Style
from services.motion.types import Bool, Float32, SpeechFeatures


def personalize_expression(
    style: Style, features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, models: MotionModels
) -> Iterator[Step]:
    """Refine a style for `everybody`; its arrays for other methods stay as they are.

    Args:
        style: of EncodeStyle.
        features: of the enrolment footage with ID-removed cepstra, lag taken out, T frames.
        mouth_landmarks: float32 [T, 59, 3].
        usable: bool [T].
        models: the networks.

    Yields:
        A step a block, the refined style in the last one; its loss is the squared error that remains on this footage, a
        coefficient counting by how far it moves the mouth, relative to that without correction.

    Raises:
        InvalidRequest: the features lack the ID-removed cepstra.
        NoUsableFootage: fewer than 50 usable frames.
    """
    frames = np.flatnonzero(usable)[:MAX_FRAMES]
    if len(frames) < MIN_FRAMES:
        raise NoUsableFootage(
            f"personalising motion needs {MIN_FRAMES} usable frames (2 s), the footage has {len(frames)}",
            subject="mouth_landmarks",
        )
    model = models.expression
    rows = heard_clip(features, model.silence)
    spread = expression_spread(style.spread, models.basis, model.basis).astype(np.float64)
    target = model.basis.project(mouth_landmarks[frames] - style.rest_mouth).astype(np.float64) / spread
    predicted: list[Float32] = []
    pooled: list[Float32] = []
    for block in np.array_split(frames, NUM_BLOCKS):
        check_still_wanted()
        windows = [rows[frame : frame + EXPRESSION_WINDOW] for frame in block]
        predicted += [model.predict(window) for window in windows]
        pooled += [pooled_window(window) for window in windows]
        yield Step(len(predicted), len(frames) + 1, 1.0, None)
    residual = target - np.array(predicted, np.float64)
    seen = np.array(pooled, np.float64)
    correction = fit_correction(seen, residual)
    weight = (spread * np.linalg.norm(model.basis.components.reshape(len(spread), -1), axis=1)) ** 2
    before = float((residual**2 * weight).sum())
    after = float(((residual - seen @ correction.T) ** 2 * weight).sum())
    refined = replace(style, expression_correction=correction)
    yield Step(len(frames) + 1, len(frames) + 1, after / max(before, 1e-9), refined)
