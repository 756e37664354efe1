"""Basel 2017 files: small ones of the same format."""

import json

import h5py
import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.face.loaders import load_model
from services.common.face.loaders.bfm2017 import NAMED_LANDMARKS, load_bfm2017
from services.common.geometry.default_model import default_model
from tests.unit.common.face.loaders.foreign import RANDOM, SIXTY_EIGHT, Y_UP, basis, head, in_head_space, triangles

SHIFT = np.array([0.1, 0.0, 0.2])


@pytest.fixture
def bfm(tmp_path):
    path = tmp_path / "model2017-1_face12_nomouth.h5"
    points = [{"id": name, "coordinates": head()[vertex].tolist()} for name, vertex in NAMED_LANDMARKS.items()]
    with h5py.File(path, "w") as file:
        for group, mean, size in (
            ("shape", head(), 12),
            ("expression", np.tile(SHIFT, (468, 1)), 6),
            ("color", RANDOM.uniform(size=(468, 3)), 5),
        ):
            file[f"{group}/model/mean"] = mean.reshape(-1).astype(np.float32)
            file[f"{group}/model/pcaBasis"] = basis(size).reshape(-1, size).astype(np.float32)
            file[f"{group}/model/pcaVariance"] = np.linspace(9, 1, size).astype(np.float32)
        file["shape/representer/cells"] = triangles().T
        file["metadata/landmarks/json"] = json.dumps([*points, {"id": "left.ear.lobule.tip", "coordinates": [0, 0, 0]}])
    return path


def test_the_file_becomes_a_model_in_head_space_by_its_own_landmarks(bfm):
    model = load_bfm2017(bfm)
    assert in_head_space(model)
    assert (model.num_identity, model.num_expression, model.num_albedo) == (12, 6, 5)
    assert np.array_equal(model.triangles, default_model().triangles)
    assert dict(zip(model.landmark_set("mediapipe").vertices[:, 0], model.landmark_set("mediapipe").mediapipe, strict=True)) == {
        v: v for v in NAMED_LANDMARKS.values()
    }


def test_the_mean_expression_is_part_of_the_mean_and_bases_are_in_standard_deviations(bfm):
    model = load_bfm2017(bfm, landmarks=None, identity=3)
    with h5py.File(bfm) as file:
        raw = np.asarray(file["shape/model/pcaBasis"])[:, 1].reshape(-1, 3) * np.sqrt(
            np.asarray(file["shape/model/pcaVariance"])[1]
        )
    scale = np.linalg.norm(model.mean_shape[4] - model.mean_shape[152]) / np.linalg.norm(head()[4] - head()[152])
    assert model.num_identity == 3
    assert np.linalg.norm(model.identity_basis[:, :, 1], axis=1) == pytest.approx(scale * np.linalg.norm(raw, axis=1), rel=1e-3)
    assert model.albedo_mean.max() <= 1.0


def test_without_landmarks_the_model_stays_in_millimetres(bfm):
    with h5py.File(bfm, "a") as file:
        del file["metadata"]
    model = load_bfm2017(bfm)
    assert model.unit == "millimetre"
    assert model.mean_shape == pytest.approx((head() + SHIFT) * Y_UP, abs=1e-3)


def test_landmarks_of_the_users_own_take_the_place_of_the_files(bfm, tmp_path):
    (tmp_path / "points.txt").write_text("\n".join(str(v) for v in SIXTY_EIGHT))
    model = load_model(bfm, landmarks=tmp_path / "points.txt")
    assert in_head_space(model)
    assert len(model.landmark_set("ibug_68")) == 68


def test_wrong_and_damaged_files_are_named_with_the_remedy(bfm):
    with h5py.File(bfm, "a") as file:
        del file["expression"]
    with pytest.raises(InvalidRequest, match=r"model2017.*expression/model/mean.*give model2017"):
        load_bfm2017(bfm)
    bfm.write_bytes(bfm.read_bytes()[:5000])
    with pytest.raises(InvalidRequest, match="damaged"):
        load_bfm2017(bfm)
    bfm.write_text("no HDF5 at all")
    with pytest.raises(InvalidRequest, match="no Basel Face Model 2017"):
        load_bfm2017(bfm)
    with pytest.raises(InvalidRequest, match="there is no"):
        load_bfm2017(bfm.with_name("other.h5"))
