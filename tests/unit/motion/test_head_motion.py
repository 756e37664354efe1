"""Tests of the distribution and pace of head poses, and of head scores from signals of the speech."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.head_motion import (
    KNOTS,
    NUM_LAGS,
    NUM_SIGNALS,
    HeadStyle,
    PoseMap,
    RhythmConstants,
    ScoreStream,
    SignalStream,
    absolute_poses,
    general_weights,
    independent_scores,
    measure_head,
    reference_pose,
    relative_poses,
    slowed_down,
    symmetric_root,
    tuned,
    within_knots,
)
from services.motion.head_network import HeadModel, head_style_arrays
from services.motion.models import MotionModels
from tests.unit.motion.synthesised import head_poses


def white(num_signals: int = NUM_SIGNALS) -> RhythmConstants:
    lags = np.zeros((NUM_LAGS, num_signals, num_signals))
    lags[0] = np.eye(num_signals)
    nothing = np.zeros(6)
    return RhythmConstants(nothing, np.ones(6), 0.0, 1.0, np.zeros(44), np.zeros((6, 44)), lags)


@pytest.mark.parametrize("step", [0.06, 0.15, 0.3])
def test_scores_have_variance_one_and_the_persons_pace(step: float) -> None:
    rhythm = tuned(general_weights(), np.full(6, step), white())
    signals = np.random.default_rng(0).standard_normal((20000, NUM_SIGNALS))
    scores = slowed_down(signals @ rhythm.weights.T, rhythm.poles)[500:]
    np.testing.assert_allclose(scores.std(axis=0), 1.0, atol=0.12)
    np.testing.assert_allclose(np.diff(scores, axis=0).std(axis=0), step, rtol=0.08)


def test_the_level_brings_any_speech_to_variance_one() -> None:
    stream = ScoreStream(tuned(general_weights(), np.full(6, 0.2), white()))
    signals = 2.0 * np.random.default_rng(0).standard_normal((3000, NUM_SIGNALS))
    scores = np.stack([stream.push(row, 1.0) for row in signals])
    np.testing.assert_allclose(scores[1000:].std(axis=0), 1.0, atol=0.2)


def test_signals_rest_in_silence_and_forget_the_voice(models: MotionModels) -> None:
    stream = SignalStream(HeadModel.of(models).rhythm)
    row = np.full((4, 44), 0.3, np.float32)
    pose = np.full(6, 0.5, np.float32)
    assert not stream.push(pose, row, 0.0).any()
    first, *_, last = [np.abs(stream.push(pose, row, 1.0)).max() for _ in range(500)]
    assert last < 0.15 * first


@pytest.fixture
def general(models: MotionModels) -> HeadStyle:
    return HeadModel.of(models).general


def test_relative_poses_and_back() -> None:
    poses = head_poses(20)
    np.testing.assert_allclose(absolute_poses(relative_poses(poses, poses[3]), poses[3]), poses, rtol=1e-12)


def test_angle_across_half_turn() -> None:
    """An angle across the half turn is a small one."""
    poses = head_poses(2)
    poses[:, 2] = np.pi - 0.01, -np.pi + 0.01
    assert relative_poses(poses, poses[0])[1, 2] == pytest.approx(0.02)


def test_the_reference_is_the_mean_pose() -> None:
    poses = head_poses(50)
    np.testing.assert_allclose(reference_pose(poses)[:5], poses[:, :5].mean(axis=0), rtol=1e-9)
    assert reference_pose(poses)[5] == pytest.approx(np.exp(np.log(poses[:, 5]).mean()))


def test_normal_scores_get_the_persons_distribution_back(general: HeadStyle) -> None:
    poses = head_poses(400)
    style = measure_head(poses, np.ones(400, np.bool_), general)
    to_pose = PoseMap(style)
    drawn = np.random.default_rng(0).standard_normal((4000, 6))
    made = np.stack([to_pose.pose(row) for row in drawn])
    np.testing.assert_allclose(made.std(axis=0), poses.std(axis=0), rtol=0.15)
    for share in (0.1, 0.5, 0.9):
        own, again = (np.quantile(each, share, axis=0) for each in (poses, made))
        np.testing.assert_array_less(np.abs(own - again), 0.25 * poses.std(axis=0))
    np.testing.assert_allclose(np.corrcoef(made.T), np.corrcoef(poses.T), atol=0.25)


def test_scores_of_a_pose_lead_back_to_it(general: HeadStyle) -> None:
    poses = head_poses(400)
    style = measure_head(poses, np.ones(400, np.bool_), general)
    inner = (np.abs(relative_poses(poses, style.reference)) < style.quantiles[:, 12]).all(axis=1)
    again = np.stack([PoseMap(style).pose(row) for row in independent_scores(poses, style)[inner]])
    np.testing.assert_array_less(np.abs(again - poses[inner]).max(axis=0), 0.12 * poses.std(axis=0))


def test_the_map_is_bounded_and_increasing(general: HeadStyle) -> None:
    to_pose = PoseMap(HeadStyle(general.reference, general.quantiles, np.eye(6), general.steps))
    along = np.stack([to_pose.pose(np.full(6, value)) for value in np.linspace(-9.0, 9.0, 400)])
    assert (np.diff(along, axis=0) >= 0.0).all()
    relative = relative_poses(along, general.reference)
    assert (relative >= general.quantiles[:, 0] - 1e-9).all()
    assert (relative <= general.quantiles[:, -1] + 1e-9).all()


def test_scores_beyond_the_knots_come_back_smoothly() -> None:
    values = np.linspace(-8.0, 8.0, 1601)
    kept = within_knots(values)
    assert np.abs(kept).max() <= KNOTS[-1]
    inside = np.abs(values) <= 1.6
    np.testing.assert_array_equal(kept[inside], values[inside])
    assert np.abs(np.diff(kept, 2)).max() < 2e-4


def test_frames_without_a_face_count_for_nothing(general: HeadStyle) -> None:
    poses, usable = head_poses(100), np.ones(100, np.bool_)
    spoilt = poses.copy()
    spoilt[40:50] = (1.0, 1.0, 1.0, 9.0, 9.0, 9.0)
    usable[40:50] = False
    first, second = (head_style_arrays(measure_head(each, usable, general)) for each in (poses, spoilt))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_the_symmetric_root_is_a_root() -> None:
    matrix = np.cov(np.random.default_rng(0).standard_normal((6, 40)))
    root = symmetric_root(matrix)
    np.testing.assert_allclose(root @ root, matrix, atol=1e-12)
    np.testing.assert_allclose(root, root.T, atol=1e-12)
