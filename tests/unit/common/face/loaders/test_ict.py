"""ICT-FaceKit files: a small folder of OBJ files, and the arrays made of it."""

import json

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.loaders import ict, load_model
from services.common.face.loaders.ict import load_ict
from services.common.geometry.morphable_model import default_model
from tests.unit.common.face.loaders.foreign import RANDOM, SIXTY_EIGHT, basis, head, in_head_space, triangles

NAMES = ["browDown_L", "jawOpen", "mouthFunnel"]
UV = RANDOM.uniform(size=(468, 2))


def write_obj(path, vertices, with_faces=False):
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    if with_faces:
        lines += [f"vt {u:.6f} {v:.6f}" for u, v in UV]
        lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in triangle) for triangle in triangles()]
    path.write_text("\n".join(["# made by a test", *lines]) + "\n")


@pytest.fixture
def folder(tmp_path):
    """The head in centimetres, with 5 vertices behind it that are no face."""
    behind = RANDOM.normal(size=(5, 3))
    neutral = np.concatenate([head(0.1), behind])
    write_obj(tmp_path / "generic_neutral_mesh.obj", neutral, with_faces=True)
    identities, expressions = basis(4, 0.1), basis(3, 0.1)
    for number in range(4):
        write_obj(tmp_path / f"identity{number:03d}.obj", neutral + np.concatenate([identities[..., number], np.zeros((5, 3))]))
    for number, name in enumerate(NAMES):
        write_obj(tmp_path / f"{name}.obj", neutral + np.concatenate([expressions[..., number], np.zeros((5, 3))]))
    (tmp_path / "vertex_indices.json").write_text(json.dumps({"expressions": NAMES, "idx_to_landmark_verts": SIXTY_EIGHT.tolist()}))
    return tmp_path, identities, expressions


def test_a_folder_becomes_a_model_in_head_space(folder, monkeypatch):
    monkeypatch.setattr(ict, "FACE_VERTICES", 468)
    path, _, expressions = folder
    model = load_model(path)
    assert in_head_space(model)
    assert (model.num_identity, model.num_expression) == (4, 3)
    assert np.array_equal(model.triangles, default_model().triangles)
    assert model.uv == pytest.approx(np.stack([UV[:, 0], 1 - UV[:, 1]], -1), abs=1e-5)
    scale = np.linalg.norm(model.mean_shape[4] - model.mean_shape[152]) / np.linalg.norm(head(0.1)[4] - head(0.1)[152])
    # A weight of 1 is the whole blendshape.
    assert np.linalg.norm(model.expression_basis[..., 1], axis=1) == pytest.approx(
        scale * np.linalg.norm(expressions[..., 1], axis=1), rel=2e-3, abs=2e-3
    )


def test_the_arrays_give_the_same_model(folder, monkeypatch):
    monkeypatch.setattr(ict, "FACE_VERTICES", 468)
    path, identities, expressions = folder
    content = {
        "neutral_mesh": head(0.1), "uv_neutral_mesh": UV, "faces": triangles(), "uv_faces": triangles(),
        "num_identity": 4, "num_expression": 3,
        "identity_shape_modes": np.moveaxis(identities, -1, 0), "expression_shape_modes": np.moveaxis(expressions, -1, 0),
    }  # fmt: skip
    np.save(path / "ict_facekit_torch.npy", content, allow_pickle=True)
    ours, theirs = load_ict(path / "ict_facekit_torch.npy"), load_ict(path)
    assert ours.mean_shape == pytest.approx(theirs.mean_shape, abs=0.01)
    assert ours.expression_basis == pytest.approx(theirs.expression_basis, abs=0.01)


def test_damaged_parts_tell_remedy(folder):
    """Missing and damaged parts are named with the remedy."""
    path = folder[0]
    (path / "jawOpen.obj").write_text("v 1 2 3\n")
    with pytest.raises(InvalidRequestError, match=r"jawOpen\.obj.*1 vertices instead of 473.*ICT-FaceKit"):
        load_ict(path)
    (path / "jawOpen.obj").unlink()
    with pytest.raises(InvalidRequestError, match=r"jawOpen\.obj"):
        load_ict(path)
    (path / "vertex_indices.json").write_text("{")
    with pytest.raises(InvalidRequestError, match=r"vertex_indices\.json"):
        load_ict(path)
