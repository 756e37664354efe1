"""Albedo: colours sampled from a picture, and light taken out of them."""

import numpy as np
import pytest

from services.common.face.crops import HeadPose
from services.common.face.landmarks import FACE_OVAL
from services.common.geometry.default_model import default_model
from services.common.geometry.lighting import ambient, shading
from services.common.geometry.normals import vertex_normals
from services.face.train import albedo
from services.face.train.face_mesh_topology import mirror_map

MODEL = default_model()
SHAPE = MODEL.mean_shape.astype(np.float64)
NORMALS = vertex_normals(SHAPE, MODEL.triangles)
RANDOM = np.random.default_rng(12)


def test_colours_are_sampled_at_the_projected_vertices():
    x, y = np.meshgrid(np.arange(400), np.arange(400))
    picture = np.stack([x / 2, y / 2, 0 * x + 100], -1).astype(np.uint8)
    pose = HeadPose(1.0, np.eye(3), np.array([200.0, 250.0, 0.0]))
    colours = albedo.sample_colours(picture, SHAPE, pose)
    assert colours[4, 0] * 255 == pytest.approx((SHAPE[4, 0] + 200) / 2, abs=1.0)
    assert colours[4, 1] * 255 == pytest.approx((SHAPE[4, 1] + 250) / 2, abs=1.0)


def test_hidden_vertices_continue_their_neighbours():
    colours = np.broadcast_to(0.3 + 0.001 * SHAPE[:, 1:2], (1, 468, 3)).copy()
    weights = np.ones((1, 468))
    weights[0, 50] = 0.1
    spoilt = colours.copy()
    spoilt[0, [50, *FACE_OVAL]] = 9.0
    filled = albedo.filled_from_seen(spoilt, weights, MODEL.triangles)
    assert filled.max() < 0.5
    assert filled[0, 50] == pytest.approx(colours[0, 50], abs=0.02)
    kept = np.setdiff1d(np.arange(468), [50, *FACE_OVAL])
    assert np.array_equal(filled[:, kept], colours[:, kept])


def test_light_from_the_side_is_taken_out_of_symmetric_faces():
    mirror = mirror_map(SHAPE)
    skin = RANDOM.uniform(0.3, 0.6, (6, 1, 3)) * np.ones((6, 468, 1)) + 0.02 * RANDOM.normal(size=(1, 468, 3))
    skin = (skin + skin[:, mirror]) / 2
    light = np.repeat(ambient()[None].astype(np.float64), 6, 0)
    light[:, 3] += np.linspace(-0.8, 0.8, 6)[:, None]  # from the left to the right
    normals = np.repeat(NORMALS[None], 6, 0)
    colours = skin * shading(normals, light)
    found = albedo.separate_light(colours, normals, np.ones((6, 468)), mirror)
    seen = NORMALS[:, 2] < -0.5

    def lopsided(values):
        return np.abs(values - values[:, mirror])[:, seen].mean() / values[:, seen].mean()

    assert lopsided(found) < 0.25 * lopsided(colours)
