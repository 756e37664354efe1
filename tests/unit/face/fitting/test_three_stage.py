"""The three-stage fit on videos of known faces."""

import dataclasses
import pickle
from functools import cache

import numpy as np
import pytest

from services.common.face.morphable_models import MorphableModels
from services.common.geometry.morphable_model import default_model
from services.face.fitting.energy import FittingWeights
from services.face.fitting.frames import fit_frames
from services.face.fitting.model import model_landmarks, surface_of
from services.face.fitting.person import fit_clip
from services.face.fitting.three_stage import Adam, CropFit, Schedule, ThreeStageFit
from tests.unit.common.face.loaders.test_flame import content, embedding, texture_file
from tests.unit.face.fitting.synthetic_face import scene

SCENE = scene(frames=8)
TRACKED = SCENE.landmarks()
QUICK = Schedule(shared_steps=25, first_steps=15, frame_steps=6)
FACE = model_landmarks(default_model())


@cache
def pictures():
    return SCENE.pictures(range(8))


def fitted_to_landmarks(face, tracked=TRACKED):
    clip = fit_clip(face, tracked)
    image, camera = face.measured(tracked), clip.frames.camera
    frames = [
        CropFit(
            pictures()[t],
            image[t],
            clip.frames.expression[t],
            float(camera.scale[t]),
            camera.rotation[t],
            camera.translation[t, :2],
        )
        for t in range(len(tracked))
    ]
    return clip.person, frames


@cache
def fitted():
    """The person of the scene, and the frames of the person."""
    return fitted_to_landmarks(FACE)


def fit(schedule=QUICK, **options):
    person, _ = fitted()
    return ThreeStageFit(FACE, surface_of(default_model()), person.identity, person.offset, schedule=schedule, **options)


@cache
def shared_stage():
    return fit().fit_shared(fitted()[1])


def test_adam_first_steps():
    """Adam takes first steps of the given sizes against the gradient."""
    change = Adam({"a": 0.5, "b": 0.01}, 10).step({"a": np.array([3.0, -0.2]), "b": np.array([7.0])})
    assert change["a"] == pytest.approx([-0.5, 0.5], rel=1e-4)
    assert change["b"] == pytest.approx([-0.01], rel=1e-4)


def test_adam_finds_the_bottom_of_a_bowl():
    place, adam = np.array([2.0, -1.0]), Adam({"x": 0.1}, 200)
    for _ in range(200):
        place = place + adam.step({"x": 2.0 * place})["x"]
    assert np.abs(place).max() < 0.02


def test_shared_stage_finds_colours():
    """The shared stage finds the colours of the face."""
    shared = shared_stage()
    assert shared.rows.tolist() == sorted(shared.rows.tolist())
    assert np.mean([frame.photo for frame in shared.frames]) < 4.0
    assert np.mean([frame.land for frame in shared.frames]) < 0.4
    found, true = (default_model().albedo(part) for part in (shared.albedo, SCENE.albedo))
    cheeks = [50, 205, 280, 425]
    ratio = np.asarray(found)[cheeks] / np.asarray(true)[cheeks]
    assert ratio.std(0) / ratio.mean(0) == pytest.approx(0.0, abs=0.1)  # the factor between light and albedo is free


def test_more_steps_lower_the_loss():
    few, many = (fit(Schedule(shared_steps=steps)).fit_shared(fitted()[1][:2]) for steps in (3, 15))
    assert np.mean([frame.photo for frame in many.frames]) < np.mean([frame.photo for frame in few.frames])


def test_each_frame_starts_from_the_frame_before():
    own, (_, frames), albedo = fit(), fitted(), shared_stage().albedo
    first = own.fit_frame(frames[0], albedo, None)
    again, after = own.fit_frame(frames[1], albedo, None), own.fit_frame(frames[1], albedo, first.start)
    assert not np.array_equal(after.light, again.light)
    assert after.photo < 4.0
    assert np.abs(after.light - first.light).max() < 0.3
    for one, other in zip(own.fit_frame(frames[1], albedo, first.start)[:5], after[:5], strict=True):
        assert np.array_equal(one, other)


def test_a_heavier_prior_gives_smaller_expressions():
    light, heavy = (fit(weights=FittingWeights(reg=reg)) for reg in (0.0, 50.0))
    _, frames = fitted()
    one, other = (own.fit_frame(frames[1], shared_stage().albedo, None).expression for own in (light, heavy))
    assert np.linalg.norm(other) < np.linalg.norm(one)


def test_flame_albedo_and_jaw(tmp_path):
    """A user's FLAME is fitted with its own albedo and jaw."""
    arrays = content(scale=1e-5)  # small random bases on the mean head
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    embedding(tmp_path / "flame.landmarks.npz")
    texture_file(tmp_path / "flame.texture.npz")
    model = MorphableModels(tmp_path).get("flame").truncated(identity=10)
    face = model_landmarks(model)
    person, frames = fitted_to_landmarks(face, TRACKED[:3])
    steps = Schedule(shared_steps=8, first_steps=8)
    own = ThreeStageFit(face, surface_of(model), person.identity, person.offset, schedule=steps)
    shared = own.fit_shared(frames)
    found = own.fit_frame(frames[1], shared.albedo, None)
    assert found.expression.shape == (103,)
    assert shared.albedo.shape == (2,)
    assert np.isfinite(found.expression).all()
    start = own.fit_frame(frames[1], np.zeros(2), None)
    assert found.photo < start.photo + 1.0
    assert np.isfinite(found.land)


def test_colours_hold_sparse_model():
    """A model of few landmarks is held by its colours."""
    known = default_model().landmark_set("mediapipe")
    few = dataclasses.replace(default_model(), landmarks={"mediapipe": known.select(range(0, 468, 9))})
    face = model_landmarks(few)
    base = face.base(SCENE.identity)
    image = face.measured(TRACKED)
    start = fit_frames(face, base, image, SCENE.weak)
    camera, own = start.camera, ThreeStageFit(face, surface_of(few), SCENE.identity, np.zeros((468, 3)), schedule=Schedule())
    before, errors = None, []
    for t in range(2):
        pose = float(camera.scale[t]), camera.rotation[t], camera.translation[t, :2]
        before = own.fit_frame(CropFit(pictures()[t], image[t], start.expression[t], *pose), SCENE.albedo, None)
        shapes = [default_model().shape(SCENE.identity, each) for each in (start.expression[t], before.expression)]
        errors.append([np.sqrt(((shape - SCENE.shapes[t])[:, :2] ** 2).sum(-1).mean()) for shape in shapes])
    landmarks, colours = np.mean(errors, axis=0)
    assert colours < landmarks
