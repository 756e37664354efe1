"""Personalisation for `everybody`: gain and offset of each expression coefficient, as `personalize` finds them for `ugc`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from services.common.errors import NoUsableFootage
from services.motion.adapt.personalize import (
    MAX_FRAMES,
    MIN_FRAMES,
    NUM_BLOCKS,
    Calibration,
    Step,
    calibrate,
    held_out_loss,
)
from services.motion.expression import expression_spread
from services.motion.models import MotionModels
from services.motion.predict_expression import EXPRESSION_WINDOW, heard_clip
from services.motion.style import Style
from services.motion.types import Bool, Float32, SpeechFeatures


def personalize_expression(
    style: Style, features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, models: MotionModels
) -> Iterator[Step]:
    """Refine a style for `everybody`; its arrays for `ugc` stay as they are.

    Args:
        style: of EncodeStyle.
        features: of the enrolment footage with ID-removed cepstra, lag taken out, T frames.
        mouth_landmarks: float32 [T, 59, 3].
        usable: bool [T].
        models: the networks.

    Yields:
        A step a block, the refined style in the last one.

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
    for block in np.array_split(frames, NUM_BLOCKS):
        predicted += [model.predict(rows[frame : frame + EXPRESSION_WINDOW]) for frame in block]
        yield Step(len(predicted), len(frames) + 1, 1.0, None)
    coefficients = np.array(predicted, np.float64)
    gain = np.ones_like(spread) if style.expression_gain is None else style.expression_gain.astype(np.float64)
    offset = np.zeros_like(spread) if style.expression_offset is None else style.expression_offset.astype(np.float64)
    # A coefficient counts by how far it moves the mouth.
    weight = (spread * np.linalg.norm(model.basis.components.reshape(len(spread), -1), axis=1)) ** 2
    loss = held_out_loss(coefficients, target, Calibration(gain, offset), weight)
    refined = style
    if loss < 1.0:
        found = calibrate(coefficients, target)
        refined = replace(style, expression_gain=found.gain.astype(np.float32), expression_offset=found.offset.astype(np.float32))
    yield Step(len(frames) + 1, len(frames) + 1, min(loss, 1.0), refined)
