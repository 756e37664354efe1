"""Tests of the predictor `hetero`: a style holds the person's vectors for the generator, and motion on output timelines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.predictors.hetero.predictor import (
    POSE,
    PREDICTOR,
    REFERENCE,
    WINDOW,
    WINDOW_AHEAD,
    WINDOW_PAST,
    HeteroModel,
    HeteroPredictor,
    personalize,
    relative_mel,
)
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.types import Footage, SpeechFeatures
from tests.refusals import raised
from tests.unit.motion.streams import PAL, mouths_of
from tests.unit.motion.synthesised import random_features


def moved(models: MotionModels, style: Style, features: SpeechFeatures) -> Float32:
    return mouths_of(MotionStream(HeteroPredictor(models, style), PAL), features)


def test_look_ahead_bound(models: MotionModels, person: Style) -> None:
    """Nothing later than the look ahead moves a frame."""
    features, other = random_features(50), random_features(50, seed=1)
    mixed = SpeechFeatures.joined([features[:35], other[35:]])
    first, second = (moved(models, person, each) for each in (features, mixed))
    np.testing.assert_array_equal(first[: 35 - WINDOW_AHEAD], second[: 35 - WINDOW_AHEAD])
    assert not np.array_equal(first[35 - WINDOW_AHEAD :], second[35 - WINDOW_AHEAD :])


def test_the_reference_changes_the_motion(models: MotionModels, person: Style) -> None:
    features = random_features(20)
    other = person.adding(**{REFERENCE: -person.added[REFERENCE]})
    assert not np.array_equal(moved(models, person, features), moved(models, other, features))


def test_silence_is_the_closed_mouth(models: MotionModels, person: Style) -> None:
    found = moved(models, person, silence(40))
    np.testing.assert_allclose(found, np.broadcast_to(person.closed_mouth, found.shape), atol=1e-4)


def test_a_louder_microphone_is_heard_the_same() -> None:
    features = random_features(40)
    louder = SpeechFeatures(features.posteriorgram, features.mel + 3.0, features.speech_probability)
    np.testing.assert_allclose(relative_mel(louder), relative_mel(features), atol=1e-4)


def test_window_look_ahead_200_ms() -> None:
    """A window has the paper's look ahead of 200 ms."""
    assert 40 * WINDOW_AHEAD == 200
    assert WINDOW == WINDOW_PAST + 1 + WINDOW_AHEAD


def refined(style: Style, footage: Footage, models: MotionModels) -> Style:
    *steps, last = personalize(style, random_features(len(footage.usable)), footage, models)
    assert all(step.style is None for step in steps)
    assert last.style is not None
    return last.style


def test_the_vectors_of_an_encoded_style_stay(models: MotionModels, person: Style, footage: Footage) -> None:
    assert refined(person, footage, models) is person


def test_foreign_style_gets_reference(models: MotionModels, style: Style, person: Style, footage: Footage) -> None:
    """A style of another method gets its reference from the footage."""
    found = refined(style, footage, models)
    np.testing.assert_array_equal(found.added[REFERENCE], person.added[REFERENCE])


def test_two_seconds_are_needed(models: MotionModels, person: Style, footage: Footage) -> None:
    few = Footage(footage.mouth_landmarks, np.arange(100) < 49)
    with pytest.raises(NoUsableFootageError, match="50 usable frames"):
        refined(person, few, models)


def test_style_has_reference_and_pose(models: MotionModels, person: Style) -> None:
    """A style has the vectors of reference and pose."""
    size = HeteroModel.of(models).mean_reference.shape
    assert person.added[REFERENCE].shape == person.added[POSE].shape == size


def test_other_mouth_same_pose(models: MotionModels, footage: Footage, person: Style) -> None:
    """Another mouth is another reference and the same pose."""
    wider = replace(footage, mouth_landmarks=footage.mouth_landmarks * np.float32(1.2))
    other = PREDICTOR.encode_style(wider, models)
    assert not np.array_equal(other.added[REFERENCE], person.added[REFERENCE])
    np.testing.assert_array_equal(other.added[POSE], person.added[POSE])


def test_missing_pose_landmarks_mean_face(models: MotionModels, footage: Footage, person: Style) -> None:
    """Missing pose landmarks are those of the mean face."""
    mean = np.repeat(HeteroModel.of(models).mean_face[None], len(footage.usable), axis=0)
    missing, given = (PREDICTOR.encode_style(replace(footage, pose_landmarks=each), models) for each in (None, mean))
    np.testing.assert_allclose(missing.added[POSE], given.added[POSE], atol=1e-5)
    assert not np.array_equal(missing.added[POSE], person.added[POSE])


def test_unusable_frames_are_not_looked_at(models: MotionModels, footage: Footage) -> None:
    usable = np.arange(100) < 60
    broken = footage.mouth_landmarks.copy()
    broken[60:] = 1e4
    upper = footage.pose_landmarks
    assert upper is not None
    spoiled = upper.copy()
    spoiled[60:] = 1e4
    first = PREDICTOR.encode_style(replace(footage, usable=usable), models)
    second = PREDICTOR.encode_style(Footage(broken, usable, pose_landmarks=spoiled), models)
    for name in (REFERENCE, POSE):
        np.testing.assert_array_equal(first.added[name], second.added[name])


def test_too_few_frames_are_refused(models: MotionModels, footage: Footage) -> None:
    with pytest.raises(NoUsableFootageError, match="25 usable frames"):
        PREDICTOR.encode_style(replace(footage, usable=np.arange(100) < 10), models)


def test_foreign_style_tells_remedy(models: MotionModels, style: Style) -> None:
    """A style of another method is refused with what to do."""
    with raised(InvalidRequestError, match="encode the style with method `hetero`", field="style"):
        HeteroPredictor(models, style)


def test_mean_speaker_keeps_face(models: MotionModels, person: Style) -> None:
    """The mean speaker replaces the vectors and keeps the face."""
    mean, model = PREDICTOR.mean_style(person, models), HeteroModel.of(models)
    np.testing.assert_array_equal(mean.mean_mouth, person.mean_mouth)
    np.testing.assert_array_equal(mean.added[REFERENCE], model.mean_reference)
    np.testing.assert_array_equal(mean.added[POSE], model.mean_pose)
