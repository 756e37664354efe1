"""Landmark fitting on a face of known coefficients, with the tracker's noise."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from services.common.geometry.camera import WeakPerspective
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import geodesic_angle
from services.face.fitting import frames
from services.face.fitting.frames import fit_frames, moved_cameras, pose_columns, start_cameras
from services.face.fitting.model import model_landmarks
from services.face.fitting.person import MIN_FRAMES_TO_MEASURE, fit_clip, neutral_frames
from tests.unit.common.geometry.small_models import small_model
from tests.unit.face.fitting.synthetic_face import relative_expression_error, scene

FACE = model_landmarks(default_model())
SCENE = scene()


def degrees(found, true):
    return np.degrees(geodesic_angle(found.rotation, true.rotation)).max()


@cache
def plain_clip():
    return fit_clip(FACE, SCENE.landmarks())


def test_a_clip_of_an_unknown_person_is_recovered():
    clip = plain_clip()
    assert clip.is_measured
    assert degrees(clip.frames.camera, SCENE.weak) < 0.2
    assert relative_expression_error(clip.frames.expression, SCENE.expression) < 0.05
    assert clip.frames.error.max() < 0.25
    neutral = FACE.base(clip.person.identity, clip.person.offset)
    true = default_model().shape(SCENE.identity, np.zeros(64))
    assert np.linalg.norm(neutral - true, axis=1).mean() < 0.8


def test_pose_columns_are_derivatives():
    """Each column is the change of the projection, crop pixels, by a small step of its number."""
    points, camera = FACE.base(SCENE.identity), SCENE.weak

    def at(change):
        return moved_cameras(camera, change).project(points) / camera.scale[:, None, None]

    columns = pose_columns(points @ camera.rotation.mT)
    for axis in range(7):
        step = np.zeros((len(camera.scale), 7))
        step[:, axis] = 1e-5
        np.testing.assert_allclose(columns[..., axis], (at(step) - at(-step)) / 2e-5, atol=1e-4, err_msg=str(axis))


def test_single_frames_equal_batch():
    """Frames of a known person are fitted one by one as all at once."""
    base = FACE.base(SCENE.identity)
    image = FACE.measured(SCENE.landmarks())
    start = start_cameras(FACE, base, image)
    together = fit_frames(FACE, base, image, start)
    assert degrees(together.camera, SCENE.weak) < 0.2
    assert relative_expression_error(together.expression, SCENE.expression) < 0.05
    alone = fit_frames(FACE, base, image[7:8], start_cameras(FACE, base, image[7:8]))
    assert alone.expression[0] == pytest.approx(together.expression[7], abs=2e-3)


def test_wild_landmarks_pull_nothing():
    """A few wild landmarks pull no pose and no expression."""
    tracked = SCENE.landmarks()
    base = FACE.base(SCENE.identity)
    clean = FACE.measured(tracked)
    wild = clean.copy()
    wild[:, [50, 187, 280, 411]] += [25.0, -20.0, 10.0]
    found = fit_frames(FACE, base, wild, start_cameras(FACE, base, clean))
    assert degrees(found.camera, SCENE.weak) < 0.5
    assert relative_expression_error(found.expression, SCENE.expression) < 0.1


def test_the_neutral_frames_are_those_with_closed_lips():
    chosen = neutral_frames(SCENE.landmarks(), SCENE.weak.scale)
    assert chosen.sum() >= 5
    assert set(np.flatnonzero(chosen)) <= set(range(0, 40, 4))


def test_still_falls_back_to_prior():
    """A still picture leaves identity and expression to the prior."""
    clip = fit_clip(FACE, SCENE.landmarks()[:1])
    assert not clip.is_measured
    assert clip.frames.error[0] < 0.3
    assert degrees(clip.frames.camera, WeakPerspective(*(part[:1] for part in dataclasses.astuple(SCENE.weak)))) < 1.0
    assert np.abs(clip.person.identity).max() < 4.0
    assert MIN_FRAMES_TO_MEASURE > 1


def test_unexplained_shape_becomes_offset():
    """An own shape that no basis holds becomes the offset."""
    lump = np.zeros((468, 3))
    lump[[205, 50, 425, 280], 0] = 6.0  # both cheeks to one side
    shifted = dataclasses.replace(SCENE, shapes=SCENE.shapes + lump)
    clip = fit_clip(FACE, shifted.landmarks())
    assert clip.frames.error.max() < 0.3
    assert (clip.person.offset - plain_clip().person.offset)[[205, 50, 425, 280], 0].mean() > 3.0


def test_sparse_model_without_offset(monkeypatch):
    """A model with few landmarks and other deviations is fitted without an offset."""
    model = small_model()
    face = model_landmarks(model, "mine")
    assert face.name == "mine"
    assert face.is_whole_mesh  # all of its vertices are landmarks
    few = dataclasses.replace(model, landmarks={"mediapipe": model.landmark_set("mediapipe").select(np.arange(0, 60, 2))})
    face = model_landmarks(few)
    random = np.random.default_rng(0)
    expression = random.normal(size=(30, 4)) * few.expression_deviation
    identity = random.normal(size=3) * few.identity_deviation
    rotation = np.broadcast_to(np.eye(3), (30, 3, 3))
    camera = WeakPerspective(np.full(30, 1.5), rotation, np.full((30, 3), 100.0))
    tracked = np.zeros((30, 478, 3))
    landmarks = few.landmark_set("mediapipe")
    tracked[:, landmarks.mediapipe] = camera.project(landmarks.of(few.shape(identity, expression)))
    base = face.base(identity)
    monkeypatch.setattr(frames, "_RIDGE", 1e-3)
    monkeypatch.setattr(frames, "_ITERATIONS", 6)
    found = fit_frames(face, base, face.measured(tracked), camera)
    assert found.expression == pytest.approx(expression, abs=0.05)
    assert not fit_clip(face, tracked).person.offset.any()
