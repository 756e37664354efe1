"""Parts of a training set that grow along the axes of a learning curve, and the command that trains on the parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import InvalidRequest
from services.motion.train import learning_curve
from services.motion.train.clips import clips_of
from services.motion.train.curve_parts import (
    Part,
    by_free_speech,
    by_minutes,
    by_narrow_speakers,
    by_speakers,
    equal_minutes,
    in_turns,
    minutes_of,
    with_part,
)
from services.motion.train.learning_curve import CURVE, PICTURE, draw, main, read_curve
from services.motion.train.selection import groups_of
from services.training.trainset.manifest import ClipRow
from tests.unit.motion.made_clips import made_clip, row_of, small_set, write_set

ROW = row_of(made_clip(0))
SECOND = 25


def rows_of(seconds: dict[str, list[int]], *, narrow: bool = False) -> list[ClipRow]:
    """Rows by the seconds of each speaker's clips."""
    return [
        replace(ROW, name=f"{speaker}{place}", speaker=speaker, usable_frames=length * SECOND, narrow=narrow)
        for speaker, lengths in seconds.items()
        for place, length in enumerate(lengths)
    ]


CORPUS = [*rows_of({"grid1": [3] * 200, "grid2": [3] * 4, "grid3": [3]}, narrow=True), *rows_of({"free1": [60, 30], "free2": [20]})]


def names(part: Part) -> set[str]:
    return {row.name for row in part.rows}


def test_every_beginning_has_as_many_speakers_as_possible() -> None:
    rows = rows_of({"anna": [2] * 9, "ben": [4, 4], "carl": [3]})
    order = in_turns(rows, 0)
    assert sorted(row.name for row in order) == sorted(row.name for row in rows)
    assert [row.speaker for row in order][:6] == ["anna", "carl", "ben", "anna", "anna", "ben"]
    assert in_turns(rows, 0) == order


def test_seeds_draw_other_clips() -> None:
    assert in_turns(CORPUS, 0) != in_turns(CORPUS, 1)


def test_parts_by_minutes_contain_the_smaller_parts() -> None:
    parts = by_minutes(CORPUS, 0)
    assert [part.point.minutes for part in parts] == pytest.approx([2.0, 5.0, 10.0, minutes_of(CORPUS)], abs=0.1)
    assert all(small.issubset(large) for small, large in zip(map(names, parts), map(names, parts[1:]), strict=False))
    assert parts[0].point.speakers == 5
    assert len(parts[-1].rows) == len(CORPUS)


def test_parts_by_speakers_have_equal_minutes() -> None:
    parts = by_speakers(CORPUS, 0)
    assert [part.point.speakers for part in parts] == [1, 2, 5]
    assert {row.speaker for row in parts[0].rows} == {"grid1"}
    assert [part.point.minutes for part in parts] == pytest.approx([equal_minutes(CORPUS, 0)] * 3, abs=0.5)
    narrow = by_narrow_speakers(CORPUS, 0)
    assert [part.point.speakers for part in narrow] == [1, 2, 3]
    assert {part.point.minutes for part in narrow} == {0.5}


def test_the_speaker_with_the_most_footage_limits_equal_minutes() -> None:
    assert equal_minutes(rows_of({"anna": [6], "ben": [5]}), 0) == pytest.approx(0.1)


def test_parts_by_free_speech_have_all_narrow_footage() -> None:
    parts = by_free_speech(CORPUS, 0)
    assert parts[0].point.free_minutes == 0.0
    assert parts[-1].point.free_minutes == pytest.approx(110 / 60, abs=0.01)
    assert all(small.issubset(large) for small, large in zip(map(names, parts), map(names, parts[1:]), strict=False))
    assert all(sum(row.narrow for row in part.rows) == 205 for part in parts)
    assert by_free_speech([row for row in CORPUS if row.narrow], 0) == []
    assert by_narrow_speakers([row for row in CORPUS if row.narrow], 0) == []


def test_a_part_leaves_the_groups_of_held_out_clips_as_they_are(tmp_path: Path) -> None:
    clips = [made_clip(0), made_clip(2), made_clip(3, "val"), made_clip(5, "val"), made_clip(4, "val", speaker="carl")]
    data = write_set(tmp_path / "set", clips)
    part = by_speakers(clips_of(data, "train").rows, 0)[0]
    cut = with_part(data, part)
    assert clips_of(cut, "train").rows == part.rows
    before, after = ({name: [row.name for row in group.rows] for name, group in groups_of(each).items()} for each in (data, cut))
    assert after == before == {"known": ["clip3", "clip5"], "new": ["clip4"]}


def test_another_set_or_number_of_steps_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = small_set(tmp_path / "set").folder, tmp_path / "curve"
    folder.mkdir()
    (folder / "settings.json").write_text('{"network": "ugc_motion", "steps": 3, "manifest_sha256": ""}')
    assert main(["--data", str(data), "--output", str(folder), "--steps", "2"]) == 10
    assert "another steps, manifest_sha256; choose another folder" in capsys.readouterr().err


def test_a_set_without_held_out_clips_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "set", [made_clip(0), made_clip(1)]).folder
    assert main(["--data", str(data), "--output", str(tmp_path / "curve"), "--steps", "2"]) == 10
    assert "split 'val'" in capsys.readouterr().err


def test_a_damaged_curve_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CURVE
    path.write_text("axis,seed\nminutes,many\n")
    with pytest.raises(InvalidRequest, match="delete the file"):
        read_curve(path)


def test_the_picture_shows_several_seeds_and_no_free_speech(tmp_path: Path) -> None:
    scores = {"group": "new", "r_opening": 0.5, "lmd_ratio": 0.9}
    points = [part.point for seed in (0, 1) for part in by_free_speech(CORPUS, seed)]
    fields = ("axis", "seed", "minutes", "free_minutes", "speakers", "clips")
    measured = [learning_curve.Measurement(**{name: getattr(point, name) for name in fields}, **scores) for point in points]
    draw(measured, tmp_path / PICTURE)
    assert (tmp_path / PICTURE).is_file()
