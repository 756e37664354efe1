"""The face model: what coefficients make, sizes as data, and the file."""

import dataclasses

import numpy as np
import pytest
import torch

from services.common.errors import InvalidRequest
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel
from tests.unit.common.geometry.small_models import small_model

RANDOM = np.random.default_rng(4)


def test_a_shape_is_the_mean_and_its_bases_times_the_coefficients():
    model = small_model()
    identity, expression = RANDOM.normal(size=3), RANDOM.normal(size=4)
    vertex = 17
    expected = model.mean_shape[vertex] + model.identity_basis[vertex] @ identity + model.expression_basis[vertex] @ expression
    assert model.shape(identity, expression)[vertex] == pytest.approx(expected, abs=1e-5)


def test_one_identity_serves_a_whole_clip_and_an_offset_is_added():
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


def test_torch_gives_the_same_shape_and_its_gradient_is_the_basis():
    model = small_model()
    identity, expression = RANDOM.normal(size=3), RANDOM.normal(size=4)
    tensor = torch.from_numpy(expression).requires_grad_()
    shape = model.shape(torch.from_numpy(identity), tensor)
    assert shape.detach().numpy() == pytest.approx(model.shape(identity, expression))
    (gradient,) = torch.autograd.grad(shape[9, 1], tensor)
    assert gradient.numpy() == pytest.approx(model.expression_basis[9, 1])


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


def test_triangles_of_a_region_can_be_left_out():
    model = small_model()
    assert np.array_equal(model.triangles_without("chin"), np.delete(model.triangles, [0, 2], axis=0))


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


def test_a_model_without_albedo_is_a_model_and_says_so():
    model = dataclasses.replace(
        small_model(), albedo_mean=None, albedo_basis=np.zeros((0, 3, 0), np.float32), albedo_deviation=np.zeros(0, np.float32)
    )
    assert MorphableModel.from_bytes(model.to_bytes()).albedo_mean is None
    with pytest.raises(InvalidRequest, match="no albedo"):
        model.albedo(np.zeros(0))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"expression_basis": np.zeros((60, 3, 5), np.float32)}, "expression_basis"),
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
    with pytest.raises(InvalidRequest) as error:
        dataclasses.replace(small_model(), **change)
    assert error.value.field == field


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(InvalidRequest, match=r"missing\.safetensors"):
        MorphableModel.load(tmp_path / "missing.safetensors")
    with pytest.raises(InvalidRequest, match="named arrays"):
        MorphableModel.from_bytes(b"nothing of the kind")
    with pytest.raises(InvalidRequest, match="named arrays"):
        MorphableModel.from_bytes(small_model().to_bytes()[:500])


def test_unknown_landmarks_name_those_that_are_known():
    with pytest.raises(InvalidRequest, match=r"\['mediapipe'\]"):
        small_model().landmark_set("ibug_68")
