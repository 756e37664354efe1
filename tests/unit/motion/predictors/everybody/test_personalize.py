"""Personalisation of the expression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequest, NoUsableFootage
from services.motion.models import MotionModels
from services.motion.predictors.everybody.grid import CORRECTION, EverybodyGrid
from services.motion.predictors.everybody.personalize import personalized
from services.motion.predictors.registry import added_style_shapes
from services.motion.speech_map import FILES, HEARINGS, num_correction_inputs
from services.motion.style import STYLE_FORMAT, Style
from services.motion.train.served import served_mouths
from services.motion.types import Footage, SpeechFeatures
from tests.unit.motion.predictors.everybody.person import NEVER, heard
from tests.unit.motion.synthesised import mouths


def shown_by(models: MotionModels, style: Style, features: SpeechFeatures, shift: float) -> Float32:
    """Mouths of a person who moves as predicted, with an offset of the first coefficient in units of the spread."""
    spoken = served_mouths(EverybodyGrid(models, style, NEVER), features)
    return spoken + shift * style.spread[0] * models.basis.components[0]


def refined_by(models: MotionModels, style: Style, features: SpeechFeatures, shift: float) -> Style:
    shown = shown_by(models, style, features, shift)
    steps = list(personalized(FILES, style, features, Footage(shown, np.ones(len(shown), np.bool_)), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    refined = steps[-1].style
    assert refined is not None
    assert 0.0 <= steps[-1].loss <= 1.0
    return refined


def test_what_the_person_does_otherwise_is_learned_for_files_and_live_speech(models: MotionModels, style: Style) -> None:
    features = heard(200)
    refined, shown = refined_by(models, style, features, 0.8), shown_by(models, style, features, 0.8)
    for hearing in HEARINGS:
        before, after = (
            np.abs(served_mouths(EverybodyGrid(models, each, NEVER, hearing), features) - shown).mean() for each in (style, refined)
        )
        assert after < 0.8 * before


def test_personalising_leaves_other_methods_alone(models: MotionModels, style: Style) -> None:
    refined = refined_by(models, style, heard(120), 0.5)
    assert set(refined.arrays()) - set(style.arrays()) == {CORRECTION}
    for name, array in style.arrays().items():
        np.testing.assert_array_equal(refined.arrays()[name], array)


def test_a_personalised_style_makes_a_round_trip(models: MotionModels, style: Style) -> None:
    refined = refined_by(models, style, heard(120), 0.5)
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
    with pytest.raises(InvalidRequest, match=CORRECTION):
        read(refined.adding(**{CORRECTION: np.ones((3, 5), np.float32)}))
    with pytest.raises(InvalidRequest, match=CORRECTION):
        read(refined.adding(**{CORRECTION: np.full((16, num_correction_inputs(16)), np.nan, np.float32)}))


def test_too_little_footage_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootage):
        list(personalized(FILES, style, heard(30), Footage(mouths(np.ones(30, np.float32)), np.ones(30, np.bool_)), models))
