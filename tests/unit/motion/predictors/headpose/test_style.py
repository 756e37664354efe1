"""Styles from footage and from one frame."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.errors import NoUsableFootage
from services.common.face.landmarks import mouth_opening
from services.motion.models import MotionModels
from services.motion.predictors.headpose.style import encode_head_style, mean_head_speaker
from services.motion.style import Style
from services.motion.types import Footage
from tests.unit.motion.predictors.headpose.person import poses_of, predict, talk, talking
from tests.unit.motion.synthesised import head_poses, mouths


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
    style = encode_head_style(Footage(open_mouth, np.ones(1, np.bool_), head_poses(1)), models)
    shut = encode_head_style(Footage(mouths(np.zeros(1, np.float32)), np.ones(1, np.bool_), head_poses(1)), models)
    assert float(mouth_opening(style.closed_mouth)) < 1.0
    assert float(mouth_opening(style.rest_mouth)) < 3.0
    assert abs(float(mouth_opening(style.rest_mouth)) - float(mouth_opening(shut.rest_mouth))) < 2.5


def test_translation_is_in_units_of_the_heads_size(models: MotionModels) -> None:
    near = head_poses(1)
    far = near.copy()
    far[:, 5] *= 0.5
    moved = []
    for pose in (near, far):
        style = encode_head_style(Footage(talking(1), np.ones(1, np.bool_), pose), models)
        moved.append(poses_of(predict(models, style, talk(100)))[:, 3] - pose[0, 3])
    np.testing.assert_allclose(moved[1], 0.5 * moved[0], atol=1e-3)


def test_without_style_the_head_moves_as_the_mean_speakers(models: MotionModels, person: Style) -> None:
    plain = mean_head_speaker(person, models)
    np.testing.assert_array_equal(plain.added["pose_reference"], person.added["pose_reference"])
    assert not np.array_equal(plain.added["pose_quantiles"], person.added["pose_quantiles"])


def test_the_other_arrays_of_a_style_are_those_of_every_method(models: MotionModels, style: Style, person: Style) -> None:
    for name, array in style.arrays().items():
        np.testing.assert_array_equal(array, person.arrays()[name])


def test_too_few_frames_and_an_unusable_one_are_refused(models: MotionModels) -> None:
    with pytest.raises(NoUsableFootage, match="25 usable frames"):
        encode_head_style(Footage(talking(20), np.ones(20, np.bool_), head_poses(20)), models)
    with pytest.raises(NoUsableFootage, match="one frame"):
        encode_head_style(Footage(talking(1), np.zeros(1, np.bool_), head_poses(1)), models)
