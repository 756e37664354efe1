"""Tests of the predictor `headpose`: mouth and head of one network, and what footage teaches of the mouth."""

from __future__ import annotations

import numpy as np
import pytest

from research.motion.evaluate import OFF
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening
from services.motion.expression import expressed, expression_spread
from services.motion.head_network import HeadModel, encode_head_style, head_answers, network_input
from services.motion.models import MotionModels
from services.motion.predictors.headpose.predictor import CORRECTION, HeadposePredictor, personalize
from services.motion.style import Style
from services.motion.types import Footage
from tests.unit.motion.moving_head import poses_of, talk
from tests.unit.motion.synthesised import head_poses, mouths, random_features


def test_one_network_moves_mouth_and_head(models: MotionModels, person: Style) -> None:
    features, model = random_features(30, 1), HeadModel.of(models)
    found = HeadposePredictor(models, person, OFF).push(features)
    rows = network_input(features, model.past, model.ahead)
    spread = expression_spread(person.spread, models.basis, model.basis)
    h, c, expected = model.rest(), model.rest(), []
    for frame in range(len(found.mouth_landmarks)):
        step = model.step(rows[frame : frame + model.window], h, c)
        h, c = step.h, step.c
        expected.append(expressed(spread * step.expression, model.basis, person))
    np.testing.assert_allclose(found.mouth_landmarks, np.stack(expected), atol=2e-3)
    assert np.ptp(poses_of(found), axis=0).min() > 0.0


def test_no_state_of_the_speech_encoder_is_needed(models: MotionModels, person: Style) -> None:
    features = random_features(20, 2)
    assert not features.extra
    assert len(HeadposePredictor(models, person).push(features).mouth_landmarks) == 18


def test_the_mouth_follows_hidden_states(models: MotionModels, person: Style) -> None:
    """A mouth that opens with a hidden state of the network is predicted on other speech of the person."""
    frames, features = 300, talk(360)
    model = HeadModel.of(models)
    *_, answers = _run(head_answers(features, 360, models))
    state = answers.hidden[:, int(answers.hidden.std(axis=0).argmax())]
    shown = mouths(np.maximum(8.0 + 4.0 * (state - state.mean()) / state.std(), 0.0).astype(np.float32))
    usable = np.ones(frames, np.bool_)
    footage = Footage(shown[:frames], usable, head_poses(frames))
    style = encode_head_style(footage, models)
    *_, last = personalize(style, features[:frames], footage, models)
    assert last.style is not None
    assert last.style.added[CORRECTION].shape == (len(model.basis.typical_spread), model.hidden + 1)
    wanted = mouth_opening(shown)[frames : 360 - model.ahead]
    before, after = (
        np.corrcoef(mouth_opening(HeadposePredictor(models, each, OFF).push(features).mouth_landmarks)[frames:], wanted)[0, 1]
        for each in (style, last.style)
    )
    assert after > before + 0.2


def _run(steps):  # type: ignore[no-untyped-def]
    """Return the steps of a generator, and its return value last."""
    found = []
    while True:
        try:
            found.append(next(steps))
        except StopIteration as end:
            return [*found, end.value]


def test_a_style_without_a_head_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequestError, match="head_poses"):
        HeadposePredictor(models, style)
