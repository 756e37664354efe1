from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.reports.fitting_sheet import COLUMNS, TrackedPicture, fitting_sheet
from services.common.face.crops import HeadPose, to_frame
from services.common.face.identity import FaceIdentity
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import matrix_from_euler
from tests.unit.render.drawn_person import person


@pytest.fixture
def identity() -> FaceIdentity:
    """The mean person with a red texture."""
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[..., 0] = 200
    return replace(person(), texture=texture, landmark_error=0.1, photometric_error=1.0)


def tracked(expression: float, yaw_degrees: float) -> TrackedPicture:
    model = default_model()
    coefficients = np.zeros(model.num_expression, np.float32)
    coefficients[0] = expression
    shape = model.shape(np.zeros(model.num_identity, np.float32), coefficients)
    turn = np.asarray(matrix_from_euler(np.array([0.0, np.radians(yaw_degrees), 0.1])))
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[:468] = to_frame(shape, HeadPose(0.8, turn, np.array([150.0, 170.0, 0.0])))
    return TrackedPicture(np.full((320, 300, 3), 90, np.uint8), landmarks)


def test_a_frame_has_a_row_with_the_mesh_and_the_drawn_faces(identity: FaceIdentity) -> None:
    sheet = fitting_sheet(identity, [tracked(0.0, 0.0), tracked(3.0, 20.0)])
    assert sheet is not None
    assert sheet.shape == (2 * 256, len(COLUMNS) * 256, 3)
    for row in np.split(sheet, 2):
        crop, mesh, plain, detailed, alone = np.split(row, len(COLUMNS), axis=1)
        assert (crop == 90).all()
        green = (mesh[..., 1].astype(int) - mesh[..., 0]) > 60
        assert 0.02 < green.mean() < 0.5
        assert (plain != crop).any(axis=2).mean() > 0.2
        red = (detailed[..., 0] > 60) & (detailed[..., 1] < 10)
        assert 0.2 < red.mean() < 0.8
        assert (alone[~red] == 0).all()


def test_the_mesh_follows_expression_and_pose(identity: FaceIdentity) -> None:
    still, same, open_mouth = (
        fitting_sheet(identity, [frame]) for frame in (tracked(0.0, 0.0), tracked(0.0, 0.0), tracked(6.0, 0.0))
    )
    assert still is not None
    assert open_mouth is not None
    np.testing.assert_array_equal(still, same)
    assert (still != open_mouth).any(axis=2).mean() > 0.02


def test_there_is_no_sheet_without_frames_or_for_another_model(identity: FaceIdentity) -> None:
    assert fitting_sheet(identity, []) is None
    assert fitting_sheet(replace(identity, model="bfm"), [tracked(0.0, 0.0)]) is None
