"""Tests of the predictor `everyone`: committed network, motion on output timelines, linear layer, and personalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from research.motion.evaluate import OFF
from services.common.array_types import Float32
from services.common.errors import NoUsableFootageError
from services.common.face.landmarks import mouth_opening
from services.common.geometry.morphable_model import default_model
from services.motion.constraints import LIVE, WHOLE, ConstraintConfig
from services.motion.models import MotionModels
from services.motion.person_predictor import amplified
from services.motion.predictors.everyone.predictor import (
    LARGEST_SCALE,
    PERSON_LAYER,
    WINDOW,
    WINDOW_AHEAD,
    WINDOW_PAST,
    EveryoneModel,
    EveryonePredictor,
    apply_layer,
    fit_layer,
    network_input,
    personalize,
)
from services.motion.speech_states import STATES, silence_with_states
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures
from tests.unit.motion.predictors.everyone.person import opened, person_spread, spoken
from tests.unit.motion.streams import PAL, faces_of
from tests.unit.motion.synthesised import mouths, random_features, with_states

RNG = np.random.default_rng(1)
PREDICTED = RNG.standard_normal((250, 3))
WEIGHT = np.ones(3)


def heard(num_frames: int, seed: int = 0) -> SpeechFeatures:
    """Features with states that change quickly: any mix-up of frames shows."""
    return with_states(random_features(num_frames, seed), STATES, seed=seed)


@pytest.fixture(scope="module")
def personal(models: MotionModels, style: Style) -> Style:
    rng, size = np.random.default_rng(3), len(EveryoneModel.of(models).basis.typical_spread)
    layer = np.stack([rng.uniform(0.6, 1.4, size), rng.normal(0.0, 0.2, size)]).astype(np.float32)
    return style.adding(**{PERSON_LAYER: layer})


@pytest.mark.parametrize("constraints", [LIVE, WHOLE])
def test_an_answer_comes_ten_frames_behind_the_features(models: MotionModels, style: Style, constraints: ConstraintConfig) -> None:
    stream, features = opened(models, style, PAL, constraints), heard(14)
    counts = [len(stream.push(n, features[n : n + 1]).mouth_landmarks) for n in range(14)]
    assert counts == [0] * WINDOW_AHEAD + [1] * 4


@pytest.mark.parametrize("constraints", [LIVE, WHOLE])
def test_look_ahead_and_memory_bounds(models: MotionModels, personal: Style, constraints: ConstraintConfig) -> None:
    """No speech after ten frames and none before a second moves a frame."""
    features, other = heard(90), heard(90, seed=1)
    states = features.extra[STATES].copy()
    states[40:45] = other.extra[STATES][40:45]
    mixed = replace(features, extra={STATES: states})
    first, second = (faces_of(opened(models, personal, PAL, constraints), each)[0] for each in (features, mixed))
    moved = np.flatnonzero((first != second).any(axis=(1, 2)))
    assert (moved.min(), moved.max()) == (40 - WINDOW_AHEAD, 44 + WINDOW_PAST)


def test_speech_that_ends_early_goes_on_in_silence(models: MotionModels, personal: Style) -> None:
    features = heard(30)
    padded = SpeechFeatures.joined([features, silence_with_states(25)])
    short, long = (faces_of(opened(models, personal, PAL), each)[0] for each in (features, padded))
    assert len(short) == 30
    np.testing.assert_array_equal(short, long[:30])
    alone = faces_of(opened(models, personal, PAL), features[:4])[0]
    assert alone.shape == (4, 59, 3)


def test_stream_and_whole_clip_hear_the_same(models: MotionModels, style: Style) -> None:
    features, model = heard(12), EveryoneModel.of(models)
    rows, spread = network_input(features), person_spread(models, style)
    alone = [style.rest_mouth + model.basis.reconstruct(model.predict(rows[n : n + WINDOW]) * spread) for n in range(12)]
    found, _ = faces_of(opened(models, style, PAL, OFF), features)
    np.testing.assert_allclose(found, amplified(np.stack(alone), style), atol=1e-4)


def test_silence_is_the_closed_mouth(models: MotionModels, personal: Style) -> None:
    found, _ = faces_of(opened(models, personal, PAL, WHOLE), silence_with_states(30))
    np.testing.assert_allclose(found, np.broadcast_to(personal.closed_mouth, found.shape), atol=1e-5)


@pytest.mark.parametrize("constraints", [LIVE, WHOLE])
def test_vowels_open_bilabials_close(models: MotionModels, style: Style, constraints: ConstraintConfig) -> None:
    """Open vowels open the mouth and bilabials close it."""
    phones = ["SIL", "B", "AA", "M", "AA", "P", "AA", "T", "AA", "SIL"]
    features = spoken(models, phones, 5)
    found, _ = faces_of(opened(models, style, PAL, constraints), features)
    opening = mouth_opening(found).reshape(-1, 5)
    of = {phone: [opening[i, 2] for i, p in enumerate(phones) if p == phone] for phone in phones}
    closed = float(mouth_opening(style.closed_mouth))
    assert min(of["AA"]) > closed + 2.0
    assert max(of["B"] + of["M"] + of["P"]) - closed < 0.1 * (min(of["AA"]) - closed)


@pytest.mark.parametrize("constraints", [LIVE, WHOLE, None])
def test_the_mouth_opens_before_the_speech(models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> None:
    features = spoken(models, ["SIL", "AA", "AA"], 30)
    opening = mouth_opening(faces_of(opened(models, style, PAL, constraints), features)[0])
    closed = float(mouth_opening(style.closed_mouth))
    np.testing.assert_allclose(opening[:19], closed, atol=1e-3)
    assert opening[28:31].mean() > closed + 0.5


def test_expression_and_landmarks_are_one_face(models: MotionModels, personal: Style) -> None:
    found, expression = faces_of(opened(models, personal, PAL), heard(20))
    basis = EveryoneModel.of(models).basis
    size = len(basis.typical_spread)
    assert expression.shape == (20, default_model().num_expression)
    assert not expression[:, size:].any()
    again = personal.rest_mouth + basis.reconstruct(expression[:, :size])
    assert np.abs(again - found).mean() < 0.6


def test_layer_scales_each_coefficient(models: MotionModels, style: Style) -> None:
    """The layer scales and shifts each coefficient by itself."""
    features, basis = heard(20), EveryoneModel.of(models).basis
    spread = person_spread(models, style)
    layer = np.stack([np.linspace(0.5, 1.5, len(spread)), np.linspace(-0.5, 0.5, len(spread))]).astype(np.float32)
    rows = network_input(features)
    plain = np.stack([EveryoneModel.of(models).predict(rows[n : n + WINDOW]) for n in range(20)])
    wanted = style.rest_mouth + basis.reconstruct((plain * layer[0] + layer[1]) * spread)
    found = EveryonePredictor(models, style.adding(**{PERSON_LAYER: layer}), OFF).push(
        SpeechFeatures.joined([features, silence_with_states(10)])
    )
    # The last frames lie in the silence after the speech, where the person's part fades.
    np.testing.assert_allclose(found.mouth_landmarks[:18], amplified(wanted, style)[:18], atol=1e-3)


def test_layer_finds_range_and_level() -> None:
    """The layer finds the range and the level of a person."""
    truth = PREDICTED * [0.5, 1.0, 1.5] + [0.3, 0.0, -0.4] + 0.1 * RNG.standard_normal((250, 3))
    layer = fit_layer(PREDICTED, truth, WEIGHT)
    np.testing.assert_allclose(layer, [[0.5, 1.0, 1.5], [0.3, 0.0, -0.4]], atol=0.1)
    assert layer.dtype == np.float32


def test_a_person_as_predicted_changes_nothing() -> None:
    layer = fit_layer(PREDICTED, PREDICTED, WEIGHT)
    np.testing.assert_allclose(layer, [[1.0] * 3, [0.0] * 3], atol=1e-6)
    np.testing.assert_allclose(apply_layer(layer, PREDICTED), PREDICTED, atol=1e-6)


def test_what_little_footage_says_is_believed_in_part() -> None:
    few = PREDICTED[:60]
    truth = few + 2.0 * RNG.standard_normal(few.shape) + 0.5
    layer = fit_layer(few, truth, WEIGHT)
    for k in range(3):
        scale, offset = np.polyfit(few[:, k], truth[:, k], 1)
        assert abs(layer[0, k] - 1.0) < 0.8 * abs(scale - 1.0)
        assert abs(layer[1, k]) < 0.8 * abs(offset)


def test_scales_stay_within_their_limits() -> None:
    opposite, huge = (fit_layer(PREDICTED, scale * PREDICTED, WEIGHT) for scale in (-5.0, 50.0))
    np.testing.assert_array_equal(opposite[0], 0.0)
    np.testing.assert_array_equal(huge[0], np.float32(LARGEST_SCALE))


def test_a_coefficient_that_never_moves_stays_finite() -> None:
    assert np.isfinite(fit_layer(np.zeros((60, 3)), np.ones((60, 3)), WEIGHT)).all()


def shown_by(models: MotionModels, style: Style, features: SpeechFeatures, truth: Callable[[Float32], Float32]) -> Float32:
    """Mouths of a person who moves as `truth` makes of predicted coefficients."""
    rows, model = network_input(features), EveryoneModel.of(models)
    predicted = np.stack([model.predict(rows[n : n + WINDOW]) for n in range(len(features))])
    moved = truth(predicted) * person_spread(models, style)
    return np.asarray(style.rest_mouth + model.basis.reconstruct(moved), np.float32)


def refined(models: MotionModels, style: Style, features: SpeechFeatures, shown: Float32) -> Style:
    steps = list(personalize(style, features, Footage(shown, np.ones(len(shown), np.bool_)), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    assert 0.0 <= steps[-1].loss <= 1.0
    assert steps[-1].style is not None
    return steps[-1].style


def test_range_and_level_are_learned(models: MotionModels, style: Style) -> None:
    """The range and the level of a person are learned."""
    features = heard(220)
    shown = shown_by(models, style, features, lambda predicted: 0.5 * predicted + 0.4)
    personal = refined(models, style, features[:160], shown[:160])
    before, after = (
        np.abs(faces_of(opened(models, each, PAL, OFF), features)[0][170:] - amplified(shown[170:], style)).mean()
        for each in (style, personal)
    )
    assert after < 0.6 * before


def test_confirming_footage_keeps_style(models: MotionModels, style: Style) -> None:
    """Footage that confirms the style leaves it as it is."""
    features = heard(100)
    personal = refined(models, style, features, shown_by(models, style, features, lambda predicted: predicted))
    plain, own = (faces_of(opened(models, each, PAL), features)[0] for each in (style, personal))
    assert np.abs(plain - own).mean() < 0.3


def test_personalising_twice_is_personalising_once(models: MotionModels, style: Style) -> None:
    features, shown = heard(80), mouths(np.abs(np.sin(np.arange(80) * 0.7)).astype(np.float32) * 9.0)
    once = refined(models, style, features, shown)
    twice = refined(models, once, features, shown)
    for name, array in once.arrays().items():
        np.testing.assert_array_equal(twice.arrays()[name], array)


def test_too_little_footage_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootageError, match="50 usable frames"):
        list(personalize(style, heard(30), Footage(mouths(np.ones(30, np.float32)), np.ones(30, np.bool_)), models))
