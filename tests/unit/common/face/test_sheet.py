"""The row of pictures of a fitted face."""

import numpy as np
import pytest

from services.common.face.crops import HeadPose, crop_from_frame
from services.common.face.drawing import FaceMesh
from services.common.face.identity import FaceIdentity
from services.common.face.sheet import camera_in_crop, fitting_row
from services.common.geometry.default_model import default_model
from services.common.geometry.lighting import ambient
from services.common.geometry.rotations import matrix_from_euler

MODEL = default_model()
POSE = HeadPose(1.7, matrix_from_euler(np.radians([5.0, -12.0, 20.0])), np.array([300.0, 280.0, 0.0]))


def test_the_camera_in_the_crop_sees_what_the_crop_shows():
    affine = crop_from_frame(POSE)
    in_frame = POSE.scale * MODEL.mean_shape @ POSE.rotation.T + POSE.translation
    in_crop = camera_in_crop(POSE, affine).project(MODEL.mean_shape.astype(np.float64))
    assert in_crop[:, :2] == pytest.approx(in_frame[:, :2] @ affine[:, :2].T + affine[:, 2], abs=1e-3)


def test_a_row_shows_the_face_the_mesh_and_both_albedos():
    identity = FaceIdentity(
        model="mediapipe_468",
        model_digest=MODEL.digest,
        identity=np.zeros(20, np.float32),
        offset=np.zeros((468, 3), np.float32),
        albedo=np.zeros(12, np.float32),
        light=ambient(),
        texture=np.full((32, 32, 3), [200, 100, 50], np.uint8),
        seen=np.full((32, 32), 255, np.uint8),
        num_frames=1,
        landmark_error=0.0,
        photometric_error=0.0,
    )
    picture = np.full((540, 640, 3), 90, np.uint8)
    row = fitting_row(picture, POSE, np.zeros(64, np.float32), identity, FaceMesh.of(MODEL))
    assert row.shape == (256, 1280, 3)
    crop, mesh, plain, laid, alone = np.split(row, 5, axis=1)
    assert (crop == 90).all()
    assert (mesh[..., 1].astype(int) - mesh[..., 0] > 60).sum() > 1000
    assert (plain != crop).any(-1).mean() > 0.2
    face = alone.any(-1)
    assert np.array_equal(laid[face], alone[face])
    assert np.array_equal(laid[~face], crop[~face])
    assert alone[150, 128] == pytest.approx([200, 100, 50], abs=1)
