"""The style of a person for `headpose`: the arrays that every style holds, and how the person holds and moves the head."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.face.crops import MAX_SCALE, MIN_SCALE
from services.common.face.landmarks import mouth_opening, shut_lips
from services.motion.models import MotionModels
from services.motion.predictor import Shape, encode_mouths
from services.motion.predictors.headpose.head_rhythm import NUM_SIGNALS, Rhythm, general_weights, tuned
from services.motion.predictors.headpose.head_style import NUM_KNOTS, HeadStyle, measure_head, still_head
from services.motion.predictors.headpose.model import CORRECTION, HeadposeModel
from services.motion.speech_map import correction_shape
from services.motion.style import Style
from services.motion.types import Footage

WEIGHTS_ARRAY: Final = "pose_weights"
_MAX_CONDITION: Final = 1e8
_MAX_LOG: Final = 20.0
"""Largest magnitude of the logarithm of a pose's scale, relative to the reference's scale."""


STYLE_ARRAYS: Final[dict[str, Shape]] = {
    "pose_reference": lambda _: (6,),
    "pose_quantiles": lambda _: (6, NUM_KNOTS),
    "pose_mixing": lambda _: (6, 6),
    "pose_steps": lambda _: (6,),
    WEIGHTS_ARRAY: lambda _: (6, NUM_SIGNALS),
    CORRECTION: correction_shape,
}
"""Arrays that `headpose` adds to a style. EncodeStyle adds the first four (HeadStyle); Personalize adds `pose_weights` (see
head_rhythm.py) and `headpose_mouth_correction` (see personalize.py), and replaces `pose_steps`.
"""
_HEAD_ARRAYS: Final = ("pose_reference", "pose_quantiles", "pose_mixing", "pose_steps")


def head_style_arrays(style: HeadStyle) -> dict[str, Float32]:
    """Return the head's arrays of the style artefact by name."""
    values = (style.reference, style.quantiles, style.mixing, style.steps)
    return {name: value.astype(np.float32) for name, value in zip(_HEAD_ARRAYS, values, strict=True)}


def head_style_of(style: Style) -> HeadStyle:
    """Return how the person of a style holds and moves the head.

    Raises:
        InvalidRequest: the style was encoded without head poses, or is damaged.
    """
    if any(name not in style.added for name in _HEAD_ARRAYS):
        raise InvalidRequest(
            "style: the style does not tell how the head moves: encode the style with method `headpose` and head_poses",
            field="style",
        )
    reference, quantiles, mixing, steps = (np.asarray(style.added[name], np.float64) for name in _HEAD_ARRAYS)
    sound = MIN_SCALE / 2.0 <= reference[5] <= MAX_SCALE * 2.0 and np.abs(quantiles[5]).max() <= _MAX_LOG
    if not sound or np.linalg.cond(mixing) > _MAX_CONDITION or (np.diff(quantiles, axis=1) < 0.0).any():
        raise InvalidRequest("style: the arrays of the head's movement are damaged: encode the style anew", field="style")
    return HeadStyle(reference, quantiles, mixing, steps)


def rhythm_of(style: Style, models: MotionModels) -> Rhythm:
    """Return how the person's head scores follow the speech.

    Raises:
        InvalidRequest: see head_style_of.
    """
    weights = style.added.get(WEIGHTS_ARRAY)
    used = general_weights() if weights is None else np.asarray(weights, np.float64)
    return tuned(used, head_style_of(style).steps, HeadposeModel.of(models).rhythm)


def encode_head_style(footage: Footage, models: MotionModels) -> Style:
    """Return the style of a person from tracked footage, or from one still frame.

    Args:
        footage: T frames with head poses. T = 1: the mean speaker's style about this mouth and pose.
        models: the networks.

    Raises:
        NoUsableFootage: more than one frame, but fewer than 25 usable frames; or the only frame is not usable.
    """
    assert footage.head_poses is not None, "a predictor that moves the head gets head poses"
    general = HeadposeModel.of(models).general
    if len(footage.usable) != 1:
        style = encode_mouths(footage, models)
        return style.adding(**head_style_arrays(measure_head(footage.head_poses, footage.usable, general)))
    if not footage.usable[0]:
        raise NoUsableFootage("the footage is one frame, and this frame cannot be used", subject="mouth_landmarks")
    still = _still_style(footage.mouth_landmarks[0], models)
    return still.adding(**head_style_arrays(still_head(footage.head_poses[0], general)))


def _still_style(mouth: Float32, models: MotionModels) -> Style:
    """Return the mean speaker's style about one mouth [59, 3]. If the mouth is open, the rest mouth has the lips shut."""
    closed = shut_lips(mouth)
    # Motion is measured from a mouth that is just shut. Only the opening changes, so that a smile stays.
    opening = models.basis.components[0]
    unit = float(mouth_opening(mouth + opening) - mouth_opening(mouth)) or 1.0
    rest = mouth - np.float32(float(mouth_opening(mouth)) / unit) * opening
    if float(mouth_opening(rest)) > float(mouth_opening(mouth)):
        rest = mouth
    return replace(
        models.neutral_style(),
        mean_mouth=(rest + HeadposeModel.of(models).mean_motion).astype(np.float32),
        rest_mouth=rest.astype(np.float32),
        closed_mouth=closed.astype(np.float32),
        spread=models.basis.typical_spread,
    )


def mean_head_speaker(style: Style, models: MotionModels) -> Style:
    """Return the style for the ablation: mouth and head of the mean training speaker about the person's rest mouth and pose.

    Raises:
        InvalidRequest: see head_style_of.
    """
    own = head_style_of(style)
    general = still_head(own.reference, HeadposeModel.of(models).general)
    return models.mean_speaker(style).adding(**head_style_arrays(general))
