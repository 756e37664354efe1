"""Tests of the Basel 2009 and 2017 loaders, on small files of the same formats.

Files of 2009 are whole, with expressions, cropped, or merged into one.
"""

import json

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from services.common.errors import InvalidRequestError
from services.common.face.loaders import bfm as loader
from services.common.face.loaders import load_model
from services.common.face.loaders.bfm import NAMED_LANDMARKS, load_bfm2009, load_bfm2017
from services.common.geometry.morphable_model import default_model
from tests.unit.common.face.loaders.foreign import RANDOM, SIXTY_EIGHT, Y_UP, basis, head, in_head_space, triangles

COMPONENTS = 7
SHIFT = np.array([0.1, 0.0, 0.2])


@pytest.fixture
def folder(tmp_path):
    """The 468 vertices of the head stand behind 12 others (the ears of the real file), which the indices take away again."""
    rest = RANDOM.normal(size=(12, 3)) * 1e4
    mean = np.concatenate([rest, head(1000.0)])
    identity = np.concatenate([RANDOM.normal(size=(12, 3, 9)), basis(9)]).reshape(-1, 9)
    colour = RANDOM.uniform(0, 255, mean.size)
    savemat(
        tmp_path / "01_MorphableModel.mat",
        {
            "shapeMU": mean.reshape(-1, 1), "shapePC": identity, "shapeEV": np.linspace(900, 100, 9)[:, None],
            "texMU": colour[:, None], "texPC": RANDOM.normal(size=(mean.size, 9)), "texEV": np.linspace(30, 3, 9)[:, None],
            "tl": np.concatenate([triangles() + 12, [[0, 1, 2]]])[:, [0, 2, 1]] + 1,
        },
    )  # fmt: skip
    return tmp_path


def add_expressions(folder):
    with_expression = np.arange(6, 480)
    components = RANDOM.normal(size=(COMPONENTS, 474, 3)).astype("<f4")
    data = np.int32(COMPONENTS).tobytes() + np.zeros((474, 3), "<f4").tobytes() + components.tobytes()
    (folder / "Exp_Pca.bin").write_bytes(data)
    (folder / "std_exp.txt").write_text(" ".join(str(v) for v in range(1, COMPONENTS + 1)))
    savemat(folder / "BFM_exp_idx.mat", {"trimIndex": with_expression[:, None] + 1})
    savemat(folder / "BFM_front_idx.mat", {"idx": np.arange(6, 474)[:, None] + 1})
    savemat(folder / "facemodel_info.mat", {"keypoints": SIXTY_EIGHT[None] + 1})
    return components


def test_2009_face_cropped_to_head_space(folder):
    """The face with expressions is cropped and brought to head space."""
    add_expressions(folder)
    model = load_bfm2009(folder)
    assert in_head_space(model)
    assert (model.num_identity, model.num_expression, model.num_albedo) == (9, COMPONENTS, 9)
    assert np.array_equal(np.sort(model.triangles, 1), np.sort(default_model().triangles, 1))
    assert np.array_equal(model.triangles[:, 0], default_model().triangles[:, 0])
    assert len(model.landmark_set("ibug_68")) == 68


def test_2009_bases_follow_crop(folder):
    """Bases are in standard deviations and follow the crop."""
    components = add_expressions(folder)
    model = load_bfm2009(folder)
    whole = load_bfm2009(folder / "01_MorphableModel.mat")
    assert whole.digest == model.digest
    scale = np.linalg.norm(model.mean_shape[4] - model.mean_shape[152]) / np.linalg.norm(head(1000.0)[4] - head(1000.0)[152])
    expected = np.linalg.norm(3 * components[2, 6 + 40])
    assert np.linalg.norm(model.expression_basis[40, :, 2]) == pytest.approx(scale * expected, rel=1e-4)


def test_2009_keeps_leading_coefficients(folder, monkeypatch):
    add_expressions(folder)
    for name, count in (("IDENTITY", 4), ("EXPRESSION", 2), ("ALBEDO", 3)):
        monkeypatch.setattr(loader, f"_{name}_2009", count)
    model = load_bfm2009(folder)
    assert (model.num_identity, model.num_expression, model.num_albedo) == (4, 2, 3)


def test_2009_without_landmarks_keeps_unit(folder):
    """Without expressions and landmarks, the model stays in its unit."""
    model = load_bfm2009(folder)
    assert (model.unit, model.num_expression, model.num_vertices) == ("micrometre", 0, 480)
    assert model.mean_shape[12:] == pytest.approx(head(1000.0) * Y_UP, rel=1e-4)
    assert model.albedo_mean.max() <= 1.0


def test_2009_own_landmarks_align_mesh(folder, tmp_path):
    """Landmarks of the user's own align the whole mesh."""
    (tmp_path / "points.json").write_text(json.dumps((SIXTY_EIGHT + 12).tolist()))
    model = load_bfm2009(folder, landmarks=tmp_path / "points.json")
    assert np.abs(model.mean_shape[12:] - default_model().mean_shape).max() < 4.0
    (tmp_path / "few.txt").write_text("1 2 3")
    with pytest.raises(InvalidRequestError, match="3 vertices, not 68"):
        load_bfm2009(folder, landmarks=tmp_path / "few.txt")


