"""The predictor `headpose`: network, stream, poses, style, personalisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.geometry.default_model import default_model
from services.common.landmarks import mouth_opening
from services.common.timeline import Timeline
from services.motion.adapt.personalize_head_motion import MAX_FRAMES, Heard, hear, personalize_head_motion
from services.motion.expression import expression_basis
from services.motion.features import PHONES, silence
from services.motion.models import MotionModels
from services.motion.predict import MotionStream
from services.motion.predict_head_motion import (
    encode_head_style,
    head_motion_stream,
    head_style_of,
    mean_head_speaker,
)
from services.motion.style import STYLE_FORMAT, Style
from services.motion.types import Motion, SpeechFeatures
from tests.unit.motion.synthesised import head_poses, mouths, random_features, speech

PAL = Timeline(rate=Fraction(25))
NTSC = Timeline(rate=Fraction(30000, 1001))
FRAMES = 100
UNEVEN = Timeline(pts=np.cumsum(np.random.default_rng(0).integers(20, 60, 40)), time_base=Fraction(1, 1000))


def talking(num_frames: int = FRAMES) -> npt.NDArray[np.float32]:
    return mouths((5.0 + 4.0 * np.sin(np.arange(num_frames) * 0.7)).astype(np.float32))


@pytest.fixture(scope="module")
def person(models: MotionModels) -> Style:
    return encode_head_style(talking(), np.ones(FRAMES, np.bool_), head_poses(FRAMES), models)


@pytest.fixture(scope="module")
def portrait(models: MotionModels) -> Style:
    return encode_head_style(talking(1), np.ones(1, np.bool_), head_poses(1), models)


def run(stream: MotionStream, features: SpeechFeatures, cut: int = 1000) -> list[Motion]:
    parts = [stream.push(first, features[first : first + cut]) for first in range(0, len(features), cut)]
    while (part := stream.drain()) is not None:
        parts.append(part)
    return parts


def joined(parts: list[Motion]) -> Motion:
    def column(values: Iterator[npt.NDArray[np.generic] | None]) -> npt.NDArray[np.generic]:
        return np.concatenate([value for value in values if value is not None])

    return Motion(
        parts[0].first_frame,
        np.concatenate([part.mouth_landmarks for part in parts]),
        np.concatenate([part.speech_probability for part in parts]),
        column(part.expression for part in parts),  # type: ignore[arg-type]
        column(part.poses for part in parts),  # type: ignore[arg-type]
        column(part.blink for part in parts),  # type: ignore[arg-type]
    )


def predict(models: MotionModels, style: Style, features: SpeechFeatures, timeline: Timeline = PAL, cut: int = 1000) -> Motion:
    return joined(run(head_motion_stream(models, style, timeline), features, cut))


def talk(num_frames: int, seed: int = 0) -> SpeechFeatures:
    """Somebody who talks without a pause, a phone in 80 ms."""
    rng = np.random.default_rng(seed)
    return speech([PHONES[index] for index in rng.integers(1, len(PHONES), num_frames // 2)], 2)


def poses_of(motion: Motion) -> npt.NDArray[np.float64]:
    assert motion.poses is not None
    return motion.poses


def test_the_committed_network_speaks_of_the_committed_face_model(models: MotionModels) -> None:
    face = default_model()
    assert models.head_motion.face_model == face.digest
    assert models.head_motion.num_expression == face.num_expression
    expected = expression_basis(face, models.basis, len(models.head_motion.basis.typical_spread))
    np.testing.assert_allclose(models.head_motion.basis.dual, expected.dual, atol=1e-6)


def test_the_lstm_is_no_larger_than_serving_can_bear(models: MotionModels) -> None:
    assert models.head_motion.hidden <= 256


@pytest.mark.parametrize("timeline", [PAL, NTSC, UNEVEN])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(models: MotionModels, person: Style, timeline: Timeline, cut: int) -> None:
    features = random_features(40)
    whole, pieces = (predict(models, person, features, timeline, size) for size in (1000, cut))
    for name in ("mouth_landmarks", "speech_probability", "expression", "poses", "blink"):
        first, second = getattr(whole, name), getattr(pieces, name)
        assert len(first) > 0
        assert first.tobytes() == second.tobytes()


def test_an_answer_comes_two_frames_behind_the_features(models: MotionModels, person: Style) -> None:
    stream, features = head_motion_stream(models, person, PAL), random_features(8)
    counts = [len(stream.push(n, features[n : n + 1]).mouth_landmarks) for n in range(8)]
    assert models.head_motion.ahead == 2
    assert counts == [0] * 2 + [1] * 6


def test_what_comes_later_moves_no_earlier_frame(models: MotionModels, person: Style) -> None:
    features, ahead = random_features(50), models.head_motion.ahead
    other = SpeechFeatures.joined([features[:35], random_features(15, seed=9)])
    first, second = (predict(models, person, each) for each in (features, other))
    np.testing.assert_array_equal(poses_of(first)[: 35 - ahead], poses_of(second)[: 35 - ahead])
    assert not np.array_equal(poses_of(first)[35:], poses_of(second)[35:])


def test_expression_and_landmarks_are_one_face(models: MotionModels, person: Style) -> None:
    motion = predict(models, person, random_features(20))
    assert motion.expression is not None
    size = len(models.head_motion.basis.typical_spread)
    assert motion.expression.shape == (20, default_model().num_expression)
    assert not motion.expression[:, size:].any()
    again = person.rest_mouth + models.head_motion.basis.reconstruct(motion.expression[:, :size])
    assert np.abs(again - motion.mouth_landmarks).mean() < 0.6


def test_silence_is_the_closed_mouth_and_a_head_at_rest(models: MotionModels, person: Style) -> None:
    motion = predict(models, person, silence(60))
    np.testing.assert_allclose(motion.mouth_landmarks, np.broadcast_to(person.closed_mouth, (60, 59, 3)), atol=1e-5)
    assert np.ptp(poses_of(motion), axis=0).max() < 1e-9


def test_lips_close_on_a_bilabial(models: MotionModels, person: Style) -> None:
    motion = predict(models, person, speech(["AA", "M", "AA"], 6))
    closed = float(mouth_opening(person.closed_mouth[None])[0])
    assert mouth_opening(motion.mouth_landmarks[8:10]).max() < closed + 1.0


@pytest.fixture(scope="module")
def minute(models: MotionModels, person: Style) -> npt.NDArray[np.float64]:
    return poses_of(predict(models, person, talk(1500)))


def test_a_minute_of_speech_never_leaves_the_persons_range_and_does_not_drift(
    person: Style, minute: npt.NDArray[np.float64]
) -> None:
    poses = minute
    own, head = head_poses(FRAMES), head_style_of(person)
    spread = own.std(axis=0)
    assert (poses > own.min(axis=0) - 0.5 * spread).all()
    assert (poses < own.max(axis=0) + 0.5 * spread).all()
    for third in np.split(poses, 3):
        np.testing.assert_array_less(np.abs(third.mean(axis=0) - head.reference), 0.6 * spread)


def test_the_head_spreads_and_turns_as_the_persons(minute: npt.NDArray[np.float64]) -> None:
    poses, own = minute, head_poses(FRAMES)
    ratio = poses.std(axis=0) / own.std(axis=0)
    speed = np.abs(np.diff(poses, axis=0)).mean(axis=0) / np.abs(np.diff(own, axis=0)).mean(axis=0)
    assert (ratio > 0.6).all()
    assert (ratio < 1.3).all()
    assert (speed > 0.35).all()
    assert (speed < 1.8).all()


def test_the_head_does_not_jitter(minute: npt.NDArray[np.float64]) -> None:
    speed, jerk = (np.abs(np.diff(minute, order, axis=0)).mean(axis=0) for order in (1, 2))
    # White jitter has a ratio of 1.7.
    assert (jerk < 0.9 * speed).all()


def test_other_speech_moves_the_head_otherwise(models: MotionModels, person: Style) -> None:
    first, second = (poses_of(predict(models, person, talk(200, seed))) for seed in (0, 1))
    assert np.abs(first - second)[50:].max(axis=0).min() > 0.0


def test_poses_between_grid_frames_lie_on_the_curve_through_them(models: MotionModels, person: Style) -> None:
    features = random_features(40)
    grid, finer = (poses_of(predict(models, person, features, Timeline(rate=Fraction(rate)))) for rate in (25, 50))
    np.testing.assert_array_equal(finer[::2], grid)
    middle = 0.5 * (grid[:-1] + grid[1:])
    np.testing.assert_allclose(finer[1:-1:2], middle, atol=float(np.abs(np.diff(grid, 2, axis=0)).max()))


def test_one_frame_is_a_style_of_modest_movement_about_it(models: MotionModels, portrait: Style) -> None:
    poses = poses_of(predict(models, portrait, talk(750)))
    degrees = np.degrees(poses[:, :3] - head_poses(1)[0, :3])
    assert 2.0 < np.abs(degrees).max() < 8.0
    assert np.abs(np.diff(degrees, axis=0)).max() < 2.0
    places = (poses[:, 3:5] - head_poses(1)[0, 3:5]) / head_poses(1)[0, 5]
    assert np.abs(places).max() < 15.0
    assert np.abs(poses[:, 5] / head_poses(1)[0, 5] - 1.0).max() < 0.03


def test_an_open_portrait_speaks_from_shut_lips(models: MotionModels) -> None:
    open_mouth = mouths(np.array([9.0], np.float32))
    style = encode_head_style(open_mouth, np.ones(1, np.bool_), head_poses(1), models)
    shut = encode_head_style(mouths(np.zeros(1, np.float32)), np.ones(1, np.bool_), head_poses(1), models)
    assert float(mouth_opening(style.closed_mouth)) < 1.0
    assert float(mouth_opening(style.rest_mouth)) < 3.0
    assert abs(float(mouth_opening(style.rest_mouth)) - float(mouth_opening(shut.rest_mouth))) < 2.5


def test_translation_is_in_units_of_the_heads_size(models: MotionModels) -> None:
    near = head_poses(1)
    far = near.copy()
    far[:, 5] *= 0.5
    moved = []
    for pose in (near, far):
        style = encode_head_style(talking(1), np.ones(1, np.bool_), pose, models)
        moved.append(poses_of(predict(models, style, talk(100)))[:, 3] - pose[0, 3])
    np.testing.assert_allclose(moved[1], 0.5 * moved[0], atol=1e-3)


def test_without_style_the_head_moves_as_the_mean_speakers(models: MotionModels, person: Style) -> None:
    plain = mean_head_speaker(person, models)
    np.testing.assert_array_equal(plain.pose_reference, person.pose_reference)
    assert not np.array_equal(plain.pose_quantiles, person.pose_quantiles)


def test_a_style_of_another_method_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequest, match="head_poses"):
        head_motion_stream(models, style, PAL)


def test_the_other_arrays_of_a_style_are_those_of_every_method(models: MotionModels, style: Style, person: Style) -> None:
    for name, array in style.arrays().items():
        np.testing.assert_array_equal(array, person.arrays()[name])


def test_too_few_frames_and_an_unusable_one_are_refused(models: MotionModels) -> None:
    with pytest.raises(NoUsableFootage, match="25 usable frames"):
        encode_head_style(talking(20), np.ones(20, np.bool_), head_poses(20), models)
    with pytest.raises(NoUsableFootage, match="one frame"):
        encode_head_style(talking(1), np.zeros(1, np.bool_), head_poses(1), models)


def test_a_style_makes_a_round_trip(models: MotionModels, person: Style) -> None:
    metadata = {"format": STYLE_FORMAT}
    refined = personalised(models, person, head_poses(FRAMES))
    for each in (person, refined):
        read = Style.from_arrays(
            each.arrays(),
            metadata,
            expected=models.style_shapes,
            optional=models.optional_style_shapes(each.arrays()),
            field="style",
        )
        assert {name: array.tobytes() for name, array in read.arrays().items()} == {
            name: array.tobytes() for name, array in each.arrays().items()
        }
    with pytest.raises(InvalidRequest, match="pose_mixing"):
        Style.from_arrays(
            replace(person, pose_mixing=np.eye(3, dtype=np.float32)).arrays(),
            metadata,
            expected=models.style_shapes,
            optional=models.optional_style_shapes(person.arrays()),
            field="style",
        )


def personalised(models: MotionModels, person: Style, poses: npt.NDArray[np.float64]) -> Style:
    usable = np.ones(FRAMES, np.bool_)
    steps = list(personalize_head_motion(person, random_features(FRAMES), talking(), usable, poses, models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    refined = steps[-1].style
    assert refined is not None
    return refined


def test_personalising_finds_what_the_speech_tells_of_the_head(models: MotionModels) -> None:
    """Poses that follow a signal of the speech are learned, and nodded on the same speech again."""
    frames = 250
    features, usable = random_features(frames), np.ones(frames, np.bool_)
    heard = list(hear(features, frames, models))[-1]
    assert isinstance(heard, Heard)
    smooth = np.convolve(heard.signals[:, 9], np.exp(-np.arange(20) / 3.0), mode="full")[:frames]
    poses = head_poses(frames)
    poses[:, 0] = -0.1 + 0.03 * smooth / smooth.std()
    person = encode_head_style(talking(frames), usable, poses, models)
    refined = list(personalize_head_motion(person, features, talking(frames), usable, poses, models))[-1].style
    assert refined is not None
    before, after = (
        np.corrcoef(poses_of(predict(models, each, features))[50:, 0], poses[50:, 0])[0, 1] for each in (person, refined)
    )
    assert after > 0.5
    assert after > before


def test_personalising_is_deterministic_and_leaves_other_methods_alone(models: MotionModels, person: Style) -> None:
    first, second = (personalised(models, person, head_poses(FRAMES)) for _ in range(2))
    assert first.pose_weights is not None
    assert second.pose_weights is not None
    assert first.pose_weights.tobytes() == second.pose_weights.tobytes()
    own = ("pose_weights", "pose_steps", "spoken_correction")
    for name, array in first.arrays().items():
        assert name in own or array.tobytes() == person.arrays()[name].tobytes()


def test_personalising_needs_a_style_of_the_head_and_two_seconds(models: MotionModels, style: Style, person: Style) -> None:
    usable = np.ones(40, np.bool_)
    with pytest.raises(NoUsableFootage, match="50 usable frames"):
        list(personalize_head_motion(person, random_features(40), talking(40), usable, head_poses(40), models))
    with pytest.raises(InvalidRequest, match="head's movement"):
        list(personalize_head_motion(style, random_features(FRAMES), talking(), usable, head_poses(FRAMES), models))


def test_twelve_seconds_are_learned_from_at_most(models: MotionModels, person: Style) -> None:
    frames = MAX_FRAMES + 20
    usable, poses = np.ones(frames, np.bool_), head_poses(frames)
    changed = poses.copy()
    changed[MAX_FRAMES:, :3] += 0.1
    found = [
        list(personalize_head_motion(person, random_features(frames), talking(frames), usable, each, models))[-1].style
        for each in (poses, changed)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].arrays()["pose_weights"].tobytes() == found[1].arrays()["pose_weights"].tobytes()
