"""Parts of a training set that grow along the axes of the learning curve, and the command that fits the map on the parts."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from research.methods.dubstage.learning_curve import CURVE, OTHERS, PICTURE, SHARES, cut, main, parts_of
from tests.unit.motion.made_clips import made_clip, write_set

SPEAKERS = [f"person{index}" for index in range(8)]


def test_parts_of_one_seed_contain_each_other() -> None:
    parts = [part for part in parts_of(SPEAKERS, 0) if part.axis == "speakers"]
    assert [len(part.chosen) for part in parts] == [3, 6, 8]
    assert parts[0].chosen < parts[1].chosen < parts[2].chosen == set(SPEAKERS)
    assert [part.share for part in parts_of(SPEAKERS, 0) if part.axis == "minutes"] == list(SHARES)


def test_seeds_draw_other_speakers() -> None:
    """Further seeds draw other speakers and do not repeat the part of all."""
    first, second = ([part for part in parts_of(SPEAKERS, seed) if part.axis == "speakers"] for seed in (0, 1))
    assert [len(part.chosen) for part in second] == [3, 6]
    assert first[0].chosen != second[0].chosen
    assert list(parts_of(SPEAKERS, 1)) == second


@pytest.mark.parametrize("share", SHARES)
def test_the_beginning_of_a_clip_is_learned_from(share: float) -> None:
    clip = made_clip(0, num_frames=80)
    np.testing.assert_array_equal(np.flatnonzero(cut(clip, share).usable), np.arange(80 * share))


def test_the_command_writes_figures_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = [made_clip(index, num_frames=150, speaker=f"person{index}") for index in range(4)]
    write_set(tmp_path / "set", [*train, made_clip(5, "dev", 150, "carl")])
    assert main(["--data", str(tmp_path / "set"), "--output", str(tmp_path / "curve"), "--seeds", "1"]) == 0
    with (tmp_path / "curve" / CURVE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["axis"], row["speakers"], row["group"]) for row in rows} == {
        ("speakers", "3", "dev"),
        ("speakers", "3", OTHERS),
        ("speakers", "4", "dev"),
        ("minutes", "4", "dev"),
    }
    assert [float(row["minutes"]) for row in rows if row["axis"] == "minutes" and row["personal"] == "True"] == pytest.approx(
        [0.05, 0.1, 0.2, 0.4], abs=0.01
    )
    assert all(-1.0 <= float(row["r_opening"]) <= 1.0 for row in rows)
    assert (tmp_path / "curve" / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert "personalised" in capsys.readouterr().out


def test_too_few_speakers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "set", [made_clip(0, speaker="anna"), made_clip(1, speaker="ben")])
    assert main(["--data", str(tmp_path / "set"), "--output", str(tmp_path / "curve")]) != 0
    assert "2 speakers of free speech" in capsys.readouterr().err
    assert not (tmp_path / "curve").exists()
