from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import NoUsableFootage
from services.motion.adapt.personalize import calibrate, personalize
from services.motion.features import content_before, content_rows, silence
from services.motion.models import MotionModels
from services.motion.predict import landmarks_of_frame
from services.motion.style import Style
from services.motion.types import WINDOW, WINDOW_AHEAD, WINDOW_PAST, Float32, SpeechFeatures
from tests.unit.motion.synthesised import mouths, random_features


def _spoken_by(style: Style, features: SpeechFeatures, models: MotionModels) -> Float32:
    after = content_rows(SpeechFeatures.joined([features, silence(WINDOW_AHEAD)]))
    padded = np.concatenate([content_before(WINDOW_PAST), after])
    return np.stack([landmarks_of_frame(padded[n : n + WINDOW], style, models) for n in range(len(features))])


def _last(style: Style, features: SpeechFeatures, frames: Float32, models: MotionModels) -> Style:
    steps = list(personalize(style, features, frames, np.ones(len(frames), np.bool_), models))
    assert [step.style is not None for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [step.index for step in steps] == sorted(step.index for step in steps)
    assert steps[-1].style is not None
    return steps[-1].style


def test_a_consistent_habit_of_the_person_is_learned(models: MotionModels, style: Style) -> None:
    habit = replace(style, gain=style.gain * np.float32(0.6), offset=style.offset + np.float32(0.4))
    features = random_features(150)
    truth = _spoken_by(habit, features, models)
    refined = _last(style, features[:100], truth[:100], models)
    before, after = (np.abs(_spoken_by(s, features[100:], models) - truth[100:]).mean() for s in (style, refined))
    assert after < 0.75 * before


def test_footage_that_confirms_the_style_leaves_it_as_it_is(models: MotionModels, style: Style) -> None:
    features = random_features(80)
    refined = _last(style, features, _spoken_by(style, features, models), models)
    np.testing.assert_allclose(refined.gain, 1.0, atol=0.02)
    np.testing.assert_allclose(refined.offset, 0.0, atol=0.02)


def test_motion_that_the_sound_does_not_explain_is_made_smaller() -> None:
    rng = np.random.default_rng(5)
    heard, unheard = rng.normal(size=(2, 400, 3))
    calibration = calibrate(heard, 0.5 * heard + np.sqrt(0.75) * unheard)
    # Least squares (0.5) but for the opening; all a little nearer to 1 than the footage says.
    assert 0.6 < calibration.gain[0] < 0.75
    assert ((calibration.gain[1:] > 0.5) & (calibration.gain[1:] < 0.62)).all()


def test_the_offset_brings_the_mean_to_where_the_person_has_it() -> None:
    heard = np.random.default_rng(6).normal(size=(4000, 2))
    calibration = calibrate(heard, heard + np.array([1.0, -2.0]))
    np.testing.assert_allclose(calibration.offset, [1.0, -2.0], atol=0.1)


def test_too_little_footage_is_named(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootage, match="50 usable frames"):
        list(personalize(style, random_features(30), mouths(np.ones(30, np.float32)), np.ones(30, np.bool_), models))
