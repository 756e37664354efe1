"""Tests of the face model: shapes from coefficients, sizes, file, landmarks, and the committed model.

The committed model is a face on MediaPipe's mesh.
"""

import dataclasses

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.crops import fit_head_pose, head_template
from services.common.face.landmarks import MOUTH_AREA, NUM_MOUTH_AREA, mouth_opening
from services.common.face.loaders.files import IBUG_68
from services.common.geometry.lighting import face_normals, vertex_normals
from services.common.geometry.morphable_model import WEIGHTS, LandmarkSet, MorphableModel, default_model
from tests.refusals import raised
from tests.unit.common.geometry.small_models import small_model

LANDMARK_RANDOM = np.random.default_rng(1)
VERTICES = LANDMARK_RANDOM.normal(size=(2, 10, 3))
INSIDE = LandmarkSet(
    np.array([[1, 2, 3], [4, 5, 6]], np.int32), np.array([[0.5, 0.25, 0.25], [0, 0, 1]], np.float32), np.array([7, -1], np.int32)
)
RANDOM = np.random.default_rng(4)
MODEL = default_model()


def test_vertices_are_picked_in_their_order():
    landmarks = LandmarkSet.of_vertices([3, 0, 3])
    assert np.array_equal(landmarks.of(VERTICES), VERTICES[:, [3, 0, 3]])
    assert landmarks.mediapipe.tolist() == [-1, -1, -1]


def test_triangle_points_are_weighted_means():
    """Points of triangles are weighted means of the corners."""
    expected = np.stack([VERTICES[:, 1] / 2 + VERTICES[:, 2] / 4 + VERTICES[:, 3] / 4, VERTICES[:, 6]], 1)
    assert INSIDE.of(VERTICES) == pytest.approx(expected)


def test_landmark_basis_equals_vertex_basis():
    """A landmark's basis moves it as the vertices' bases do."""
    basis, coefficients = LANDMARK_RANDOM.normal(size=(10, 3, 4)), LANDMARK_RANDOM.normal(size=4)
    assert INSIDE.of_basis(basis) @ coefficients == pytest.approx(INSIDE.of(basis @ coefficients), abs=1e-5)


def test_selection_keeps_mesh_numbers():
    """A selection keeps the numbers in the face mesh."""
    assert INSIDE.select([0]).mediapipe.tolist() == [7]
    assert len(INSIDE.select(np.array([True, False]))) == 1


def test_arrays_that_do_not_go_together_are_refused():
    with pytest.raises(InvalidRequestError, match="must be"):
        LandmarkSet(INSIDE.vertices, INSIDE.weights[:1], INSIDE.mediapipe)


def test_shape_is_mean_plus_bases():
    """A shape is the mean and its bases times the coefficients."""
    model = small_model()
    identity, expression = RANDOM.normal(size=3), RANDOM.normal(size=4)
    vertex = 17
    expected = model.mean_shape[vertex] + model.identity_basis[vertex] @ identity + model.expression_basis[vertex] @ expression
    assert model.shape(identity, expression)[vertex] == pytest.approx(expected, abs=1e-5)


def test_identity_and_offset_per_clip():
    """One identity serves a whole clip and an offset is added."""
    model = small_model()
    identity, expressions, offset = RANDOM.normal(size=3), RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(60, 3))
    shapes = model.shape(identity, expressions, offset)
    assert shapes.shape == (5, 60, 3)
    assert shapes[2] == pytest.approx(model.shape(identity, expressions[2]) + offset, abs=1e-5)


@pytest.mark.parametrize(("identity", "expression", "albedo"), [(199, 29, 199), (80, 64, 80), (0, 1, 0)])
def test_the_papers_sizes_are_only_data(identity, expression, albedo):
    model = small_model(identity, expression, albedo)
    assert (model.num_identity, model.num_expression, model.num_albedo) == (identity, expression, albedo)
    assert model.shape(np.zeros(identity), np.zeros(expression)) == pytest.approx(model.mean_shape)
    assert model.albedo(np.zeros(albedo)) == pytest.approx(model.albedo_mean)


