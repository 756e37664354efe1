"""Tests of head movement from speech: blinks, network inputs, committed network, head poses, styles, and what footage teaches."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from services.common.array_types import Float64
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.landmarks import NUM_LIPS, lip_width, mouth_opening
from services.common.wire.timeline import Timeline
from services.motion.features import silence
from services.motion.head_motion import general_weights
from services.motion.head_network import (
    CLOSURE,
    MAX_FRAMES,
    SPAN_FRAMES,
    STILL_REST_PX,
    HeadAnswers,
    HeadModel,
    SpeechInputStream,
    blink_start,
    blinks,
    cepstra,
    encode_head_style,
    head_answers,
    head_style_of,
    input_rows,
    mean_head_speaker,
)
from services.motion.models import MotionModels
from services.motion.predictors.portrait.predictor import personalize
from services.motion.speech_states import silence_with_states
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures
from tests.unit.motion.moving_head import FRAMES, heard, opened, poses_of, predict, talk, talking
from tests.unit.motion.streams import PAL
from tests.unit.motion.synthesised import head_poses, mouths, random_features


def test_eyes_blink_once_in_about_four_seconds() -> None:
    closure = blinks(np.arange(25 * 120))
    begins = np.flatnonzero((closure[1:] > 0) & (closure[:-1] == 0)) + 1
    assert len(begins) == 30
    gaps = np.diff(begins) / 25.0
    assert gaps.min() > 1.0
    assert gaps.max() < 7.0
    assert gaps.std() > 0.5
    assert 0.2 <= len(CLOSURE) / 25.0 <= 0.3
    assert closure.max() == 1.0


def test_a_blink_follows_from_its_frame_alone() -> None:
    start = blink_start(7)
    assert 7 * SPAN_FRAMES <= start < 8 * SPAN_FRAMES
    np.testing.assert_array_equal(blinks(np.arange(start, start + 7)), np.array(CLOSURE, np.float32))
    np.testing.assert_array_equal(blinks(np.arange(300))[137:], blinks(np.arange(137, 300)))


def test_what_comes_later_moves_no_earlier_frame(models: MotionModels, person: Style) -> None:
    features, ahead = heard(50), HeadModel.of(models).ahead
    other = SpeechFeatures.joined([features[:35], heard(15, seed=9)])
    first, second = (predict(models, person, each) for each in (features, other))
    np.testing.assert_array_equal(poses_of(first)[: 35 - ahead], poses_of(second)[: 35 - ahead])
    assert not np.array_equal(poses_of(first)[35:], poses_of(second)[35:])


@pytest.fixture(scope="module")
def minute(models: MotionModels, person: Style) -> Float64:
    return poses_of(predict(models, person, talk(1500)))


def test_minute_stays_within_range(person: Style, minute: Float64) -> None:
    """A minute of speech never leaves the person's range and does not drift."""
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


def test_poses_interpolate_on_curve(models: MotionModels, person: Style) -> None:
    """Poses between grid frames lie on the curve through them."""
    features = heard(40)
    grid, finer = (poses_of(predict(models, person, features, Timeline(rate=Fraction(rate)))) for rate in (25, 50))
    np.testing.assert_array_equal(finer[::2], grid)
    middle = 0.5 * (grid[:-1] + grid[1:])
    np.testing.assert_allclose(finer[1:-1:2], middle, atol=float(np.abs(np.diff(grid, 2, axis=0)).max()))


def test_a_style_of_another_method_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequestError, match="head_poses"):
        opened(models, style, PAL)


def test_cepstra_are_cosine_transform() -> None:
    """Cepstra are the cosine transform of the mel rows."""
    mel = np.zeros((1, 4, 80), np.float32)
    mel[..., :] = np.cos(np.pi / 80 * 3 * (np.arange(80) + 0.5))
    found = cepstra(mel)[0, 0]
    assert found.argmax() == 3
    assert found[3] == pytest.approx(np.sqrt(40.0), rel=1e-5)
    np.testing.assert_allclose(np.delete(found, 3), 0.0, atol=1e-5)
    np.testing.assert_allclose(cepstra(np.ones((1, 4, 80), np.float32))[0, 0, :2], [np.sqrt(80.0), 0.0], atol=1e-5)


def test_pieces_equal_whole() -> None:
    """Speech in pieces gives the same motion as speech at once."""
    features = SpeechFeatures.joined([random_features(130), silence(10)])
    stream = SpeechInputStream()
    pieces = np.concatenate([stream.push(features[begin : begin + 7]) for begin in range(0, 140, 7)])
    assert pieces.tobytes() == input_rows(features).tobytes()


def test_lstm_size_limit(models: MotionModels) -> None:
    """The LSTM is no larger than serving can bear."""
    assert HeadModel.of(models).hidden <= 256


def everything_heard(features: SpeechFeatures, num_frames: int, models: MotionModels) -> HeadAnswers:
    steps = head_answers(features, num_frames, models)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answers: HeadAnswers = end.value
            return answers


def test_personalising_finds_speech_to_head(models: MotionModels) -> None:
    """Poses that follow a signal of the speech are learned, and nodded on the same speech again."""
    frames = 250
    features, usable = heard(frames), np.ones(frames, np.bool_)
    answers = everything_heard(features, frames, models)
    smooth = np.convolve(answers.signals[:, 9], np.exp(-np.arange(20) / 3.0), mode="full")[:frames]
    poses = head_poses(frames)
    poses[:, 0] = -0.1 + 0.03 * smooth / smooth.std()
    person = encode_head_style(Footage(talking(frames), usable, poses), models)
    refined = list(personalize(person, features, Footage(talking(frames), usable, poses), models))[-1].style
    assert refined is not None
    before, after = (
        np.corrcoef(poses_of(predict(models, each, features))[50:, 0], poses[50:, 0])[0, 1] for each in (person, refined)
    )
    assert after > 0.5
    assert after > before


