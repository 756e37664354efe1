"""The committed model: it is a face, on MediaPipe's mesh, and its bases are what they say."""

import numpy as np
import pytest

from services.common.face.correspondences import IBUG_68
from services.common.face.crops import fit_head_pose, head_template
from services.common.face.landmarks import MOUTH_AREA, NUM_MOUTH_AREA, mouth_opening
from services.common.geometry.default_model import WEIGHTS, default_model
from services.common.geometry.normals import face_normals, vertex_normals

MODEL = default_model()


def test_sizes_and_file():
    assert MODEL.num_vertices == 468
    assert len(MODEL.triangles) == 898
    assert MODEL.num_expression >= 29
    assert WEIGHTS.stat().st_size < 2_000_000
    assert "Apache-2.0" in MODEL.licence


def test_the_mean_face_is_in_head_space():
    pose = fit_head_pose(MODEL.mean_shape)
    assert pose.scale == pytest.approx(1.0, abs=0.02)
    assert pose.rotation == pytest.approx(np.eye(3), abs=0.03)
    assert np.linalg.norm(MODEL.mean_shape - head_template(), axis=1).mean() < 3.0


def test_the_mean_face_is_symmetric():
    mirror = np.linalg.norm((MODEL.mean_shape * [-1, 1, 1])[:, None] - MODEL.mean_shape[None], axis=-1).min(1)
    assert mirror.max() < 1e-3


def test_triangles_face_outwards_and_close_the_mesh_once():
    assert vertex_normals(MODEL.mean_shape, MODEL.triangles)[4, 2] < -0.8  # the tip of the nose looks at the camera
    front = face_normals(MODEL.mean_shape, MODEL.triangles)[:, 2] < 0
    assert front.mean() > 0.9
    sides = np.concatenate([MODEL.triangles[:, [i, (i + 1) % 3]] for i in range(3)])
    assert len(np.unique(sides, axis=0)) == len(sides)
    open_sides = {tuple(s) for s in sides.tolist()} - {(b, a) for a, b in sides.tolist()}
    assert len(open_sides) == 36  # only the face oval


def test_the_texture_layout_has_no_folds_and_keeps_up_and_left():
    corners = MODEL.uv[MODEL.uv_triangles]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    signed = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    assert (signed < 0).all()
    assert MODEL.uv.min() >= 0.0
    assert MODEL.uv.max() <= 1.0
    assert MODEL.uv[10, 1] < MODEL.uv[152, 1]  # forehead above chin
    assert MODEL.uv[234, 0] < MODEL.uv[454, 0]  # the subject's right ear at the left


def test_bases_are_orthogonal_under_their_metric():
    for basis in (MODEL.identity_basis, MODEL.expression_basis):
        flat = (basis * np.sqrt([1.0, 1.0, 0.5])[:, None]).reshape(-1, basis.shape[-1]).astype(np.float64)
        lengths = np.linalg.norm(flat, axis=0)
        cosines = flat.T @ flat / np.outer(lengths, lengths)
        assert cosines == pytest.approx(np.eye(len(lengths)), abs=1e-3)
        assert (np.diff(lengths) < 1e-4).all()  # the strongest first


def test_the_first_expression_opens_the_mouth_and_leaves_the_forehead():
    expression = np.zeros(MODEL.num_expression)
    expression[0] = 2.0
    shape = MODEL.shape(np.zeros(MODEL.num_identity), expression)
    points = MODEL.landmark_set("mouth_area")
    assert mouth_opening(points.of(shape)) > mouth_opening(points.of(MODEL.mean_shape)) + 5.0
    assert np.linalg.norm(shape - MODEL.mean_shape, axis=1)[[9, 10, 151]].max() < 2.0


def test_landmark_sets_are_the_meshs_own_points():
    assert MODEL.landmark_set("mouth_area").mediapipe.tolist() == list(MOUTH_AREA)
    assert len(MODEL.landmark_set("mouth_area")) == NUM_MOUTH_AREA
    assert MODEL.landmark_set("ibug_68").vertices[:, 0].tolist() == list(IBUG_68)
    assert np.array_equal(MODEL.landmark_set("mediapipe").of(MODEL.mean_shape), MODEL.mean_shape)


def test_the_mean_albedo_is_skin():
    mean = MODEL.albedo(np.zeros(MODEL.num_albedo))
    cheek = mean[[205, 425]].mean(0)
    assert cheek[0] > cheek[1] > cheek[2] > 0.1
    assert mean.min() >= 0.0
    assert mean.max() <= 1.0
