from __future__ import annotations

import numpy as np
import pytest

from research.evaluation.aggregate import BootstrapSettings
from research.evaluation.measures import NUM_EXPRESSION, PersonFace
from research.evaluation.protocol import EvaluationSettings, evaluate_clip
from services.common.face.crops import HeadPose, to_frame
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import matrix_from_euler
from tests.unit.research.evaluation.drawn_clip import DrawnClip, read_mouths

IN_CROP = np.array([128.0, 160.0, 0.0])


def meshes(expression: np.ndarray, yaw_degrees: float = 0.0) -> np.ndarray:
    """Tracked meshes of the mean person, float32 [T, 478, 3] crop pixels, of expressions [T, <= 64]."""
    model = default_model()
    whole = np.zeros((len(expression), model.num_expression), np.float32)
    whole[:, : expression.shape[1]] = expression
    shapes = model.shape(np.zeros(model.num_identity, np.float32), whole)
    pose = HeadPose(1.0, np.asarray(matrix_from_euler(np.array([0.0, np.radians(yaw_degrees), 0.0]))), IN_CROP)
    tracked = np.zeros((len(shapes), 478, 3), np.float32)
    tracked[:, :468] = to_frame(shapes, pose)
    return tracked


def speaking(frames: int = 30) -> np.ndarray:
    expression = np.zeros((frames, 3))
    expression[:, 0] = np.sin(np.arange(frames) * 0.7)
    expression[:, 2] = 0.5 * np.cos(np.arange(frames) * 0.4)
    return expression


@pytest.fixture(scope="module")
def person() -> PersonFace:
    found = PersonFace.measured(meshes(np.zeros((30, 3))))
    assert found is not None
    return found


def test_the_same_face_has_no_error(person: PersonFace) -> None:
    truth = person.fit(meshes(speaking()))
    errors = person.errors(truth, person.fit(meshes(speaking())))
    np.testing.assert_array_equal(errors.expression, 0.0)
    np.testing.assert_array_equal(errors.landmark_px, 0.0)


def test_expression_error_in_deviations(person: PersonFace) -> None:
    """The expression error is the mean over coefficients in standard deviations."""
    moved = speaking()
    moved[:, 1] += 2.0
    errors = person.errors(person.fit(meshes(speaking())), person.fit(meshes(moved)))
    assert errors.expression == pytest.approx(np.full(30, 2.0 / NUM_EXPRESSION), rel=0.1)


def test_landmark_error_is_mean_distance(person: PersonFace) -> None:
    """By the definition: both expressions on the mean face, seen from the front, 59 points."""
    moved = speaking()
    moved[:, 0] += 1.5
    model = default_model()
    basis = model.landmark_set("mouth_area").of_basis(model.expression_basis)[..., 0]
    expected = 1.5 * np.linalg.norm(basis[:, :2], axis=1).mean()
    errors = person.errors(person.fit(meshes(speaking())), person.fit(meshes(moved)))
    assert errors.landmark_px == pytest.approx(np.full(30, expected), rel=0.05)


def test_a_turned_head_is_no_expression(person: PersonFace) -> None:
    errors = person.errors(person.fit(meshes(speaking(), 0.0)), person.fit(meshes(speaking(), 12.0)))
    assert errors.expression.max() < 0.03
    assert errors.landmark_px.max() < 0.5


def test_the_neutral_face_is_the_persons_own() -> None:
    """A person with another face than the mean: measured on themselves, their rest has next to no expression."""
    model = default_model()
    other = meshes(np.zeros((30, 1)))
    other[:, :468] += model.identity_basis[..., 0] * 2.0
    own = PersonFace.measured(other)
    assert own is not None
    assert np.abs(own.fit(other).expression).max() < 0.05
    as_if_mean = coefficients_from_landmarks(
        model.truncated(expression=NUM_EXPRESSION),
        other[:1, :468],
        own.fit(other[:1]).camera,
        identity=np.zeros(model.num_identity),
    )
    assert np.abs(as_if_mean.expression).max() > 0.3


def test_faceless_frames_not_measured(person: PersonFace) -> None:
    """Frames without a face on either side are not measured."""
    truth, result = meshes(speaking()), meshes(speaking())
    truth[3], result[7] = np.nan, np.nan
    errors = person.errors(person.fit(truth), person.fit(result))
    for values in errors:
        assert np.flatnonzero(~np.isfinite(values)).tolist() == [3, 7]


def test_too_few_tracked_frames_make_no_person() -> None:
    tracked = np.full((30, 478, 3), np.nan, np.float32)
    tracked[:4] = meshes(np.zeros((4, 1)))
    assert PersonFace.measured(tracked) is None


def test_the_evaluation_reports_both_errors_for_every_variant() -> None:
    settings = EvaluationSettings(variants=("mean_mouth", "full"), bootstrap=BootstrapSettings(replicates=2))
    found = evaluate_clip(DrawnClip(num_frames=40), read_mouths, settings=settings).variants
    assert found["full"].paper["expression_error"] == found["full"].paper["landmark_error_px"] == 0.0
    assert found["mean_mouth"].paper["expression_error"] > 0.01
    assert found["mean_mouth"].paper["landmark_error_px"] > 0.1
