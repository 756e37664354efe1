"""Motion with head poses on output timelines."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from services.common.array_types import Float64
from services.common.errors import InvalidRequest
from services.common.face.landmarks import mouth_opening
from services.common.geometry.default_model import default_model
from services.common.wire.timeline import Timeline
from services.motion.models import MotionModels
from services.motion.predictors.headpose.grid import HeadposeGrid
from services.motion.predictors.headpose.model import CORRECTION, MOUTH, HeadposeModel
from services.motion.predictors.headpose.style import head_style_of
from services.motion.speech_map import MapMouth, SpeechMapModel, num_correction_inputs
from services.motion.speech_states import STATES, neighbours, silence_with_states
from services.motion.style import WIDEST_OPENING, Style
from services.motion.train.evaluate import OFF
from services.motion.types import SpeechFeatures
from tests.unit.motion.predictors.headpose.person import FRAMES, heard, opened, poses_of, predict, talk
from tests.unit.motion.streams import NTSC, PAL
from tests.unit.motion.synthesised import head_poses, with_closed_lips, with_states

UNEVEN = Timeline(pts=np.cumsum(np.random.default_rng(0).integers(20, 60, 40)), time_base=Fraction(1, 1000))


@pytest.mark.parametrize("timeline", [PAL, NTSC, UNEVEN])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(models: MotionModels, person: Style, timeline: Timeline, cut: int) -> None:
    features = heard(40)
    whole, pieces = (predict(models, person, features, timeline, size) for size in (1000, cut))
    for name in ("mouth_landmarks", "speech_probability", "expression", "poses", "blink"):
        first, second = getattr(whole, name), getattr(pieces, name)
        assert len(first) > 0
        assert first.tobytes() == second.tobytes()


def test_an_answer_comes_three_frames_behind_the_features(models: MotionModels, person: Style) -> None:
    stream, features = opened(models, person, PAL), heard(8)
    counts = [len(stream.push(n, features[n : n + 1]).mouth_landmarks) for n in range(8)]
    assert (HeadposeModel.of(models).ahead, MOUTH.ahead) == (2, 3)
    assert counts == [0] * 3 + [1] * 5


def test_what_comes_later_moves_no_earlier_frame(models: MotionModels, person: Style) -> None:
    features, ahead = heard(50), HeadposeModel.of(models).ahead
    other = SpeechFeatures.joined([features[:35], heard(15, seed=9)])
    first, second = (predict(models, person, each) for each in (features, other))
    np.testing.assert_array_equal(poses_of(first)[: 35 - ahead], poses_of(second)[: 35 - ahead])
    assert not np.array_equal(poses_of(first)[35:], poses_of(second)[35:])


def test_states_move_the_mouth_alone_and_the_voice_moves_the_head(models: MotionModels, person: Style) -> None:
    correction = (
        np.random.default_rng(5)
        .normal(0.0, 0.2, (models.num_coefficients, num_correction_inputs(models.num_coefficients)))
        .astype(np.float32)
    )
    free = {name: values for name, values in person.added.items() if name != WIDEST_OPENING}
    person = replace(person, added={**free, CORRECTION: correction})
    features = heard(40)
    motion, other = (predict(models, person, each) for each in (features, with_states(features, STATES, seed=7)))
    np.testing.assert_array_equal(poses_of(motion), poses_of(other))
    assert np.abs(motion.mouth_landmarks - other.mouth_landmarks).max() > 1.0
    # With constraints that never act, the mouth is the speech map's, of the same correction.
    grid = HeadposeGrid(models, person, OFF)
    found = grid.push(features).mouth_landmarks
    mouth = MapMouth(SpeechMapModel.of(models), MOUTH, models, person, correction)
    windows = neighbours(features.extra[STATES], MOUTH.past, MOUTH.ahead)
    expected = np.stack([mouth(window, 1.0) for window in windows[: len(found)]])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_expression_and_landmarks_are_one_face(models: MotionModels, person: Style) -> None:
    motion = predict(models, person, heard(20))
    assert motion.expression is not None
    size = len(HeadposeModel.of(models).basis.typical_spread)
    assert motion.expression.shape == (20, default_model().num_expression)
    assert not motion.expression[:, size:].any()
    again = person.rest_mouth + HeadposeModel.of(models).basis.reconstruct(motion.expression[:, :size])
    assert np.abs(again - motion.mouth_landmarks).mean() < 0.6


def test_silence_is_the_closed_mouth_and_a_head_at_rest(models: MotionModels, person: Style) -> None:
    motion = predict(models, person, silence_with_states(60))
    np.testing.assert_allclose(motion.mouth_landmarks, np.broadcast_to(person.closed_mouth, (60, 59, 3)), atol=1e-5)
    assert np.ptp(poses_of(motion), axis=0).max() < 1e-9


def test_lips_close_where_the_encoder_hears_closed_lips(models: MotionModels, person: Style) -> None:
    features = with_closed_lips(heard(20), SpeechMapModel.of(models).maps[MOUTH.feature], [9])
    found = mouth_opening(predict(models, person, features).mouth_landmarks)
    assert found[9] < float(mouth_opening(person.closed_mouth)) + 1.0
    assert found.max() > found[9] + 1.0


@pytest.fixture(scope="module")
def minute(models: MotionModels, person: Style) -> Float64:
    return poses_of(predict(models, person, talk(1500)))


def test_a_minute_of_speech_never_leaves_the_persons_range_and_does_not_drift(person: Style, minute: Float64) -> None:
    poses = minute
    own, head = head_poses(FRAMES), head_style_of(person)
    spread = own.std(axis=0)
    assert (poses > own.min(axis=0) - 0.5 * spread).all()
    assert (poses < own.max(axis=0) + 0.5 * spread).all()
    for third in np.split(poses, 3):
        np.testing.assert_array_less(np.abs(third.mean(axis=0) - head.reference), 0.6 * spread)


def test_the_head_spreads_and_turns_as_the_persons(minute: Float64) -> None:
    poses, own = minute, head_poses(FRAMES)
    ratio = poses.std(axis=0) / own.std(axis=0)
    speed = np.abs(np.diff(poses, axis=0)).mean(axis=0) / np.abs(np.diff(own, axis=0)).mean(axis=0)
    assert (ratio > 0.6).all()
    assert (ratio < 1.3).all()
    assert (speed > 0.35).all()
    assert (speed < 1.8).all()


def test_the_head_does_not_jitter(minute: Float64) -> None:
    speed, jerk = (np.abs(np.diff(minute, order, axis=0)).mean(axis=0) for order in (1, 2))
    # White jitter has a ratio of 1.7.
    assert (jerk < 0.9 * speed).all()


def test_other_speech_moves_the_head_otherwise(models: MotionModels, person: Style) -> None:
    first, second = (poses_of(predict(models, person, talk(200, seed))) for seed in (0, 1))
    assert np.abs(first - second)[50:].max(axis=0).min() > 0.0


def test_poses_between_grid_frames_lie_on_the_curve_through_them(models: MotionModels, person: Style) -> None:
    features = heard(40)
    grid, finer = (poses_of(predict(models, person, features, Timeline(rate=Fraction(rate)))) for rate in (25, 50))
    np.testing.assert_array_equal(finer[::2], grid)
    middle = 0.5 * (grid[:-1] + grid[1:])
    np.testing.assert_allclose(finer[1:-1:2], middle, atol=float(np.abs(np.diff(grid, 2, axis=0)).max()))


def test_a_style_of_another_method_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequest, match="head_poses"):
        opened(models, style, PAL)
