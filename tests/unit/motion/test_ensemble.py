"""The predictor that answers the mean of several predictors."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.ensemble import ensemble_of
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.predictor import Predictor
from services.motion.predictors.registry import PREDICTORS
from services.motion.style import Style
from services.motion.types import Footage, Motion
from tests.unit.motion.synthesised import mouths, random_features

FRAMES = 60
MEMBERS = [PREDICTORS[name] for name in ("ugc", "hetero", "everyone")]
FEATURES = random_features(40)


@pytest.fixture(scope="module")
def ensemble() -> Predictor:
    return ensemble_of("mean", MEMBERS)


@pytest.fixture(scope="module")
def footage() -> Footage:
    opening = 5.0 + 4.0 * np.sin(np.arange(FRAMES) * 0.7)
    return Footage(mouths(opening.astype(np.float32)), np.ones(FRAMES, np.bool_))


@pytest.fixture(scope="module")
def personal(ensemble: Predictor, footage: Footage, models: MotionModels) -> Style:
    style = ensemble.encode_style(footage, models)
    *_, last = ensemble.personalize(style, random_features(FRAMES, seed=4), footage, models)
    assert last.style is not None
    return last.style


def answered(predictor: Predictor, models: MotionModels, style: Style, cut: int = 40) -> Motion:
    """What a predictor answers to the features in pieces of `cut` frames, with silence after them."""
    grid = predictor.open(models, style, None)
    parts = [grid.push(FEATURES[begin : begin + cut]) for begin in range(0, len(FEATURES), cut)]
    parts.append(grid.push_silence(predictor.frames_ahead))
    assert [part.first_frame for part in parts] == np.cumsum([0, *(len(part.mouth_landmarks) for part in parts[:-1])]).tolist()
    return Motion(
        0,
        np.concatenate([part.mouth_landmarks for part in parts]),
        np.concatenate([part.speech_probability for part in parts]),
    )


def test_mouths_are_the_mean_of_the_members(ensemble: Predictor, models: MotionModels, personal: Style) -> None:
    mean, alone = answered(ensemble, models, personal), [answered(each, models, personal) for each in MEMBERS]
    expected = np.mean([each.mouth_landmarks for each in alone], axis=0)
    np.testing.assert_allclose(mean.mouth_landmarks, expected, atol=1e-4)
    assert max(float(np.abs(each.mouth_landmarks - expected).max()) for each in alone) > 0.1
    np.testing.assert_array_equal(mean.speech_probability, FEATURES.speech_probability)
    assert mean.mouth_landmarks.dtype == np.float32


@pytest.mark.parametrize("cut", [1, 7])
def test_other_pieces_give_the_same_bytes(ensemble: Predictor, models: MotionModels, personal: Style, cut: int) -> None:
    whole, pieces = (answered(ensemble, models, personal, size).mouth_landmarks for size in (40, cut))
    assert whole.tobytes() == pieces.tobytes()


def test_a_frame_waits_for_the_member_that_looks_furthest_ahead(ensemble: Predictor, models: MotionModels, personal: Style) -> None:
    assert ensemble.frames_ahead == max(member.frames_ahead for member in MEMBERS)
    grid = ensemble.open(models, personal, None)
    assert [len(grid.push(silence(1)).mouth_landmarks) for _ in range(12)] == [0] * ensemble.frames_ahead + [1] * 2


def test_each_member_is_personalised_as_if_alone(ensemble: Predictor, footage: Footage, models: MotionModels) -> None:
    style, features = ensemble.encode_style(footage, models), random_features(FRAMES, seed=4)
    steps = list(ensemble.personalize(style, features, footage, models))
    assert [step.index for step in steps] == sorted({step.index for step in steps})
    assert steps[-1].index == steps[-1].count
    assert all(step.style is None for step in steps[:-1])
    together = steps[-1].style
    assert together is not None
    losses = []
    for member in MEMBERS:
        *_, last = member.personalize(member.encode_style(footage, models), features, footage, models)
        assert last.style is not None
        losses.append(last.loss)
        for name, array in last.style.added.items():
            np.testing.assert_array_equal(together.added[name], array)
    assert steps[-1].loss == pytest.approx(np.mean(losses))


def test_without_style_every_member_is_without_style(ensemble: Predictor, models: MotionModels, personal: Style) -> None:
    plain = ensemble.mean_style(personal, models)
    expected = np.mean([answered(each, models, each.mean_style(personal, models)).mouth_landmarks for each in MEMBERS], axis=0)
    np.testing.assert_allclose(answered(ensemble, models, plain).mouth_landmarks, expected, atol=1e-4)


def test_a_style_of_the_first_member_alone_is_answered_by_the_first_member(
    ensemble: Predictor, footage: Footage, models: MotionModels
) -> None:
    style = MEMBERS[0].encode_style(footage, models)
    found, expected = (answered(each, models, style).mouth_landmarks[:40] for each in (ensemble, MEMBERS[0]))
    np.testing.assert_array_equal(found, expected)


def test_other_networks_of_a_member_are_another_version(models: MotionModels) -> None:
    versions = [ensemble_of("mean", members).version(models) for members in (MEMBERS, MEMBERS[:2], MEMBERS[1:])]
    assert len(set(versions)) == 3
