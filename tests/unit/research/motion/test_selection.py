"""Groups of held-out clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research.motion.clips import Clips, TrainingClip, array_bytes
from research.motion.protocol import Groups, checked_groups, groups_of, may_choose, named_scores, selected_on, selection_score
from research.training.trainset import BoundedCache, ClipRow
from services.common.errors import InvalidRequestError
from tests.unit.motion.made_clips import made_clip, write_set

SCORES = {"r_opening": 0.8, "r_width": 0.4, "lmd_ratio": 1.0}


def test_held_out_grouped_by_training(tmp_path: Path) -> None:
    """Held out clips are grouped by whether their speaker was trained on."""
    clips = [
        made_clip(0), made_clip(1, "val"), made_clip(2, "val", speaker="carl"),
        made_clip(3, "dev", speaker="dora"), made_clip(4, "people", speaker="emil"),
    ]  # fmt: skip
    groups = groups_of(write_set(tmp_path / "set", clips))
    assert {name: [clip.name for clip in members] for name, members in groups.items()} == {
        "known": ["clip1"], "new": ["clip2"], "dev": ["clip3"], "people": ["clip4"],
    }  # fmt: skip


def test_held_out_speaker_chooses_step(tmp_path: Path) -> None:
    """One held out speaker chooses the step and without one the last is kept."""
    one = write_set(tmp_path / "one", [made_clip(0), made_clip(2, "val", speaker="carl")])
    assert list(checked_groups(one)) == ["new"]
    none = checked_groups(write_set(tmp_path / "none", [made_clip(0), made_clip(2, "dev", speaker="dora")]))
    assert list(none) == ["dev"]
    assert not may_choose(none)
    assert checked_groups(write_set(tmp_path / "train", [made_clip(0)])) == {}


def test_clip_without_mouth_not_scored(tmp_path: Path) -> None:
    """A clip whose first part shows no mouth is not scored."""
    blank = made_clip(3, "val", 1300, "carl")
    blank.usable[:250] = False
    with pytest.raises(InvalidRequestError, match="long enough"):
        checked_groups(write_set(tmp_path / "blank", [made_clip(0), blank]))


def test_narrow_corpora_choose_no_step(tmp_path: Path) -> None:
    """Clips of narrow corpora alone do not choose the step."""

    def groups(**narrow: bool) -> Groups:
        clips = [made_clip(0), made_clip(1, "val"), made_clip(2, "val", speaker="carl"), made_clip(3, "dev", speaker="dora")]
        found = groups_of(write_set(tmp_path / str(sorted(narrow)), clips))
        return {
            name: Clips([replace(row, narrow=narrow.get(name, False)) for row in members.rows], BoundedCache(read, array_bytes))
            for name, members in found.items()
        }

    def read(_: ClipRow) -> TrainingClip:
        raise AssertionError("no clip is read")

    assert may_choose(groups())
    assert may_choose(groups(known=True))
    assert not may_choose(groups(known=True, new=True))


def test_dev_is_shown_and_not_selected_on() -> None:
    scores = {"new": SCORES, "dev": {**SCORES, "r_opening": 0.0}}
    assert selection_score(selected_on(scores)) == pytest.approx(0.8 + 0.2 - 0.5)
    assert named_scores(scores)["dev r_opening"] == 0.0