def test_footage_with_digital_silence_leaves_the_general_head(models: MotionModels, person: Style) -> None:
    """Nothing is heard, so nothing is learned of the head; no signal counts that does not move the general speaker."""
    footage = Footage(talking(), np.ones(FRAMES, np.bool_), head_poses(FRAMES))
    refined = list(personalize(person, silence_with_states(FRAMES), footage, models))[-1].style
    assert refined is not None
    np.testing.assert_array_equal(refined.added["pose_weights"] != 0.0, general_weights() != 0.0)


def test_personalising_needs_head_style(models: MotionModels, style: Style, person: Style) -> None:
    """Personalising needs a style of the head and two seconds."""
    usable = np.ones(40, np.bool_)
    with pytest.raises(NoUsableFootageError, match="50 usable frames"):
        list(personalize(person, heard(40), Footage(talking(40), usable, head_poses(40)), models))
    with pytest.raises(InvalidRequestError, match="the head moves"):
        list(personalize(style, heard(FRAMES), Footage(talking(), usable, head_poses(FRAMES)), models))


def test_twelve_seconds_are_learned_from_at_most(models: MotionModels, person: Style) -> None:
    frames = MAX_FRAMES + 20
    usable, poses = np.ones(frames, np.bool_), head_poses(frames)
    changed = poses.copy()
    changed[MAX_FRAMES:, :3] += 0.1
    found = [
        list(personalize(person, heard(frames), Footage(talking(frames), usable, each), models))[-1].style
        for each in (poses, changed)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].arrays()["pose_weights"].tobytes() == found[1].arrays()["pose_weights"].tobytes()


def test_one_frame_style_moves_modestly(models: MotionModels, portrait: Style) -> None:
    """One frame is a style of modest movement about it."""
    poses = poses_of(predict(models, portrait, talk(750)))
    degrees = np.degrees(poses[:, :3] - head_poses(1)[0, :3])
    assert 2.0 < np.abs(degrees).max() < 8.0
    assert np.abs(np.diff(degrees, axis=0)).max() < 2.0
    places = (poses[:, 3:5] - head_poses(1)[0, 3:5]) / head_poses(1)[0, 5]
    assert np.abs(places).max() < 15.0
    assert np.abs(poses[:, 5] / head_poses(1)[0, 5] - 1.0).max() < 0.03


def test_an_open_portrait_speaks_from_shut_lips(models: MotionModels) -> None:
    open_mouth = mouths(np.array([9.0], np.float32))
    style = encode_head_style(Footage(open_mouth, np.ones(1, np.bool_), head_poses(1)), models)
    shut = encode_head_style(Footage(mouths(np.zeros(1, np.float32)), np.ones(1, np.bool_), head_poses(1)), models)
    assert float(mouth_opening(style.closed_mouth)) < 1.0
    for one in (style, shut):
        assert float(mouth_opening(one.rest_mouth)) == pytest.approx(STILL_REST_PX, abs=0.5)


def test_smile_stays_in_pauses_only(models: MotionModels) -> None:
    """A smile is less wide in speech, and stays where the lips are shut."""
    smile = mouths(np.zeros(1, np.float32))
    smile[:, :NUM_LIPS, 0] *= 90.0 / lip_width(smile)[0]
    style = encode_head_style(Footage(smile, np.ones(1, np.bool_), head_poses(1)), models)
    assert float(lip_width(style.closed_mouth)) == pytest.approx(90.0, abs=0.5)
    assert float(lip_width(style.rest_mouth)) == pytest.approx(80.0, abs=2.0)
    assert float(mouth_opening(style.rest_mouth)) == pytest.approx(STILL_REST_PX, abs=1.0)


def test_translation_is_in_units_of_the_heads_size(models: MotionModels) -> None:
    near = head_poses(1)
    far = near.copy()
    far[:, 5] *= 0.5
    moved = []
    for pose in (near, far):
        style = encode_head_style(Footage(talking(1), np.ones(1, np.bool_), pose), models)
        moved.append(poses_of(predict(models, style, talk(100)))[:, 3] - pose[0, 3])
    np.testing.assert_allclose(moved[1], 0.5 * moved[0], atol=1e-3)


def test_no_style_moves_as_mean(models: MotionModels, person: Style) -> None:
    """Without style the head moves as the mean speakers."""
    plain = mean_head_speaker(person, models)
    np.testing.assert_array_equal(plain.added["pose_reference"], person.added["pose_reference"])
    assert not np.array_equal(plain.added["pose_quantiles"], person.added["pose_quantiles"])


def test_style_shares_common_arrays(models: MotionModels, style: Style, person: Style) -> None:
    """The other arrays of a style are those of every method."""
    for name, array in style.arrays().items():
        np.testing.assert_array_equal(array, person.arrays()[name])


def test_too_few_or_unusable_refused(models: MotionModels) -> None:
    """Too few frames and an unusable one are refused."""
    with pytest.raises(NoUsableFootageError, match="25 usable frames"):
        encode_head_style(Footage(talking(20), np.ones(20, np.bool_), head_poses(20)), models)
    with pytest.raises(NoUsableFootageError, match="one frame"):
        encode_head_style(Footage(talking(1), np.zeros(1, np.bool_), head_poses(1)), models)
