"""Faces as pictures: albedo times shading, seen through a camera."""

import numpy as np

from services.common.face.drawing import FaceMesh, draw_detailed_face, draw_face
from services.common.geometry.camera import Perspective, WeakPerspective
from services.common.geometry.default_model import default_model
from services.common.geometry.lighting import ambient

MODEL = default_model()
MESH = FaceMesh.of(MODEL)
SHAPE = MODEL.mean_shape.astype(np.float64)
CAMERA = WeakPerspective(np.float64(1.0), np.eye(3), np.array([128.0, 160.0, 0.0]))
SIZE = (256, 256)


def test_under_ambient_light_a_face_has_the_colour_of_its_albedo():
    albedo = np.broadcast_to([0.8, 0.6, 0.4], SHAPE.shape)
    face = draw_face(MESH, SHAPE, CAMERA, albedo, ambient((0.5, 0.5, 0.5)), SIZE)
    assert np.abs(face.picture[face.covered] - [102.0, 76.5, 51.0]).max() < 0.01
    assert not face.picture[~face.covered].any()
    assert 0.3 < face.covered.mean() < 0.7


def test_light_from_the_right_brightens_the_right():
    light = ambient()
    light[3] = 1.0  # along x
    face = draw_face(MESH, SHAPE, CAMERA, np.full(SHAPE.shape, 0.4), light, SIZE)
    left, right = (np.where(face.covered, face.picture[..., 0], np.nan)[100:130, part] for part in (slice(60, 80), slice(176, 196)))
    assert np.nanmean(right) > np.nanmean(left) + 20.0


def test_a_texture_of_one_colour_draws_as_that_albedo():
    texture = np.full((64, 64, 3), 128, np.uint8)
    detailed = draw_detailed_face(MESH, SHAPE, CAMERA, texture, ambient(), SIZE)
    plain = draw_face(MESH, SHAPE, CAMERA, np.full(SHAPE.shape, 128.0 / 255.0), ambient(), SIZE)
    assert np.array_equal(detailed.covered, plain.covered)
    assert np.abs(detailed.picture - plain.picture).max() < 0.01


def test_the_open_mouth_has_no_skin():
    with_mouth = FaceMesh.of(MODEL, without=())
    opened = MODEL.shape(np.zeros(20), np.eye(64)[0] * 3.0)
    if np.ptp(opened[[13, 14], 1]) < 5.0:
        opened = MODEL.shape(np.zeros(20), np.eye(64)[0] * -3.0)
    grey = np.full(SHAPE.shape, 0.5)
    whole, hollow = (draw_face(mesh, opened, CAMERA, grey, ambient(), SIZE).covered for mesh in (with_mouth, MESH))
    assert (whole & ~hollow).sum() > 50
    assert not (hollow & ~whole).any()


def test_both_cameras_draw():
    pinhole = Perspective(np.float64(4000.0), np.array([128.0, 160.0]), np.eye(3), np.array([0.0, 0.0, 4000.0]))
    grey = np.full(SHAPE.shape, 0.5)
    far, weak = (draw_face(MESH, SHAPE, camera, grey, ambient(), SIZE).covered for camera in (pinhole, CAMERA))
    assert (far ^ weak).mean() < 0.02


def test_the_layout_is_made_once():
    assert MESH.layout(32) is MESH.layout(32)
    assert MESH.layout(64).size == (64, 64)
