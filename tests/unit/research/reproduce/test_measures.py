"""Measurements of the protocols, on drawn people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.reproduce.everybody import SpeakerKept
from research.reproduce.headpose import measure_correlation
from research.reproduce.renderers import held_out_clips
from research.reproduce.run import Material
from research.reproduce.ugc import measure_style, measure_warp, unwarped_error
from research.training.trainset import TrainSet, part_path
from services.audio.identity_removal import RunningNormaliser
from services.common.errors import InvalidRequestError
from services.common.store.tensor_bytes import encode_arrays
from tests.unit.motion.made_clips import made_clip, write_set
from tests.unit.texture.conftest import DrawnPerson
from tests.unit.texture.train_sets import drawn_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    clips = {"a": ("ann", "train", 60), "b": ("bob", "val", 90)}
    return drawn_set(tmp_path_factory.mktemp("set"), DrawnPerson(), clips)


def material(data: TrainSet, folder: Path) -> Material:
    return Material(data=data, quick=True, scratch=folder, progress=lambda *_: None)


def test_unwarped_points_miss_by_distance() -> None:
    """Ef is the L1 distance at the measured points of the frames with a full window."""
    target = np.zeros((2, 13, 86, 2), np.float32)
    source = target.copy()
    source[:, 5:] += (1.0, -2.0)
    source[:, :5] += 50.0
    source[..., -8:, :] += 100.0
    assert unwarped_error(target, source) == pytest.approx(3.0)


def test_spline_fits_retrieved_points(data: TrainSet, tmp_path: Path) -> None:
    """A spline comes nearer than points that stay, and the network is another warp."""
    found = measure_warp(material(data, tmp_path))
    plain, spline, network = (found.numbers[row] for row in ("no warp", "TPS warp", "temporal warp"))
    assert 0.0 < spline["fitting"] < plain["fitting"]
    assert network["fitting"] != spline["fitting"]
    assert "temporal" not in plain
    assert "bob" in found.on


def test_short_clips_of_renderers_refused(tmp_path: Path) -> None:
    short = drawn_set(tmp_path, DrawnPerson(), {"a": ("ann", "val", 50)})
    with pytest.raises(InvalidRequestError, match="split `train`"):
        held_out_clips(material(short, tmp_path))


def test_longest_clip_of_renderers_taken(data: TrainSet, tmp_path: Path) -> None:
    assert [clip.row.name for clip in held_out_clips(material(data, tmp_path))] == ["b"]


@pytest.fixture
def spoken(tmp_path: Path) -> TrainSet:
    return write_set(tmp_path / "spoken", [made_clip(0), made_clip(4, "val", 150, "carl")])


def test_styles_are_compared_by_area(spoken: TrainSet, tmp_path: Path) -> None:
    found = measure_style(material(spoken, tmp_path))
    assert set(found.numbers) == {"with the person's style", "with the mean style", "personalised"}
    assert all(0.0 < numbers["ssiou"] < 1.0 for numbers in found.numbers.values())
    assert "carl" in found.on


def test_pose_relation_has_its_extremes(spoken: TrainSet, tmp_path: Path) -> None:
    numbers = {row: values["r"] for row, values in measure_correlation(material(spoken, tmp_path)).numbers.items()}
    assert numbers["smallest"] == numbers["mean of the videos"] == numbers["largest"]
    assert numbers["no relation"] == 0.0


def test_speaker_stays_in_plain_cepstra(spoken: TrainSet) -> None:
    row = spoken.rows[0]
    cepstra = np.random.default_rng(0).normal(0.0, 9.0, (row.frames, 4, 40)).astype(np.float32)
    path = part_path(spoken.folder, row.shard, row.name, "speech")
    names = ("identity_removed", "mel")
    removed = spoken.arrays(row, "speech", names)
    path.write_bytes(encode_arrays({**removed, "mfcc": cepstra}))
    kept = SpeakerKept(spoken)
    whole = kept.arrays(row, "speech", names)
    np.testing.assert_array_equal(whole["mel"], removed["mel"])
    assert whole["identity_removed"].shape == removed["identity_removed"].shape
    normal = RunningNormaliser().push(cepstra[..., :20].reshape(-1, 20))
    np.testing.assert_array_equal(whole["identity_removed"].reshape(-1, 20), normal)
    part = kept.arrays(row, "speech", names, slice(10, 20))
    np.testing.assert_array_equal(part["identity_removed"], whole["identity_removed"][10:20])
