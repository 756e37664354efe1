"""FLAME files: small ones of the same format, as .pkl and .npz, with landmarks and a texture layout."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from scipy.spatial.transform import Rotation

from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.loaders.flame import JAW, jaw_basis, load_flame
from services.common.face.morphable_models import MorphableModels
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise import sample_texture
from tests.refusals import raised
from tests.unit.common.face.loaders.foreign import RANDOM, Y_UP, basis, head, in_head_space, triangles


def content(scale=0.001):
    weights = RANDOM.uniform(size=(468, 5))
    regressor = RANDOM.uniform(size=(5, 468))
    return {
        "v_template": head(scale),
        "f": triangles().astype(np.uint32),
        "shapedirs": basis(400, scale),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": csc_matrix(regressor / regressor.sum(1, keepdims=True)),
        "posedirs": basis(36, scale),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "bs_type": "lrotmin",
    }


def embedding(path, numbers=None):
    """Vertex i as the corner of a triangle with weight 1."""
    mesh, target = triangles(), np.arange(468) if numbers is None else np.asarray(numbers)
    faces = np.array([np.flatnonzero((mesh == vertex).any(1))[0] for vertex in target])
    share = (mesh[faces] == target[:, None]).astype(float)
    arrays = {"lmk_face_idx": faces, "lmk_b_coords": share}
    if path.suffix == ".npz":
        np.savez(path, **arrays, landmark_indices=target)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(arrays, protocol=2))
    else:
        np.save(path, {"full_lmk_faces_idx": faces[None], "full_lmk_bary_coords": share[None]}, allow_pickle=True)
    return path


@pytest.fixture
def flame(tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(content(), protocol=2))
    return path


def test_a_pickle_becomes_a_model_in_head_space(flame, tmp_path):
    model = load_flame(flame, landmarks=embedding(tmp_path / "mediapipe_landmark_embedding.npz"))
    assert (model.num_identity, model.num_expression) == (300, 103)
    assert in_head_space(model)
    assert np.array_equal(model.triangles, default_model().triangles)
    assert model.landmark_set("mouth_area").mediapipe.tolist() == list(MOUTH_AREA)
    assert "Max-Planck" in model.licence


def test_npz_equals_pickle(tmp_path):
    """The same arrays as npz give the same model."""
    arrays = content()
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    np.savez(tmp_path / "a.npz", **{**arrays, "J_regressor": arrays["J_regressor"].toarray()})
    assert load_flame(tmp_path / "a.pkl").digest == load_flame(tmp_path / "a.npz").digest


def test_coefficients_mean_what_they_mean_in_flame(tmp_path):
    arrays = content()
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    model = load_flame(tmp_path / "a.pkl")
    betas, psi = RANDOM.normal(size=300), np.concatenate([RANDOM.normal(size=100), np.zeros(3)])
    expected = arrays["v_template"] + arrays["shapedirs"][..., :300] @ betas + arrays["shapedirs"][..., 300:] @ psi[:100]
    assert model.shape(betas, psi) == pytest.approx(expected * Y_UP, abs=1e-6)


def test_the_jaw_turns_as_blend_skinning_turns_it():
    arrays = content()
    arrays["J_regressor"] = arrays["J_regressor"].toarray()
    angle = np.array([2e-4, -1e-4, 1e-4])
    turn = Rotation.from_rotvec(angle).as_matrix()
    joint = arrays["J_regressor"] @ arrays["v_template"]
    posed = arrays["v_template"] + arrays["posedirs"][..., 9 * (JAW - 1) : 9 * JAW] @ (turn - np.eye(3)).reshape(9)
    skinned = posed + arrays["weights"][:, JAW, None] * ((posed - joint[JAW]) @ turn.T + joint[JAW] - posed)
    linear = jaw_basis(arrays["v_template"].astype(np.float32), arrays) @ angle
    assert linear == pytest.approx(skinned - arrays["v_template"], abs=2e-4 * np.abs(linear).max() + 1e-8)


@pytest.mark.parametrize(("name", "numbers", "known"), [("static.pkl", range(51), 51), ("landmark_embedding.npy", range(68), 51)])
def test_the_other_embedding_files_are_read(flame, tmp_path, name, numbers, known):
    from services.common.face.loaders.files import IBUG_68

    vertices = np.array(IBUG_68)[-len(numbers) :]
    model = load_flame(flame, landmarks=embedding(tmp_path / name, vertices))
    assert in_head_space(model)
    assert len(model.landmark_set("mediapipe")) == known
    assert ("ibug_68" in model.landmarks) == (len(numbers) == 68)


def test_a_texture_layout_keeps_to_the_corners(flame, tmp_path):
    uv = RANDOM.uniform(size=(500, 2))
    corners = RANDOM.integers(0, 500, (898, 3))
    np.savez(tmp_path / "FLAME_texture.npz", vt=uv, ft=corners)
    model = load_flame(flame, texture=tmp_path / "FLAME_texture.npz")
    assert np.array_equal(model.uv_triangles, corners)
    assert model.uv == pytest.approx(np.stack([uv[:, 0], 1 - uv[:, 1]], -1), abs=1e-6)


def texture_file(path, size=32, coefficients=2):
    """A texture file whose layout gives vertex i one place, blue first, 0 to 255."""
    uv = RANDOM.uniform(0.1, 0.9, size=(468, 2))
    mean, directions = RANDOM.uniform(60, 200, (size, size, 3)), RANDOM.normal(size=(size, size, 3, coefficients))
    np.savez(path, vt=uv, ft=triangles(), mean=mean, tex_dir=directions)
    return path, uv, mean, directions


def test_a_texture_gives_the_albedo_at_the_vertices(flame, tmp_path):
    path, uv, mean, directions = texture_file(tmp_path / "FLAME_texture.npz")
    model = load_flame(flame, texture=path)
    places = np.stack([uv[:, 0], 1 - uv[:, 1]], -1)
    assert (model.num_albedo, model.albedo_deviation.tolist()) == (2, [1.0, 1.0])
    assert model.albedo_mean == pytest.approx(sample_texture(mean, places)[:, ::-1] / 255, abs=1e-5)
    assert model.albedo_basis[..., 1] == pytest.approx(sample_texture(directions[..., 1], places)[:, ::-1] / 255, abs=1e-5)


def test_texture_beside_file(tmp_path):
    """A texture beside the file is found by its name."""
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(content(), protocol=2))
    embedding(tmp_path / "flame.landmarks.npz")
    texture_file(tmp_path / "flame.texture.npz")
    models = MorphableModels(tmp_path)
    assert models.names() == ["mediapipe_468", "flame"]
    assert (models.get("flame").num_albedo, len(models.get("flame").uv)) == (2, 468)
    with pytest.raises(ModelNotFoundError):
        models.get("flame.texture")


def test_inverted_triangles_are_turned_together_with_their_texture(tmp_path):
    arrays = content()
    arrays["f"] = arrays["f"][:, [0, 2, 1]]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    corners = RANDOM.integers(0, 500, (898, 3))
    np.savez(tmp_path / "t.npz", vt=RANDOM.uniform(size=(500, 2)), ft=corners)
    model = load_flame(tmp_path / "a.pkl", texture=tmp_path / "t.npz")
    assert np.array_equal(model.triangles, triangles())
    assert np.array_equal(model.uv_triangles, corners[:, [0, 2, 1]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: b"", "damaged"),
        (lambda data: pickle.dumps({"v_template": np.zeros((3, 3))}), "'f'"),
        (lambda data: pickle.dumps([1, 2]), "no dictionary"),
        (lambda data: b"\x89HDF\r\n\x1a\n" + data, "is no FLAME model"),
    ],
)
def test_wrong_files_tell_remedy(flame, damage, message):
    """Wrong and damaged files are named with the remedy."""
    flame.write_bytes(damage(flame.read_bytes()))
    with raised(InvalidRequestError, match=message, field="morphable_model") as error:
        load_flame(flame)
    assert str(flame) in error.value.message
    assert "flame.is.tue.mpg.de" in error.value.message


def test_missing_file_and_wrong_embedding(flame, tmp_path):
    """A missing file and a wrong embedding are named."""
    with pytest.raises(InvalidRequestError, match="there is no FLAME model"):
        load_flame(tmp_path / "none.pkl")
    with pytest.raises(InvalidRequestError, match="embedding"):
        load_flame(flame, landmarks=flame)