def test_a_persons_own_model_has_no_identity_left():
    model = small_model()
    neutral = model.shape(np.ones(3), np.zeros(4))
    person = model.with_neutral_shape(neutral)
    assert person.num_identity == 0
    assert person.shape(np.zeros(0), np.ones(4)) == pytest.approx(model.shape(np.ones(3), np.ones(4)), abs=1e-4)


def test_a_truncated_model_keeps_the_leading_coefficients():
    model, short = small_model(), small_model().truncated(identity=2, expression=1)
    assert (short.num_identity, short.num_expression, short.num_albedo) == (2, 1, 2)
    assert short.shape(np.ones(2), np.ones(1)) == pytest.approx(model.shape(np.array([1, 1, 0.0]), np.array([1, 0, 0, 0.0])))


def test_the_file_gives_back_the_same_model(tmp_path):
    model = small_model()
    model.save(tmp_path / "model.safetensors")
    back = MorphableModel.load(tmp_path / "model.safetensors")
    assert back.digest == model.digest
    assert np.array_equal(back.expression_basis, model.expression_basis)
    assert np.array_equal(back.landmark_set("mediapipe").mediapipe, model.landmark_set("mediapipe").mediapipe)
    assert np.array_equal(back.regions["chin"], model.regions["chin"])
    assert (back.name, back.licence, back.unit) == (model.name, model.licence, model.unit)


def test_the_digest_changes_with_any_number():
    model = small_model()
    changed = model.mean_shape.copy()
    changed[0, 0] += 1e-4
    assert dataclasses.replace(model, mean_shape=changed).digest != model.digest


def test_model_without_albedo():
    """A model without albedo is valid and says so."""
    model = dataclasses.replace(
        small_model(), albedo_mean=None, albedo_basis=np.zeros((0, 3, 0), np.float32), albedo_deviation=np.zeros(0, np.float32)
    )
    assert MorphableModel.from_bytes(model.to_bytes()).albedo_mean is None
    with pytest.raises(InvalidRequestError, match="no albedo"):
        model.albedo(np.zeros(0))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"expression_basis": np.zeros((60, 3, 5), np.float32)}, "expression_basis"),
        ({"identity_deviation": np.zeros(3, np.float32)}, "identity_deviation"),
        ({"expression_deviation": np.full(4, np.nan, np.float32)}, "expression_deviation"),
        ({"albedo_mean": np.full((60, 3), np.inf, np.float32)}, "albedo_mean"),
        (
            {
                "triangles": np.array([[0, 1, 60]], np.int32),
                "uv": np.zeros((0, 2), np.float32),
                "uv_triangles": np.zeros((0, 3), np.int32),
            },
            "triangles",
        ),
        ({"mean_shape": np.full((60, 3), np.nan, np.float32)}, "mean_shape"),
        ({"uv": np.zeros((5, 2), np.float32)}, "uv_triangles"),
        ({"landmarks": {"mediapipe": LandmarkSet.of_vertices([60])}}, "landmarks.mediapipe"),
        ({"regions": {"chin": np.array([58], np.int32)}}, "regions.chin"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(change, field):
    with raised(InvalidRequestError, field=field):
        dataclasses.replace(small_model(), **change)


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(InvalidRequestError, match=r"missing\.safetensors"):
        MorphableModel.load(tmp_path / "missing.safetensors")
    with pytest.raises(InvalidRequestError, match="named arrays"):
        MorphableModel.from_bytes(b"nothing of the kind")
    with pytest.raises(InvalidRequestError, match="named arrays"):
        MorphableModel.from_bytes(small_model().to_bytes()[:500])


def test_unknown_landmarks_name_those_that_are_known():
    with pytest.raises(InvalidRequestError, match=r"\['mediapipe'\]"):
        small_model().landmark_set("ibug_68")


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


def test_texture_layout_without_folds():
    """The texture layout has no folds and keeps up and left."""
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


def test_first_expression_opens_mouth():
    """The first expression opens the mouth and leaves the forehead."""
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
