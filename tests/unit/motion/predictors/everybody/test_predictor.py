"""Tests of the predictor `everybody`: network inputs, committed network, motion on output timelines, and personalisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from research.motion.evaluate import OFF
from research.motion.protocol import served_mouths
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.geometry.morphable_model import default_model
from services.motion.expression import expressed, expression_spread
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.predictors.everybody.predictor import (
    CORRECTION,
    FEATURE,
    NUM_POOLED,
    WINDOW,
    WINDOW_AHEAD,
    EverybodyModel,
    EverybodyPredictor,
    network_input,
    personalize,
    pooled_window,
    silent_speech,
)
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures
from tests.unit.motion.predictors.everybody.person import heard, opened
from tests.unit.motion.streams import PAL, faces_of
from tests.unit.motion.synthesised import mouths


def test_nothing_outside_its_second_moves_a_frame(models: MotionModels, style: Style) -> None:
    features = heard(50)
    changed = features.extra[FEATURE].copy()
    changed[35:] += 1.0
    other = replace(features, extra={**features.extra, FEATURE: changed})
    first, second = (faces_of(opened(models, style, PAL), each)[0] for each in (features, other))
    np.testing.assert_array_equal(first[: 35 - WINDOW_AHEAD], second[: 35 - WINDOW_AHEAD])
    assert not np.array_equal(first[35 - WINDOW_AHEAD], second[35 - WINDOW_AHEAD])


def test_the_network_alone_moves_the_mouth(models: MotionModels, style: Style) -> None:
    correction = np.random.default_rng(5).normal(0.0, 0.2, (24, NUM_POOLED)).astype(np.float32)
    features, model = heard(30), EverybodyModel.of(models)
    rows, basis = network_input(features, model.silence), model.basis
    spread = expression_spread(style.spread, models.basis, basis)
    windows = [rows[n : n + WINDOW] for n in range(26)]
    answers = [model.predict(window) + correction @ pooled_window(window) for window in windows]
    expected = np.stack([expressed(answer * spread, basis, style) for answer in answers])
    found = EverybodyPredictor(models, style.adding(**{CORRECTION: correction}), OFF).push(features).mouth_landmarks
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_silence_is_the_closed_mouth(models: MotionModels, style: Style) -> None:
    features = silent_speech(30, EverybodyModel.of(models).silence)
    found, _ = faces_of(opened(models, style, PAL), features)
    np.testing.assert_allclose(found, np.broadcast_to(style.closed_mouth, found.shape), atol=1e-5)


def test_expression_and_landmarks_are_one_face(models: MotionModels, style: Style) -> None:
    found, expression = faces_of(opened(models, style, PAL), heard(20))
    size = len(EverybodyModel.of(models).basis.typical_spread)
    assert expression.shape == (20, default_model().num_expression)
    assert not expression[:, size:].any()
    again = style.rest_mouth + EverybodyModel.of(models).basis.reconstruct(expression[:, :size])
    assert np.abs(again - found).mean() < 0.6


def test_features_without_the_tensor_are_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequestError, match=FEATURE):
        opened(models, style, PAL).push(0, replace(heard(3), extra={}))


def test_without_style_is_another_motion(models: MotionModels, style: Style) -> None:
    features = heard(20)
    full, plain = (faces_of(opened(models, each, PAL), features)[0] for each in (style, models.mean_speaker(style)))
    assert not np.array_equal(full, plain)


def test_joined_features_lose_cepstra() -> None:
    """Joined features lose the cepstra where a part has none."""
    assert not SpeechFeatures.joined([heard(3), silence(2)]).extra
    assert SpeechFeatures.joined([heard(3), heard(2)]).extra[FEATURE].shape == (5, 4, 20)


def shown_by(models: MotionModels, style: Style, features: SpeechFeatures, shift: float) -> Float32:
    """Mouths of a person who moves as predicted, with an offset of the first coefficient in units of the spread."""
    spoken = served_mouths(EverybodyPredictor(models, style, OFF), features)
    return spoken + shift * style.spread[0] * models.basis.components[0]


def refined_by(models: MotionModels, style: Style, features: SpeechFeatures, shift: float) -> Style:
    shown = shown_by(models, style, features, shift)
    steps = list(personalize(style, features, Footage(shown, np.ones(len(shown), np.bool_)), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    refined = steps[-1].style
    assert refined is not None
    assert 0.0 <= steps[-1].loss <= 1.0
    return refined


def test_the_persons_difference_is_learned(models: MotionModels, style: Style) -> None:
    features = heard(200)
    refined, shown = refined_by(models, style, features, 0.8), shown_by(models, style, features, 0.8)
    before, after = (
        np.abs(served_mouths(EverybodyPredictor(models, each, OFF), features) - shown).mean() for each in (style, refined)
    )
    assert after < 0.8 * before


def test_too_little_footage_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootageError):
        list(personalize(style, heard(30), Footage(mouths(np.ones(30, np.float32)), np.ones(30, np.bool_)), models))
