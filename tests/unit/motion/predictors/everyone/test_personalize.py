"""Personalisation of the expression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import NoUsableFootage
from services.motion.grid import amplified
from services.motion.models import MotionModels
from services.motion.predictors.everyone.grid import CORRECTION, PERSON_LAYER
from services.motion.predictors.everyone.inputs import WINDOW, heard_clip
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.personalize import personalize
from services.motion.speech_states import STATES
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures
from tests.unit.motion.predictors.everyone.person import NEVER, joined, opened, person_spread
from tests.unit.motion.streams import PAL, run
from tests.unit.motion.synthesised import mouths, random_features, with_states


def heard(num_frames: int) -> SpeechFeatures:
    return with_states(random_features(num_frames), STATES)


def shown_by(models: MotionModels, style: Style, features: SpeechFeatures, truth: Callable[[Float32], Float32]) -> Float32:
    """Mouths of a person who moves as `truth` makes of predicted coefficients."""
    rows, model = heard_clip(features), EveryoneModel.of(models)
    predicted = np.stack([model.predict(rows[n : n + WINDOW]) for n in range(len(features))])
    moved = truth(predicted) * person_spread(models, style)
    return np.asarray(style.rest_mouth + model.basis.reconstruct(moved), np.float32)


def refined(models: MotionModels, style: Style, features: SpeechFeatures, shown: Float32) -> Style:
    steps = list(personalize(style, features, Footage(shown, np.ones(len(shown), np.bool_)), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    assert 0.0 <= steps[-1].loss <= 1.0
    assert steps[-1].style is not None
    return steps[-1].style


def test_the_range_and_the_level_of_a_person_are_learned(models: MotionModels, style: Style) -> None:
    features = heard(220)
    shown = shown_by(models, style, features, lambda predicted: 0.5 * predicted + 0.4)
    personal = refined(models, style, features[:160], shown[:160])
    before, after = (
        np.abs(joined(run(opened(models, each, PAL, NEVER), features))[0][170:] - amplified(shown[170:], style)).mean()
        for each in (style, personal)
    )
    assert after < 0.6 * before


def test_footage_that_confirms_the_style_leaves_it_as_it_is(models: MotionModels, style: Style) -> None:
    features = heard(100)
    personal = refined(models, style, features, shown_by(models, style, features, lambda predicted: predicted))
    plain, own = (joined(run(opened(models, each, PAL), features))[0] for each in (style, personal))
    assert np.abs(plain - own).mean() < 0.3


def test_personalising_leaves_other_methods_alone_and_twice_is_once(models: MotionModels, style: Style) -> None:
    features, shown = heard(80), mouths(np.abs(np.sin(np.arange(80) * 0.7)).astype(np.float32) * 9.0)
    other = style.adding(somebody_elses=np.ones((3, 5), np.float32))
    once = refined(models, other, features, shown)
    twice = refined(models, once, features, shown)
    assert set(once.arrays()) - set(other.arrays()) == {PERSON_LAYER, CORRECTION}
    for name, array in other.arrays().items():
        np.testing.assert_array_equal(once.arrays()[name], array)
    for name, array in once.arrays().items():
        np.testing.assert_array_equal(twice.arrays()[name], array)


def test_too_little_footage_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootage, match="50 usable frames"):
        list(personalize(style, heard(30), Footage(mouths(np.ones(30, np.float32)), np.ones(30, np.bool_)), models))
