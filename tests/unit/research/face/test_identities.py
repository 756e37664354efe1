"""Identities of the people of a training set, fitted to rendered videos."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from research.face.identities import people_of, prepare, spread
from research.training.trainset import MANIFEST, ClipRow, identity_path, manifest_line, part_path
from services.common.face.crops import fit_head_pose
from services.common.face.identity import identity_from_arrays
from services.common.geometry.morphable_model import default_model
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from tests.unit.face.fitting.synthetic_face import scene
from tests.unit.research.face.footage_files import write_video

FRAMES = 6


def row_of(name, speaker, split="train", **facts):
    known = {"sha256": "", "has_face": True, "frames": FRAMES, "usable_frames": FRAMES, **facts}
    return ClipRow(name=name, shard="00000", file=f"{name}.mkv", source="made", speaker=speaker, split=split, **known)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A set of one clip, and its video."""
    folder = tmp_path_factory.mktemp("footage")
    seen = scene(FRAMES)
    landmarks = seen.landmarks().astype(np.float32)
    poses = [fit_head_pose(points) for points in landmarks]
    arrays = {
        "landmarks": landmarks,
        "scale": np.array([pose.scale for pose in poses]),
        "rotation": np.stack([pose.rotation for pose in poses]),
        "translation": np.stack([pose.translation for pose in poses]),
        "mouth_landmarks": np.zeros((FRAMES, 59, 3), np.float32),
        "usable": np.ones(FRAMES, bool),
    }
    path = part_path(folder, "00000", "ann", "track")
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_arrays(arrays))
    write_video(folder / "ann.mkv", seen.pictures(range(FRAMES)))
    return folder


def test_people_get_identities_or_reason(footage):
    """Every person with pixels gets two identities once, and the others get a reason."""
    rows = [row_of("ann", "Ann/1"), row_of("bob", "Bob"), row_of("eve", "Eve", has_pixels=False)]
    (footage / MANIFEST).write_text("".join(map(manifest_line, rows)))
    steps = []
    reasons = prepare(footage, footage, 1, lambda done, count: steps.append((done, count)))
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert list(reasons) == ["Bob"]
    assert "bob.track.safetensors" in reasons["Bob"]
    many, still = (identity_path(footage, "Ann/1", still=still) for still in (False, True))
    counts = [identity_from_arrays(decode_arrays(path.read_bytes()), default_model()).num_frames for path in (many, still)]
    assert counts == [FRAMES, 1]
    written = many.stat().st_mtime_ns
    steps.clear()
    prepare(footage, footage, 1, lambda done, count: steps.append((done, count)))
    assert steps == [(1, 2), (2, 2)]
    assert many.stat().st_mtime_ns == written


def videos_of(footage, *names):
    """Write the video and the track of the set under further names."""
    for name in names:
        shutil.copyfile(footage / "ann.mkv", footage / f"{name}.mkv")
        shutil.copyfile(part_path(footage, "00000", "ann", "track"), part_path(footage, "00000", name, "track"))


def fitted(folder, *rows):
    """Prepare a set of these rows; return the names of the people who were fitted, and the files of identities."""
    (folder / MANIFEST).write_text("".join(map(manifest_line, rows)))
    before = {path: path.stat().st_mtime_ns for path in (folder / "identities").glob("*")}
    assert prepare(folder, folder, 1, lambda *_: None) == {}
    now = {path: path.stat().st_mtime_ns for path in (folder / "identities").iterdir()}
    new = {path.name.partition(".")[0] for path, time in now.items() if before.get(path) != time}
    return new, sorted(path.name for path in now)


@pytest.mark.long
def test_identities_follow_usable_footage(footage, tmp_path):
    """Identities follow the footage that may be learned from."""
    folder = shutil.copytree(footage, tmp_path / "set", ignore=shutil.ignore_patterns("identities"))
    videos_of(folder, "ann2", "bob")
    first, second, bob = row_of("ann", "ann", sha256="1"), row_of("ann2", "ann", sha256="2"), row_of("bob", "bob", sha256="3")
    of_ann, of_bob = ["ann.safetensors", "ann.still.safetensors"], ["bob.safetensors", "bob.still.safetensors"]
    assert fitted(folder, first, second, bob) == ({"ann", "bob"}, [*of_ann, *of_bob])
    assert fitted(folder, first, second, bob) == (set(), [*of_ann, *of_bob])
    assert fitted(folder, first, replace(second, has_pixels=False), bob) == ({"ann"}, [*of_ann, *of_bob])
    assert fitted(folder, first, bob) == (set(), [*of_ann, *of_bob])
    assert fitted(folder, replace(first, speaker="bob"), replace(bob, speaker="ann")) == ({"ann", "bob"}, [*of_ann, *of_bob])
    assert fitted(folder, replace(first, speaker="bob", split="val"), replace(bob, speaker="ann")) == ({"bob"}, [*of_ann, *of_bob])
    assert fitted(folder, replace(first, has_pixels=False), bob) == ({"bob"}, of_bob)
    assert fitted(folder, replace(bob, has_pixels=False)) == (set(), [])


def test_stale_identity_is_removed(footage, tmp_path):
    """An identity of other footage goes even if no new one can be fitted."""
    folder = shutil.copytree(footage, tmp_path / "set", ignore=shutil.ignore_patterns("identities"))
    fitted(folder, row_of("ann", "ann"))
    (folder / MANIFEST).write_text(manifest_line(row_of("gone", "ann", sha256="1")))
    assert list(prepare(folder, folder, 1, lambda *_: None)) == ["ann"]
    assert list((folder / "identities").iterdir()) == []


def test_a_video_that_is_gone_is_a_reason(footage, tmp_path):
    (footage / MANIFEST).write_text(manifest_line(row_of("ann", "Ann")))
    assert "ann.mkv" in prepare(footage, tmp_path, 1, lambda *_: None)["Ann"]


def test_held_out_fitted_to_beginning():
    """Held out people are fitted to the beginning of their clips."""
    held_out = row_of("b", "Bob", "val")
    people = people_of(
        [row_of("a", "Ann"), replace(row_of("a2", "Ann"), split="val"), held_out, row_of("c", "Eve", usable_frames=0)]
    )
    assert [(one.name, [row.name for row in one.rows], one.is_held_out) for one in people] == [
        ("Ann", ["a"], False),
        ("Bob", ["b"], True),
    ]
    usable = np.ones(100, bool)
    usable[0] = False
    assert spread(usable, 3, is_held_out=False).tolist() == [1, 50, 99]
    assert spread(usable, 3, is_held_out=True).tolist() == [1, 30, 59]
    assert spread(np.zeros(5, bool), 3, is_held_out=True).tolist() == []
