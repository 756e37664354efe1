"""Personalisation of the expression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequest, NoUsableFootage
from services.motion.expression import expression_spread
from services.motion.models import MotionModels
from services.motion.predictors.everybody.grid import CORRECTION
from services.motion.predictors.everybody.inputs import NUM_POOLED_WINDOW, WINDOW, heard_clip, pooled_window
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.personalize import personalize
from services.motion.predictors.registry import added_style_shapes
from services.motion.style import STYLE_FORMAT, Style
from services.motion.types import Footage
from tests.unit.motion.predictors.everybody.person import heard
from tests.unit.motion.synthesised import mouths


def personalised(models: MotionModels, style: Style, truth: Callable[[Float32, Float32], Float32]) -> Style:
    """Style after 120 frames of a person who moves as `truth` makes of predicted coefficients and pooled windows."""
    features, model = heard(120), EverybodyModel.of(models)
    rows = heard_clip(features, model.silence)
    windows = [rows[frame : frame + WINDOW] for frame in range(120)]
    spread = expression_spread(style.spread, models.basis, model.basis)
    wanted = np.stack([truth(model.predict(window), pooled_window(window)) for window in windows])
    shown = style.rest_mouth + model.basis.reconstruct((wanted * spread).astype(np.float32))
    steps = list(personalize(style, features, Footage(shown, np.ones(120, np.bool_)), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    refined = steps[-1].style
    assert refined is not None
    assert 0.0 <= steps[-1].loss < 1.0
    return refined


def test_personalising_leaves_other_methods_alone(models: MotionModels, style: Style) -> None:
    refined = personalised(models, style, lambda predicted, _pooled: 0.6 * predicted)
    assert set(refined.arrays()) - set(style.arrays()) == {"expression_correction"}
    for name, array in style.arrays().items():
        np.testing.assert_array_equal(refined.arrays()[name], array)


def test_a_personalised_style_makes_a_round_trip(models: MotionModels, style: Style) -> None:
    refined = personalised(models, style, lambda predicted, _pooled: 0.6 * predicted)
    metadata = {"format": STYLE_FORMAT}
    read: Callable[[Style], Style] = lambda each: Style.from_arrays(  # noqa: E731
        each.arrays(),
        metadata,
        expected=models.style_shapes,
        added=added_style_shapes(each.arrays(), models),
        field="style",
    )
    np.testing.assert_array_equal(read(refined).added[CORRECTION], refined.added[CORRECTION])
    assert CORRECTION not in read(style).added
    with pytest.raises(InvalidRequest, match="expression_correction"):
        read(refined.adding(**{CORRECTION: np.ones((3, 5), np.float32)}))
    with pytest.raises(InvalidRequest, match="expression_correction"):
        read(refined.adding(**{CORRECTION: np.full((24, NUM_POOLED_WINDOW), np.nan, np.float32)}))


def test_too_little_footage_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootage):
        list(personalize(style, heard(30), Footage(mouths(np.ones(30, np.float32)), np.ones(30, np.bool_)), models))
