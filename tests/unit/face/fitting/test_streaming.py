"""Coefficients of a stream's faces: one identity a face, no lag, less jitter than the measurement."""

import numpy as np
import pytest

from services.common.face.crops import fit_head_pose, to_frame, weak_perspective_of
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import geodesic_angle
from services.face.fitting.model import model_landmarks
from services.face.fitting.streaming import StreamFitter
from services.face.smoothing import raw_face
from tests.unit.common.face.people import mean_person
from tests.unit.face.fitting.synthetic_face import relative_expression_error, scene

FACE = model_landmarks(default_model())
SCENE = scene()
READINGS = [raw_face(points.astype(np.float32)) for points in SCENE.landmarks()]
HALF_WIDTH = 3


def known():
    return mean_person(
        identity=SCENE.identity.astype(np.float32),
        albedo=SCENE.albedo.astype(np.float32),
        light=SCENE.light.astype(np.float32),
    )


def run(fitter, readings=READINGS, half_width=HALF_WIDTH, face_id=0):
    found = []
    for frame in range(len(readings)):
        first = max(0, frame - half_width)
        found.append(fitter.coefficients(face_id, first, readings[first : frame + half_width + 1], frame - first, half_width))
    return found


def test_frames_of_a_known_person_are_recovered():
    found = run(StreamFitter(FACE, known()))
    assert relative_expression_error(np.stack([each.expression for each in found]), SCENE.expression) < 0.05
    rotation = np.stack([each.pose.rotation for each in found])
    assert np.degrees(geodesic_angle(rotation, SCENE.weak.rotation)).max() < 0.5
    assert max(each.landmark_error for each in found) < 0.3
    assert np.array_equal(found[0].albedo, SCENE.albedo.astype(np.float32))
    assert np.array_equal(found[0].light, SCENE.light.astype(np.float32))


def test_first_frames_give_identity():
    """Without an identity, the first frames give one, and it stays."""
    found = run(StreamFitter(FACE))
    assert all(np.array_equal(each.identity, found[0].identity) for each in found)
    assert np.abs(found[0].identity).max() > 0.1
    assert max(each.landmark_error for each in found) < 1.5
    assert found[0].albedo is None
    assert found[0].light is None
    other = StreamFitter(FACE)
    later = run(other, READINGS[20:])
    assert not np.array_equal(later[0].identity, found[0].identity)


def test_faces_do_not_share_identity():
    """Faces do not share an identity that was not given."""
    fitter = StreamFitter(FACE)
    first = run(fitter, READINGS[:8], face_id=0)
    second = run(fitter, [raw_face(p.astype(np.float32)) for p in scene(seed=1).landmarks()][:8], face_id=1)
    assert not np.array_equal(first[0].identity, second[0].identity)


def test_a_still_face_jitters_less_than_its_measurement():
    random = np.random.default_rng(5)
    still = np.repeat(SCENE.landmarks(0.0)[:1], 30, axis=0)
    noisy = still + np.concatenate([0.13 * random.normal(size=still.shape)], -1)
    noisy += 0.2 * random.normal(size=(30, 1, 3))  # the whole face trembles
    readings = [raw_face(points.astype(np.float32)) for points in noisy]
    found = run(StreamFitter(FACE, known()), readings)
    expression = np.stack([each.expression for each in found])
    projected = weak_perspective_of([each.pose for each in found]).project(default_model().shape(SCENE.identity, expression))

    def jitter(points):
        return np.sqrt((np.diff(points[3:-3, :468, :2], axis=0) ** 2).sum(-1).mean())

    assert jitter(projected) < 0.5 * jitter(noisy)


def test_without_look_ahead_every_frame_stands_for_itself():
    found = run(StreamFitter(FACE, known()), READINGS[:6], half_width=0)
    alone = StreamFitter(FACE, known()).coefficients(0, 4, READINGS[4:5], 0, 0)
    assert np.array_equal(found[4].expression, alone.expression)
    assert np.array_equal(found[4].pose.rotation, alone.pose.rotation)


def test_fit_pose_near_head_pose():
    """The pose of the fit is near the head's own."""
    for each, points in zip(run(StreamFitter(FACE))[:10], SCENE.landmarks()[:10], strict=True):
        own = fit_head_pose(points)
        assert np.degrees(geodesic_angle(each.pose.rotation, own.rotation)) < 4.0
        assert each.pose.scale == pytest.approx(own.scale, rel=0.05)
        assert to_frame(np.zeros(3), each.pose)[:2] == pytest.approx(to_frame(np.zeros(3), own)[:2], abs=6.0)
