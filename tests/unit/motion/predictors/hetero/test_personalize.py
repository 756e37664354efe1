from __future__ import annotations

import numpy as np
import pytest

from services.common.errors import NoUsableFootage
from services.motion.models import MotionModels
from services.motion.predictors.hetero.grid import CORRECTION, HeteroGrid
from services.motion.predictors.hetero.personalize import personalize
from services.motion.predictors.hetero.style import POSE, REFERENCE
from services.motion.speech_states import STATES
from services.motion.style import Style
from services.motion.train.evaluate import OFF
from services.motion.train.served import served_mouths
from services.motion.types import Footage
from tests.unit.motion.synthesised import random_features, with_states


def refined(style: Style, footage: Footage, models: MotionModels) -> Style:
    *steps, last = personalize(style, with_states(random_features(len(footage.usable)), STATES), footage, models)
    assert all(step.style is None for step in steps)
    assert last.style is not None
    return last.style


def test_a_correction_learns_what_the_generator_misses(models: MotionModels, person: Style) -> None:
    features = with_states(random_features(150), STATES)
    shift = np.float32(0.7) * person.spread
    spoken = served_mouths(HeteroGrid(models, person, OFF), features) + models.basis.reconstruct(shift)
    *_, last = personalize(person, features, Footage(spoken, np.ones(150, np.bool_)), models)
    assert last.style is not None
    before, after = (served_mouths(HeteroGrid(models, each, OFF), features) for each in (person, last.style))
    assert np.abs(after - spoken).mean() < 0.5 * np.abs(before - spoken).mean()


def test_the_vectors_of_an_encoded_style_stay(models: MotionModels, person: Style, footage: Footage) -> None:
    found = refined(person, footage, models)
    for name in (REFERENCE, POSE):
        np.testing.assert_array_equal(found.added[name], person.added[name])
    assert CORRECTION in found.added


def test_a_style_of_another_method_gets_its_reference_from_the_footage(
    models: MotionModels, style: Style, person: Style, footage: Footage
) -> None:
    found = refined(style, footage, models)
    np.testing.assert_array_equal(found.added[REFERENCE], person.added[REFERENCE])


def test_two_seconds_are_needed(models: MotionModels, person: Style, footage: Footage) -> None:
    few = Footage(footage.mouth_landmarks, np.arange(100) < 49)
    with pytest.raises(NoUsableFootage, match="50 usable frames"):
        refined(person, few, models)
