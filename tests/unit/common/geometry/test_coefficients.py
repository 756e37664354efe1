"""Coefficients and landmarks, both ways, on the committed model."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from services.common.errors import InvalidRequestError
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import default_model

MODEL = default_model()
RANDOM = np.random.default_rng(8)
FRAMES = 12
IDENTITY = RANDOM.normal(size=MODEL.num_identity)
EXPRESSION = RANDOM.normal(size=(FRAMES, MODEL.num_expression))
ROTATION = Rotation.from_rotvec(0.25 * RANDOM.normal(size=(FRAMES, 3))).as_matrix()
CAMERA = WeakPerspective(RANDOM.uniform(0.8, 1.5, FRAMES), ROTATION, RANDOM.uniform(100, 400, (FRAMES, 3)))
IMAGE = CAMERA.project(MODEL.shape(IDENTITY, EXPRESSION))


@pytest.mark.parametrize("axes", [2, 3])
def test_known_expressions_are_found_again(axes):
    fitted = coefficients_from_landmarks(MODEL, IMAGE[..., :axes], CAMERA, identity=IDENTITY, ridge=1e-4)
    relative = np.linalg.norm(fitted.expression - EXPRESSION) / np.linalg.norm(EXPRESSION)
    assert relative < 0.02
    assert fitted.error.max() < 0.05


def test_identity_and_expressions_found_together():
    """A shared identity and the expressions are found together."""
    fitted = coefficients_from_landmarks(MODEL, IMAGE, CAMERA, ridge=1e-3)
    assert fitted.error.max() < 0.05
    neutral = MODEL.shape(fitted.identity, np.zeros(MODEL.num_expression))
    true = MODEL.shape(IDENTITY, np.zeros(MODEL.num_expression))
    # Some of the one can pass for the other in twelve frames, the prior decides; shapes as a whole agree.
    assert np.linalg.norm(neutral - true, axis=1).mean() < 1.0
    shapes = MODEL.shape(fitted.identity, fitted.expression)
    assert np.linalg.norm(shapes - MODEL.shape(IDENTITY, EXPRESSION), axis=-1).mean() < 0.1


def test_joint_solution_equals_full_system():
    """The joint solution is that of the whole system."""
    model = MODEL.truncated(identity=4, expression=5)
    few = IMAGE[:3] + RANDOM.normal(size=(3, 468, 3))
    camera = WeakPerspective(CAMERA.scale[:3], CAMERA.rotation[:3], CAMERA.translation[:3])
    fitted = coefficients_from_landmarks(model, few, camera, depth_weight=0.3, ridge=2.0)
    rows, right = [], []
    depth = np.sqrt([1, 1, 0.3])[:, None]
    for t in range(3):
        turn = depth * camera.rotation[t]
        identity = np.einsum("ij,njk->nik", turn, model.identity_basis).reshape(-1, 4)
        expression = np.zeros((len(identity), 15))
        expression[:, 5 * t : 5 * t + 5] = np.einsum("ij,njk->nik", turn, model.expression_basis).reshape(-1, 5)
        rows.append(np.concatenate([identity, expression], 1))
        right.append(((camera.unproject(few)[t] - model.mean_shape) @ turn.T).reshape(-1))
    a, b = np.concatenate(rows), np.concatenate(right)
    whole = np.linalg.solve(a.T @ a + 2.0 * np.eye(19), a.T @ b)
    assert fitted.identity == pytest.approx(whole[:4], abs=1e-3)
    assert fitted.expression.reshape(-1) == pytest.approx(whole[4:], abs=1e-3)


def test_frames_do_not_disturb_each_other():
    alone = coefficients_from_landmarks(
        MODEL, IMAGE[4:5], WeakPerspective(CAMERA.scale[4:5], CAMERA.rotation[4:5], CAMERA.translation[4:5]), identity=IDENTITY
    )
    together = coefficients_from_landmarks(MODEL, IMAGE, CAMERA, identity=IDENTITY)
    assert alone.expression[0] == pytest.approx(together.expression[4], abs=1e-4)


def test_hidden_landmarks_do_not_count():
    wrong, weights = IMAGE.copy(), np.ones(468)
    wrong[:, :100] += 50.0
    weights[:100] = 0.0
    fitted = coefficients_from_landmarks(MODEL, wrong, CAMERA, identity=IDENTITY, weights=weights, ridge=1e-4)
    assert fitted.error.max() < 0.1
    each = np.broadcast_to(weights, (FRAMES, 468)).copy()
    each[0] = 1.0
    by_frame = coefficients_from_landmarks(MODEL, wrong, CAMERA, identity=IDENTITY, weights=each, ridge=1e-4)
    assert by_frame.expression[1:] == pytest.approx(fitted.expression[1:], abs=1e-3)
    assert by_frame.error[0] > 1.0


def test_own_shape_explains_residual():
    """An actor's own shape explains what the basis cannot."""
    offset = 2.0 * RANDOM.normal(size=(468, 3))
    image = CAMERA.project(MODEL.shape(IDENTITY, EXPRESSION, offset))
    with_offset = coefficients_from_landmarks(MODEL, image, CAMERA, identity=IDENTITY, offset=offset, ridge=1e-4)
    without = coefficients_from_landmarks(MODEL, image, CAMERA, identity=IDENTITY, ridge=1e-4)
    assert with_offset.error.max() < 0.05
    assert without.error.min() > 1.0


def test_a_strong_prior_keeps_coefficients_small():
    weak, strong = (coefficients_from_landmarks(MODEL, IMAGE, CAMERA, identity=IDENTITY, ridge=ridge) for ridge in (1.0, 1e6))
    assert np.abs(strong.expression).max() < 0.1 * np.abs(weak.expression).max()


def test_wrong_landmarks_refused():
    """Landmarks that do not fit the model are refused."""
    with pytest.raises(InvalidRequestError, match="468"):
        coefficients_from_landmarks(MODEL, IMAGE[:, :400], CAMERA)
    with pytest.raises(InvalidRequestError, match="cameras"):
        coefficients_from_landmarks(MODEL, IMAGE[:3], CAMERA)
    broken = IMAGE.copy()
    broken[2, 5] = np.nan
    with pytest.raises(InvalidRequestError, match="finite"):
        coefficients_from_landmarks(MODEL, broken, CAMERA)
