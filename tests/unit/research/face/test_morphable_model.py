"""Tests of the training of the face model: shapes of known modes, and albedo from pictures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.face import morphable_model
from research.face import morphable_model as training
from research.face.mesh_topology import mirror_map
from research.face.morphable_model import explained
from research.training.trainset import MANIFEST, ClipRow, TrainSet, manifest_line, part_path
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import FACE_OVAL
from services.common.geometry.lighting import ambient, shading, vertex_normals
from services.common.geometry.morphable_model import default_model
from services.common.store.tensor_bytes import encode_arrays

MODEL = default_model()
SHAPE = MODEL.mean_shape.astype(np.float64)
NORMALS = vertex_normals(SHAPE, MODEL.triangles)
ALBEDO_RANDOM = np.random.default_rng(12)
RANDOM = np.random.default_rng(9)
HEAD = head_template().astype(np.float64)
MIRROR = mirror_map(HEAD)


def test_colours_are_sampled_at_the_projected_vertices():
    x, y = np.meshgrid(np.arange(400), np.arange(400))
    picture = np.stack([x / 2, y / 2, 0 * x + 100], -1).astype(np.uint8)
    pose = HeadPose(1.0, np.eye(3), np.array([200.0, 250.0, 0.0]))
    colours = morphable_model.sample_colours(picture, SHAPE, pose)
    assert colours[4, 0] * 255 == pytest.approx((SHAPE[4, 0] + 200) / 2, abs=1.0)
    assert colours[4, 1] * 255 == pytest.approx((SHAPE[4, 1] + 250) / 2, abs=1.0)


def test_hidden_vertices_continue_their_neighbours():
    colours = np.broadcast_to(0.3 + 0.001 * SHAPE[:, 1:2], (1, 468, 3)).copy()
    weights = np.ones((1, 468))
    weights[0, 50] = 0.1
    spoilt = colours.copy()
    spoilt[0, [50, *FACE_OVAL]] = 9.0
    filled = morphable_model.filled_from_seen(spoilt, weights, MODEL.triangles)
    assert filled.max() < 0.5
    assert filled[0, 50] == pytest.approx(colours[0, 50], abs=0.02)
    kept = np.setdiff1d(np.arange(468), [50, *FACE_OVAL])
    assert np.array_equal(filled[:, kept], colours[:, kept])


def test_side_light_taken_out():
    """Light from the side is taken out of symmetric faces."""
    mirror = mirror_map(SHAPE)
    skin = ALBEDO_RANDOM.uniform(0.3, 0.6, (6, 1, 3)) * np.ones((6, 468, 1)) + 0.02 * ALBEDO_RANDOM.normal(size=(1, 468, 3))
    skin = (skin + skin[:, mirror]) / 2
    light = np.repeat(ambient()[None].astype(np.float64), 6, 0)
    light[:, 3] += np.linspace(-0.8, 0.8, 6)[:, None]  # from the left to the right
    normals = np.repeat(NORMALS[None], 6, 0)
    colours = skin * shading(normals, light)
    found = morphable_model.separate_light(colours, normals, np.ones((6, 468)), mirror)
    seen = NORMALS[:, 2] < -0.5

    def lopsided(values):
        return np.abs(values - values[:, mirror])[:, seen].mean() / values[:, seen].mean()

    assert lopsided(found) < 0.25 * lopsided(colours)


def symmetric(direction, sign):
    return (direction + sign * training.mirrored(direction, MIRROR)) / 2


def test_a_mirrored_face_mirrored_again_is_the_face():
    shape = RANDOM.normal(size=(2, 468, 3))
    assert training.mirrored(training.mirrored(shape, MIRROR), MIRROR) == pytest.approx(shape)


def test_known_modes_are_found():
    """Modes that shapes were made of are found each symmetric or antisymmetric."""
    modes = [10.0 * symmetric(RANDOM.normal(size=(468, 3)), 1), 5.0 * symmetric(RANDOM.normal(size=(468, 3)), -1)]
    offsets = RANDOM.normal(size=(100, 1, 1)) * modes[0] + RANDOM.normal(size=(100, 1, 1)) * modes[1]
    basis = training.principal_components(training.weighted_rows([(1.0, offsets)], MIRROR), 2)
    for found, true, sign in zip(basis.directions, modes, (1, -1), strict=True):
        cosine = (found * true).sum() / np.linalg.norm(found) / np.linalg.norm(true)
        assert abs(cosine) > 0.999
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(true), rel=0.25)
        assert training.mirrored(found, MIRROR) == pytest.approx(sign * found, abs=1e-6)
    assert explained(offsets, basis, [0, 1, 2])[2] == pytest.approx(1.0)
    assert explained(offsets, basis, [0, 1, 2])[0] == 0.0


def test_unknown_variance_explained_little():
    """Explained variance of what the basis does not know is small."""
    offsets = RANDOM.normal(size=(50, 468, 3))
    basis = training.principal_components(training.weighted_rows([(1.0, offsets[:5])], MIRROR), 3)
    assert explained(RANDOM.normal(size=(50, 468, 3)), basis, [3])[0] < 0.05


def training_clip(folder, name, speaker, split, frames=40, **facts):
    """Write a clip's track as `dubstage trainset` does, of a face that the committed model makes, and return the clip's row."""
    model = default_model()
    identity = RANDOM.normal(size=model.num_identity) if split == "train" else np.zeros(model.num_identity)
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
    path = part_path(folder, "00000", name, "track")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_arrays(arrays))
    known = {"source": "made", "licence": "CC0-1.0", "has_face": True, "frames": frames, "usable_frames": frames - 1, **facts}
    return ClipRow(name=name, shard="00000", file=f"{name}.mp4", sha256="", speaker=speaker, split=split, **known)


def write_set(folder, rows):
    (folder / MANIFEST).write_text("".join(map(manifest_line, rows)), encoding="utf-8")
    return TrainSet(folder)


@pytest.fixture
def data(tmp_path):
    rows = [training_clip(tmp_path, f"clip{number}", f"speaker{number}", "train") for number in range(4)]
    return write_set(tmp_path, [*rows, training_clip(tmp_path, "held_out", "stranger", "val")])


def test_set_becomes_low_rank_model(data):
    """A training set becomes a model of limited rank."""
    learned = training.learn(data, None, num_identity=20, num_expression=16, num_albedo=0)
    assert learned.model.num_identity == 7  # four speakers and their mirror images around their mean
    assert learned.model.num_expression == 16
    assert learned.model.albedo_mean is None
    assert learned.model.licence.startswith("Learned in dubstage from made (CC0-1.0).")
    assert learned.report["training_frames"] == 4 * 39
    assert learned.report["expression_explained"]["val stranger"][4] > 0.5


def test_unusable_frames_give_no_colours(data):
    """Unusable frames are left out and only clips with pixels give colours."""
    silhouette, later = replace(data.rows[0], has_pixels=False), replace(data.rows[1], first_frame=100)
    people = list(morphable_model.read_people(write_set(data.folder, [silhouette, later, *data.rows[2:]]), Path("videos")))
    assert [(one.split, one.speaker) for one in people][:2] == [("train", "speaker0"), ("train", "speaker1")]
    assert people[0].num_frames == len(people[0].shapes) == 39
    assert people[0].tracks == ()
    ((video, frames, poses),) = people[1].tracks
    assert video == Path("videos/clip1.mp4")
    assert 103 not in frames
    assert 104 in frames
    assert len(frames) == len(poses) == 39


def test_a_large_set_is_read_in_part(data, monkeypatch):
    monkeypatch.setattr(morphable_model, "MAX_FRAMES", 50)
    assert sum(len(one.shapes) for one in morphable_model.read_people(data, Path())) <= 75


def test_a_set_of_one_speaker_is_too_small(data):
    small = write_set(data.folder, data.rows[:1])
    with pytest.raises(InvalidRequestError, match="needs 2 speakers"):
        training.learn(small, None, num_identity=2, num_expression=2, num_albedo=0)


def test_the_command_writes_the_model_and_its_figures(data, tmp_path, monkeypatch):
    output, report = tmp_path / "model.safetensors", tmp_path / "report.json"
    arguments = ["--data", str(data.folder), "--output", str(output), "--report", str(report), "--expression", "8"]
    monkeypatch.setattr("sys.argv", ["morphable_model", *arguments])
    assert training.main() == 0
    model = type(default_model()).load(output)
    assert model.num_expression == 8
    assert json.loads(report.read_text())["digest"] == model.digest


def test_a_missing_set_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["morphable_model", "--data", str(tmp_path), "--output", str(tmp_path / "model.safetensors")])
    assert training.main() == 10
    assert "manifest.jsonl" in capsys.readouterr().err
