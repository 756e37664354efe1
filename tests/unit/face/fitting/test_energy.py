"""Eq. 3: what the loss measures, and that its gradient is its slope."""

from functools import cache

import numpy as np
import pytest

from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.face.fitting.energy import FittingWeights, FrameUnknowns, PersonEnergy, target_of
from services.face.fitting.model import model_landmarks, surface_of
from tests.unit.face.fitting.synthetic_face import scene

FACE = model_landmarks(default_model())
SURFACE = surface_of(default_model())
SCENE = scene(frames=4)
NEUTRAL = np.asarray(default_model().shape(SCENE.identity, np.zeros(default_model().num_expression)))
TRUE = FrameUnknowns(SCENE.expression[1], np.zeros(3), np.zeros(1), np.zeros(2), SCENE.light)
ONLY_PHOTO = FittingWeights(land=0.0, reg=0.0)


@cache
def target():
    # Here and not beside the constants: a process that runs no test of this file draws nothing.
    return target_of(
        SCENE.pictures([1])[0],
        FACE.measured(SCENE.landmarks(0.0)[1]),
        float(SCENE.weak.scale[1]),
        SCENE.weak.rotation[1],
        SCENE.weak.translation[1],
    )


def energy(weights=FittingWeights(), backend="numba"):
    return PersonEnergy(FACE, SURFACE, NEUTRAL, weights, backend=backend)


def away(size=1.0):
    random = np.random.default_rng(1)
    spread = FrameUnknowns(0.2, 0.02, 0.01, 0.5, 0.05)
    return FrameUnknowns(*(part + size * much * random.normal(size=part.shape) for part, much in zip(TRUE, spread, strict=True)))


def test_the_true_face_has_the_least_loss():
    own = energy()
    albedo = own.albedo(SCENE.albedo)
    at_truth = own.loss(target(), TRUE, albedo)
    assert at_truth.photo < 1.5  # reduced crop against a face drawn at the reduced size
    assert at_truth.land == pytest.approx(0.0, abs=1e-6)
    assert own.loss(target(), away(), albedo).photo > 2.0 * at_truth.photo
    assert own.loss(target(), away(), albedo).land > 0.1


def test_loss_is_weighted_sum():
    """The loss is the weighted sum of its three parts."""
    weights = FittingWeights(photo=2.0, land=3.0, reg=0.5)
    found = energy(weights).loss(target(), away(), energy().albedo(SCENE.albedo))
    expected = 2.0 * found.photo + 3.0 * found.land + 0.5 * (away().expression ** 2).mean()
    assert found.total == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", FrameUnknowns._fields)
def test_the_gradient_is_the_slope_of_the_loss(name):
    own, state = energy(), away()
    albedo = own.albedo(SCENE.albedo)
    way, step = np.random.default_rng(3).normal(size=getattr(state, name).shape), 1e-4 if name == "expression" else 1e-7
    # The expression's bases are float32, so its step is larger.
    slope = (
        own.loss(target(), state._replace(**{name: getattr(state, name) + step * way}), albedo).total
        - own.loss(target(), state._replace(**{name: getattr(state, name) - step * way}), albedo).total
    ) / (2 * step)
    assert (getattr(own.loss(target(), state, albedo).frame, name) * way).sum() == pytest.approx(slope, rel=0.01)


def test_albedo_gradient_equals_slope():
    """The gradient by the albedo is the slope of the colours."""
    own, state = energy(ONLY_PHOTO), away()
    way, step = np.random.default_rng(4).normal(size=SCENE.albedo.shape), 1e-5
    up, down = (own.loss(target(), state, own.albedo(SCENE.albedo + sign * step * way)).total for sign in (1, -1))
    found = own.loss(target(), state, own.albedo(SCENE.albedo)).albedo
    assert (found * way).sum() == pytest.approx((up - down) / (2 * step), rel=0.01)


@pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")
def test_pytorch3d_gives_the_same_loss_and_gradient():
    albedo = energy().albedo(SCENE.albedo)
    ours, theirs = (energy(backend=each).loss(target(), away(), albedo) for each in ("numba", "pytorch3d"))
    assert theirs.photo == pytest.approx(ours.photo, rel=1e-3)
    for one, other in zip(ours.frame, theirs.frame, strict=True):
        assert np.linalg.norm(one - other) < 0.02 * np.linalg.norm(one)
    assert np.linalg.norm(ours.albedo - theirs.albedo) < 0.01 * np.linalg.norm(ours.albedo)
