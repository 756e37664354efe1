"""Learning the face model: on shapes that are made of known modes."""

import json

import numpy as np
import pytest

from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.geometry.default_model import default_model
from services.common.store.tensor_bytes import encode_arrays
from services.face.train import morphable_model as training
from services.face.train.face_mesh_topology import mirror_map

RANDOM = np.random.default_rng(9)
HEAD = head_template().astype(np.float64)
MIRROR = mirror_map(HEAD)


def symmetric(direction, sign):
    return (direction + sign * training.mirrored(direction, MIRROR)) / 2


def test_a_mirrored_face_mirrored_again_is_the_face():
    shape = RANDOM.normal(size=(2, 468, 3))
    assert training.mirrored(training.mirrored(shape, MIRROR), MIRROR) == pytest.approx(shape)


def test_modes_that_shapes_were_made_of_are_found_each_symmetric_or_antisymmetric():
    modes = [10.0 * symmetric(RANDOM.normal(size=(468, 3)), 1), 5.0 * symmetric(RANDOM.normal(size=(468, 3)), -1)]
    offsets = RANDOM.normal(size=(100, 1, 1)) * modes[0] + RANDOM.normal(size=(100, 1, 1)) * modes[1]
    basis = training.principal_components(training.weighted_rows([(1.0, offsets)], MIRROR), 2)
    for found, true, sign in zip(basis.directions, modes, (1, -1), strict=True):
        cosine = (found * true).sum() / np.linalg.norm(found) / np.linalg.norm(true)
        assert abs(cosine) > 0.999
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(true), rel=0.25)
        assert training.mirrored(found, MIRROR) == pytest.approx(sign * found, abs=1e-6)
    assert training.explained(offsets, basis, [0, 1, 2])[2] == pytest.approx(1.0)
    assert training.explained(offsets, basis, [0, 1, 2])[0] == 0.0


def test_explained_variance_of_what_the_basis_does_not_know_is_small():
    offsets = RANDOM.normal(size=(50, 468, 3))
    basis = training.principal_components(training.weighted_rows([(1.0, offsets[:5])], MIRROR), 3)
    assert training.explained(RANDOM.normal(size=(50, 468, 3)), basis, [3])[0] < 0.05


def write_training_clip(folder, name, speaker, use, frames=40):
    """A clip as `dubstage trainset` writes it, of a face that the committed model makes."""
    model = default_model()
    identity = RANDOM.normal(size=model.num_identity) if use == "train" else np.zeros(model.num_identity)
    expression = 0.7 * RANDOM.normal(size=(frames, model.num_expression))
    shapes = model.shape(identity, expression)
    poses = [HeadPose(1.5, np.eye(3), np.array([300.0 + t, 200.0, 0.0])) for t in range(frames)]
    landmarks = np.zeros((frames, 478, 3), np.float32)
    landmarks[:, :468] = [to_frame(shape, pose) for shape, pose in zip(shapes, poses, strict=True)]
    arrays = {
        "landmarks": landmarks,
        "scale": np.array([pose.scale for pose in poses]),
        "rotation": np.array([pose.rotation for pose in poses]),
        "translation": np.array([pose.translation for pose in poses]),
        "usable": np.arange(frames) != 3,
    }
    metadata = {"clip": f"{name}.mp4", "use": use, "speaker": speaker}
    (folder / "clips").mkdir(exist_ok=True)
    (folder / "clips" / f"{name}.safetensors").write_bytes(encode_arrays(arrays, metadata))


@pytest.fixture
def trainset(tmp_path):
    for number in range(4):
        write_training_clip(tmp_path, f"clip{number}", f"speaker{number}", "train")
    write_training_clip(tmp_path, "held_out", "stranger", "val")
    return tmp_path


def test_a_training_set_becomes_a_model_of_limited_rank(trainset):
    learned = training.learn(trainset, None, num_identity=20, num_expression=16, num_albedo=0)
    assert learned.model.num_identity == 7  # four speakers and their mirror images around their mean
    assert learned.model.num_expression == 16
    assert learned.model.albedo_mean is None
    assert learned.report["training_frames"] == 4 * 39
    assert learned.report["expression_explained"]["val stranger"][4] > 0.5


def test_unusable_and_turned_frames_are_left_out(trainset):
    clips = list(training.read_clips(trainset, frozenset({"train"})))
    assert [clip.speaker for clip in clips] == ["speaker0", "speaker1", "speaker2", "speaker3"]
    assert 3 not in clips[0].frames
    assert len(clips[0].shapes) == len(clips[0].poses) == 39


def test_the_command_writes_the_model_and_its_figures(trainset, tmp_path, monkeypatch):
    output, report = tmp_path / "model.safetensors", tmp_path / "report.json"
    monkeypatch.setattr(
        "sys.argv",
        ["morphable_model", "--trainset", str(trainset), "--output", str(output), "--report", str(report), "--expression", "8"],
    )
    training.main()
    model = type(default_model()).load(output)
    assert model.num_expression == 8
    assert json.loads(report.read_text())["digest"] == model.digest