def test_the_merged_file_of_the_face_is_read(tmp_path):
    savemat(
        tmp_path / "BFM_model_front.mat",
        {
            "meanshape": head(0.01).reshape(1, -1), "idBase": basis(80).reshape(-1, 80), "exBase": basis(64).reshape(-1, 64),
            "meantex": RANDOM.uniform(0, 255, (1, 1404)), "texBase": basis(80).reshape(-1, 80),
            "tri": triangles() + 1, "keypoints": SIXTY_EIGHT[None] + 1,
        },
    )  # fmt: skip
    model = load_model(tmp_path / "BFM_model_front.mat")
    assert in_head_space(model)
    assert (model.num_identity, model.num_expression, model.num_albedo) == (80, 64, 80)


def test_2009_wrong_files_tell_remedy(folder):
    """Wrong and damaged files of 2009 are named with the remedy."""
    add_expressions(folder)
    basis_file = folder / "Exp_Pca.bin"
    basis_file.write_bytes(basis_file.read_bytes()[:-10])
    with pytest.raises(InvalidRequestError, match=r"Exp_Pca\.bin.*damaged.*github\.com/Juyong"):
        load_bfm2009(folder)
    (folder / "01_MorphableModel.mat").write_bytes((folder / "01_MorphableModel.mat").read_bytes()[:2000])
    with pytest.raises(InvalidRequestError, match=r"01_MorphableModel\.mat is no Basel"):
        load_bfm2009(folder)
    savemat(folder / "01_MorphableModel.mat", {"something": np.zeros(3)})
    with pytest.raises(InvalidRequestError, match="it has no 'shapeMU'"):
        load_bfm2009(folder)


def test_missing_companions_are_named(folder):
    add_expressions(folder)
    (folder / "BFM_exp_idx.mat").unlink()
    with pytest.raises(InvalidRequestError, match=r"BFM_exp_idx\.mat"):
        load_bfm2009(folder)
    with pytest.raises(InvalidRequestError, match=r"01_MorphableModel\.mat"):
        load_bfm2009(folder / "nowhere")


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


def test_2017_model_in_head_space(bfm):
    """The file becomes a model in head space by its own landmarks."""
    model = load_bfm2017(bfm)
    assert in_head_space(model)
    assert (model.num_identity, model.num_expression, model.num_albedo) == (12, 6, 5)
    assert np.array_equal(model.triangles, default_model().triangles)
    assert dict(zip(model.landmark_set("mediapipe").vertices[:, 0], model.landmark_set("mediapipe").mediapipe, strict=True)) == {
        v: v for v in NAMED_LANDMARKS.values()
    }


def test_2017_mean_and_bases(bfm):
    """The mean expression is part of the mean and bases are in standard deviations."""
    model = load_bfm2017(bfm)
    with h5py.File(bfm) as file:
        raw = np.asarray(file["shape/model/pcaBasis"])[:, 1].reshape(-1, 3) * np.sqrt(
            np.asarray(file["shape/model/pcaVariance"])[1]
        )
    scale = np.linalg.norm(model.mean_shape[4] - model.mean_shape[152]) / np.linalg.norm(head()[4] - head()[152])
    assert np.linalg.norm(model.identity_basis[:, :, 1], axis=1) == pytest.approx(scale * np.linalg.norm(raw, axis=1), rel=1e-3)
    assert model.albedo_mean.max() <= 1.0


def test_without_landmarks_the_model_stays_in_millimetres(bfm):
    with h5py.File(bfm, "a") as file:
        del file["metadata"]
    model = load_bfm2017(bfm)
    assert model.unit == "millimetre"
    assert model.mean_shape == pytest.approx((head() + SHIFT) * Y_UP, abs=1e-3)


def test_2017_own_landmarks_replace_files(bfm, tmp_path):
    """Landmarks of the user's own take the place of the files."""
    (tmp_path / "points.txt").write_text("\n".join(str(v) for v in SIXTY_EIGHT))
    model = load_model(bfm, landmarks=tmp_path / "points.txt")
    assert in_head_space(model)
    assert len(model.landmark_set("ibug_68")) == 68


def test_2017_wrong_files_tell_remedy(bfm):
    """Wrong and damaged files of 2017 are named with the remedy."""
    with h5py.File(bfm, "a") as file:
        del file["expression"]
    with pytest.raises(InvalidRequestError, match=r"model2017.*expression/model/mean.*give model2017"):
        load_bfm2017(bfm)
    bfm.write_bytes(bfm.read_bytes()[:5000])
    with pytest.raises(InvalidRequestError, match="damaged"):
        load_bfm2017(bfm)
    bfm.write_text("no HDF5 at all")
    with pytest.raises(InvalidRequestError, match="Basel Face Model 2017"):
        load_bfm2017(bfm)
    with pytest.raises(InvalidRequestError, match="there is no"):
        load_bfm2017(bfm.with_name("other.h5"))
