"""Training clips that are read from a training set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.motion.clips import Clips, TrainingClip, array_bytes, as_filmed, clips_of, length_of, read_clip, shifted
from research.training.trainset import BoundedCache, ClipRow, part_path
from services.common.errors import InvalidRequestError
from tests.unit.motion.made_clips import in_memory, made_clip, row_of, write_set


def test_a_lag_is_taken_out_of_a_clip() -> None:
    clip = made_clip(0)
    late = shifted(clip, 3)
    assert len(late) == len(clip) - 3
    np.testing.assert_array_equal(late.mouth_landmarks[0], clip.mouth_landmarks[0])
    np.testing.assert_array_equal(late.poses, clip.poses[: len(clip) - 3])
    np.testing.assert_array_equal(late.content[0], clip.content[3])
    early = shifted(clip, -2)
    np.testing.assert_array_equal(early.mouth_landmarks[0], clip.mouth_landmarks[2])
    np.testing.assert_array_equal(early.poses, clip.poses[2:])
    np.testing.assert_array_equal(early.content[0], clip.content[0])


@pytest.mark.parametrize("lag_frames", [3, -2, 0])
def test_filmed_clip_keeps_its_lag(tmp_path: Path, lag_frames: int) -> None:
    """A clip as it was filmed has the pictures of the clip without lag, each with the sound of its own time."""
    clip = made_clip(0)
    filmed, moved = as_filmed(clip, lag_frames), shifted(clip, lag_frames)
    begin = max(0, -lag_frames)
    np.testing.assert_array_equal(filmed.mouth_landmarks, moved.mouth_landmarks)
    np.testing.assert_array_equal(filmed.content, clip.content[begin : begin + len(moved)])
    data = write_set(tmp_path / "set", [clip], {"clip0": lag_frames})
    read = read_clip(data, data.rows[0], filmed=True)
    np.testing.assert_array_equal(read.mouth_landmarks, filmed.mouth_landmarks)
    np.testing.assert_array_equal(read.features.posteriorgram, filmed.features.posteriorgram)


def test_clips_by_split_without_lags(tmp_path: Path) -> None:
    """Clips are read by split and without their lags."""
    made = [made_clip(0), made_clip(1, "val")]
    data = write_set(tmp_path / "set", made, {"clip0": 4})
    (found,) = clips_of(data, "train", ("identity_removed",))
    assert (found.name, found.speaker, len(found)) == ("clip0", "anna", 86)
    np.testing.assert_array_equal(found.features.extra["identity_removed"], made[0].features.extra["identity_removed"][4:])
    np.testing.assert_allclose(found.poses, made[0].poses[:86], atol=1e-9)
    with pytest.raises(InvalidRequestError, match="split 'dev'"):
        clips_of(data, "dev")


def test_rarely_seen_mouths_left_out(tmp_path: Path) -> None:
    """Clips that hardly show the mouth are left out."""
    hidden = made_clip(0)
    hidden.usable[:40] = False
    data = write_set(tmp_path / "set", [hidden, made_clip(1, num_frames=30)])
    with pytest.raises(InvalidRequestError, match="shows the mouth in 36 frames"):
        clips_of(data, "train")


def test_track_and_sound_of_another_length_are_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", [made_clip(0, num_frames=90)])
    other = write_set(tmp_path / "other", [made_clip(0, num_frames=80)])
    row = data.rows[0]
    part_path(data.folder, row.shard, row.name, "speech").write_bytes(
        part_path(other.folder, row.shard, row.name, "speech").read_bytes()
    )
    with pytest.raises(InvalidRequestError, match=r"clip0 has 90 frames .* 80 "):
        clips_of(data, "train")[0]


def test_few_clips_spread_over_speakers() -> None:
    """Few clips of many are spread over the speakers."""
    many = in_memory([made_clip(index, num_frames=40, speaker="anna" if index < 9 else f"s{index}") for index in range(12)])
    few = many.chosen(5, seed=3)
    assert few.rows == many.chosen(5, seed=3).rows
    assert sorted(few.by_speaker()) == ["anna", "s10", "s11", "s9"]
    assert [many.rows.index(row) for row in few.rows] == sorted(many.rows.index(row) for row in few.rows)
    assert many.chosen(12, seed=3) is many
    assert [clip.name for clip in many.evenly(3)] == ["clip0", "clip6", "clip11"]


def test_memory_of_clips_is_bounded() -> None:
    made = {row_of(clip): clip for clip in (made_clip(index) for index in range(4))}
    read: list[str] = []

    def clip_of(row: ClipRow) -> TrainingClip:
        read.append(row.name)
        return made[row]

    clips = Clips(made, BoundedCache(clip_of, array_bytes, max_bytes=2 * array_bytes(made_clip(0))))
    for _ in range(2):
        assert [clip.name for clip in clips] == [row.name for row in made]
    assert read == 2 * [row.name for row in made]
    assert clips[3] is clips[1:][2]
    assert len(read) == 8


def test_the_length_of_a_clip_counts_its_lag() -> None:
    assert length_of(replace(row_of(made_clip(0)), lag_frames=-5)) == 83
