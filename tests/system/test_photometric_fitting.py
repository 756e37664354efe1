"""Light, albedo and geometry from the colours of a rendered face of known coefficients."""

import numpy as np
import pytest

from services.common.geometry.camera import WeakPerspective
from services.common.geometry.lighting import shading
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import geodesic_angle
from services.face.fitting import photometric
from services.face.fitting.frames import FrameFits, fit_frames, start_cameras
from services.face.fitting.model import model_landmarks, shading_slope, surface_of
from services.face.fitting.person import PersonShape, fit_clip
from services.face.fitting.photometric import PhotometricProblem
from tests.unit.face.fitting.synthetic_face import relative_expression_error, scene

MODEL = default_model()
FACE = model_landmarks(MODEL)
SURFACE = surface_of(MODEL)
SCENE = scene()
ROWS = np.arange(0, 40, 7)


def problem(noise_px):
    tracked = SCENE.landmarks(noise_px)
    clip = fit_clip(FACE, tracked)
    camera = clip.frames.camera
    frames = FrameFits(
        clip.frames.expression[ROWS],
        WeakPerspective(camera.scale[ROWS], camera.rotation[ROWS], camera.translation[ROWS]),
        clip.frames.error[ROWS],
    )
    landmarks = FACE.measured(tracked)[ROWS]
    return PhotometricProblem(
        FACE, SURFACE, clip.person, frames, landmarks, SCENE.pictures(ROWS), identity_is_measured=clip.is_measured
    )


def shading_error(fit):
    """Relative difference of shadings where the face is seen, after aligning one factor a channel."""
    weak = SCENE.weak
    camera = WeakPerspective(weak.scale[ROWS], weak.rotation[ROWS], weak.translation[ROWS])
    normals = SURFACE.mesh.camera_normals(SCENE.shapes[ROWS], camera)
    seen = normals[..., 2] < -0.2
    true = shading(normals, SCENE.light)[seen]
    found = np.concatenate([shading(normals[t], fit.light[t])[seen[t]] for t in range(len(ROWS))])
    factor = (true * found).sum(0) / (found * found).sum(0)
    return np.linalg.norm(found * factor - true) / np.linalg.norm(true)


def test_a_rendered_face_is_recovered():
    fit = problem(0.13).solve()
    assert np.degrees(geodesic_angle(fit.camera.rotation, SCENE.weak.rotation[ROWS])).max() < 0.5
    assert relative_expression_error(fit.expression, SCENE.expression[ROWS]) < 0.05
    assert shading_error(fit) < 0.05
    assert fit.photometric_error.mean() < 2.0
    assert fit.landmark_error.max() < 0.3


def test_colours_correct_shifted_landmarks(monkeypatch):
    """Colours bring back a face whose landmarks are all off to one side."""
    person = PersonShape(SCENE.identity.astype(np.float32), np.zeros((468, 3), np.float32))
    base = FACE.base(person.identity)
    landmarks = FACE.measured(SCENE.landmarks())[ROWS] + [2.0, 0.0, 0.0]
    frames = fit_frames(FACE, base, landmarks, start_cameras(FACE, base, landmarks))
    true = SCENE.weak.project(SCENE.shapes)[ROWS][..., :2]

    def off():
        problem = PhotometricProblem(FACE, SURFACE, person, frames, landmarks, SCENE.pictures(ROWS), identity_is_measured=True)
        fit = problem.solve()
        assert fit.identity == pytest.approx(person.identity, abs=1e-4)
        projected = fit.camera.project(MODEL.shape(fit.identity, fit.expression))[..., :2]
        return np.linalg.norm(projected - true, axis=-1).mean()

    monkeypatch.setattr(photometric, "_ITERATIONS", 0)
    assert off() == pytest.approx(2.0, abs=0.1)
    for name, value in (("_ITERATIONS", 12), ("_SIGMA", 2.0), ("_LANDMARK_PX", 4.0)):
        monkeypatch.setattr(photometric, name, value)
    assert off() < 1.0


def test_the_albedo_found_is_the_faces_own():
    fit = problem(0.0).solve()
    found, true = MODEL.albedo(fit.albedo), MODEL.albedo(SCENE.albedo)
    skin = np.unique(SURFACE.mesh.triangles)

    def off(albedo):
        factor = (albedo * true)[skin].sum(0) / (albedo**2)[skin].sum(0)
        return np.abs(albedo * factor - true)[skin].mean()

    assert off(found) < 0.3 * off(MODEL.albedo_mean)


def test_the_slope_of_the_shading_is_its_derivative():
    random = np.random.default_rng(3)
    normals = random.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = random.normal(size=(9, 3))
    slope = shading_slope(normals, light)
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = 1e-6
        difference = (shading(normals + step, light) - shading(normals - step, light)) / 2e-6
        assert slope[..., axis] == pytest.approx(difference, abs=1e-6)


def test_hidden_and_turned_points_do_not_count():
    camera = WeakPerspective(np.float64(1.0), np.eye(3), np.array([128.0, 160.0, 0.0]))
    trust = SURFACE.visible(MODEL.mean_shape.astype(np.float64), camera, (256, 256))
    assert 0.5 < (trust > 0).mean() < 1.0
    half = SURFACE.visible(MODEL.mean_shape.astype(np.float64), camera, (256, 128))
    right = SURFACE.points.of(MODEL.mean_shape)[:, 0] > 4.0
    assert not half[right].any()
    assert half[~right].any()


def test_work_stops_when_nobody_waits():
    class GoneError(Exception):
        pass

    def gone():
        raise GoneError

    with pytest.raises(GoneError):
        problem(0.13).solve(gone)
