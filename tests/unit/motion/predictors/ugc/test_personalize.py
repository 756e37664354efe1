from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import NoUsableFootage
from services.motion.models import MotionModels
from services.motion.pooled_speech import NUM_POOLED
from services.motion.predictors.ugc.grid import CORRECTION, landmarks_of_frame
from services.motion.predictors.ugc.inputs import WINDOW, heard_clip
from services.motion.predictors.ugc.personalize import personalize
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures
from tests.unit.motion.synthesised import mouths, random_features


def _spoken_by(style: Style, features: SpeechFeatures, models: MotionModels) -> Float32:
    padded = heard_clip(features)
    return np.stack([landmarks_of_frame(padded[n : n + WINDOW], style, models) for n in range(len(features))])


def _last(style: Style, features: SpeechFeatures, frames: Float32, models: MotionModels) -> Style:
    steps = list(personalize(style, features, Footage(frames, np.ones(len(frames), np.bool_)), models))
    assert [step.style is not None for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [step.index for step in steps] == sorted(step.index for step in steps)
    assert steps[-1].style is not None
    return steps[-1].style


def test_a_consistent_habit_of_the_person_is_learned(models: MotionModels, style: Style) -> None:
    features = random_features(150)
    smile = models.basis.reconstruct(np.float32(0.4) * style.spread)
    truth = style.rest_mouth + np.float32(0.6) * (_spoken_by(style, features, models) - style.rest_mouth) + smile
    refined = _last(style, features[:100], truth[:100], models)
    before, after = (np.abs(_spoken_by(s, features[100:], models) - truth[100:]).mean() for s in (style, refined))
    assert after < 0.75 * before


def test_what_the_person_does_with_a_sound_is_learned(models: MotionModels, style: Style) -> None:
    own = np.random.default_rng(1).normal(0.0, 0.5, (len(style.spread), NUM_POOLED)).astype(np.float32)
    features = random_features(230)
    truth = _spoken_by(style.adding(**{CORRECTION: own}), features, models)
    refined = _last(style, features[:180], truth[:180], models)
    before, after = (np.abs(_spoken_by(s, features[180:], models) - truth[180:]).mean() for s in (style, refined))
    assert after < 0.55 * before


def test_mouths_that_have_nothing_to_do_with_the_sound_teach_little(models: MotionModels, style: Style) -> None:
    features = random_features(230)
    truth = _spoken_by(style, features, models)
    strange = truth[:180] + np.random.default_rng(2).permutation(truth[:180] - truth[:180].mean(axis=0))
    refined = _last(style, features[:180], strange, models)
    taught, told = (_spoken_by(s, features[180:], models) - truth[180:].mean(axis=0) for s in (refined, style))
    assert np.linalg.norm(taught - told) < 0.25 * np.linalg.norm(told)


def test_footage_that_confirms_the_style_leaves_it_as_it_is(models: MotionModels, style: Style) -> None:
    features = random_features(80)
    truth = _spoken_by(style, features, models)
    refined = _last(style, features, truth, models)
    np.testing.assert_allclose(_spoken_by(refined, features, models), truth, atol=0.01)


def test_personalising_twice_is_personalising_once(models: MotionModels, style: Style) -> None:
    features, shown = random_features(80), mouths(np.abs(np.sin(np.arange(80) * 0.7)).astype(np.float32) * 9.0)
    once = _last(style, features, shown, models)
    twice = _last(once, features, shown, models)
    for name, array in once.arrays().items():
        np.testing.assert_array_equal(array, twice.arrays()[name])


def test_personalising_leaves_other_methods_alone(models: MotionModels, style: Style) -> None:
    other = style.adding(somebody_elses=np.ones((24, 145), np.float32))
    refined = _last(other, random_features(60), mouths(np.linspace(0.0, 9.0, 60).astype(np.float32)), models)
    assert refined.added["somebody_elses"].tobytes() == np.ones((24, 145), np.float32).tobytes()


def test_too_little_footage_is_named(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootage, match="50 usable frames"):
        list(personalize(style, random_features(30), Footage(mouths(np.ones(30, np.float32)), np.ones(30, np.bool_)), models))
