"""Tests of the predictor `portrait`: the mouth of the speech map beside a moving head, and its personalisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from research.motion.evaluate import OFF
from services.common.array_types import Float64
from services.common.face.landmarks import mouth_opening
from services.common.geometry.morphable_model import default_model
from services.motion.head_network import HeadModel, encode_head_style
from services.motion.models import MotionModels
from services.motion.predictors.portrait.predictor import CORRECTION, MOUTH, PortraitPredictor, personalize
from services.motion.speech_map import MapMouth, SpeechMapModel, num_correction_inputs
from services.motion.speech_states import STATES, neighbours, silence_with_states
from services.motion.style import FASTEST_STEP, WIDEST_OPENING, Style
from services.motion.types import Footage
from tests.unit.motion.moving_head import FRAMES, heard, opened, poses_of, predict, talking
from tests.unit.motion.streams import PAL
from tests.unit.motion.synthesised import head_poses, mouths, with_closed_lips, with_states


def test_an_answer_comes_four_frames_behind_the_features(models: MotionModels, person: Style) -> None:
    stream, features = opened(models, person, PAL), heard(8)
    counts = [len(stream.push(n, features[n : n + 1]).mouth_landmarks) for n in range(8)]
    assert (HeadModel.of(models).ahead, MOUTH.ahead) == (2, 4)
    assert counts == [0] * 4 + [1] * 4


def test_states_mouth_voice_head(models: MotionModels, person: Style) -> None:
    """States move the mouth alone and the voice moves the head."""
    correction = (
        np.random.default_rng(5)
        .normal(0.0, 0.2, (models.num_coefficients, num_correction_inputs(models.num_coefficients)))
        .astype(np.float32)
    )
    free = {name: values for name, values in person.added.items() if name not in {WIDEST_OPENING, FASTEST_STEP}}
    person = replace(person, added={**free, CORRECTION: correction})
    features = heard(40)
    motion, other = (predict(models, person, each) for each in (features, with_states(features, STATES, seed=7)))
    np.testing.assert_array_equal(poses_of(motion), poses_of(other))
    assert np.abs(motion.mouth_landmarks - other.mouth_landmarks).max() > 1.0
    # With constraints that never act, the mouth is the speech map's, of the same correction.
    opened = PortraitPredictor(models, person, OFF)
    found = opened.push(features).mouth_landmarks
    mouth = MapMouth(SpeechMapModel.of(models), MOUTH, models, person, correction)
    windows = neighbours(features.extra[STATES], MOUTH.past, MOUTH.ahead)
    expected = np.stack([mouth(window, 1.0) for window in windows[: len(found)]])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_expression_and_landmarks_are_one_face(models: MotionModels, person: Style) -> None:
    motion = predict(models, person, heard(20))
    assert motion.expression is not None
    size = len(HeadModel.of(models).basis.typical_spread)
    assert motion.expression.shape == (20, default_model().num_expression)
    assert not motion.expression[:, size:].any()
    again = person.rest_mouth + HeadModel.of(models).basis.reconstruct(motion.expression[:, :size])
    assert np.abs(again - motion.mouth_landmarks).mean() < 0.6


def test_silence_closed_and_resting(models: MotionModels, person: Style) -> None:
    """Silence is the closed mouth and a head at rest."""
    motion = predict(models, person, silence_with_states(60))
    np.testing.assert_allclose(motion.mouth_landmarks, np.broadcast_to(person.closed_mouth, (60, 59, 3)), atol=1e-5)
    assert np.ptp(poses_of(motion), axis=0).max() < 1e-9


def test_lips_close_where_the_encoder_hears_closed_lips(models: MotionModels, person: Style) -> None:
    features = with_closed_lips(heard(20), SpeechMapModel.of(models).maps[MOUTH], [9])
    found = mouth_opening(predict(models, person, features).mouth_landmarks)
    assert found[9] < float(mouth_opening(person.closed_mouth)) + 1.0
    assert found.max() > found[9] + 1.0


def personalised(models: MotionModels, person: Style, poses: Float64) -> Style:
    usable = np.ones(FRAMES, np.bool_)
    steps = list(personalize(person, heard(FRAMES), Footage(talking(), usable, poses), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    refined = steps[-1].style
    assert refined is not None
    return refined


def test_personalising_is_deterministic(models: MotionModels, person: Style) -> None:
    first, second = (personalised(models, person, head_poses(FRAMES)) for _ in range(2))
    assert first.added["pose_weights"].tobytes() == second.added["pose_weights"].tobytes()


def test_mouth_learned_from_states(models: MotionModels, person: Style) -> None:
    """A mouth that opens with a component that the map does not know is predicted on other speech of the person."""
    frames, features = 300, heard(360)
    component = np.convolve(features.extra[STATES][:, 100], np.ones(3) / 1.7, mode="same")
    shown = mouths(np.maximum(8.0 + 5.0 * component, 0.0).astype(np.float32))
    wanted = mouth_opening(shown)[frames : -MOUTH.ahead]
    usable = np.ones(frames, np.bool_)
    style = encode_head_style(Footage(shown[:frames], usable, head_poses(frames)), models)
    refined = list(personalize(style, features[:frames], Footage(shown[:frames], usable, head_poses(frames)), models))[-1].style
    assert refined is not None
    before, after = (
        np.corrcoef(mouth_opening(PortraitPredictor(models, each, OFF).push(features).mouth_landmarks)[frames:], wanted)[0, 1]
        for each in (style, refined)
    )
    assert after > before + 0.4
