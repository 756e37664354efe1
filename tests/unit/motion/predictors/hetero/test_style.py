"""The style carries what the generator knows of the person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import InvalidRequest, NoUsableFootage
from services.motion.models import MotionModels
from services.motion.predictors.hetero.grid import HeteroGrid
from services.motion.predictors.hetero.model import HeteroModel
from services.motion.predictors.hetero.predictor import PREDICTOR
from services.motion.predictors.hetero.style import POSE, REFERENCE
from services.motion.style import Style
from services.motion.types import Footage


def test_a_style_has_the_vectors_of_reference_and_pose(models: MotionModels, person: Style) -> None:
    size = HeteroModel.of(models).mean_reference.shape
    assert person.added[REFERENCE].shape == person.added[POSE].shape == size


def test_another_mouth_is_another_reference_and_the_same_pose(models: MotionModels, footage: Footage, person: Style) -> None:
    wider = replace(footage, mouth_landmarks=footage.mouth_landmarks * np.float32(1.2))
    other = PREDICTOR.encode_style(wider, models)
    assert not np.array_equal(other.added[REFERENCE], person.added[REFERENCE])
    np.testing.assert_array_equal(other.added[POSE], person.added[POSE])


def test_missing_pose_landmarks_are_those_of_the_mean_face(models: MotionModels, footage: Footage, person: Style) -> None:
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
    with pytest.raises(NoUsableFootage, match="25 usable frames"):
        PREDICTOR.encode_style(replace(footage, usable=np.arange(100) < 10), models)


def test_a_style_of_another_method_is_refused_with_what_to_do(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequest, match="encode the style with method `hetero`") as caught:
        HeteroGrid(models, style)
    assert caught.value.field == "style"


def test_the_mean_speaker_replaces_the_vectors_and_keeps_the_face(models: MotionModels, person: Style) -> None:
    mean, model = PREDICTOR.mean_style(person, models), HeteroModel.of(models)
    np.testing.assert_array_equal(mean.mean_mouth, person.mean_mouth)
    np.testing.assert_array_equal(mean.added[REFERENCE], model.mean_reference)
    np.testing.assert_array_equal(mean.added[POSE], model.mean_pose)
