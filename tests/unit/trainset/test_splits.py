"""Splits by speaker, and rows of the manifest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.trainset.catalogue import ClipEntry
from gateway.trainset.record import ClipRecord, PieceFacts
from gateway.trainset.rows import Rows, rows_of
from gateway.trainset.splits import held_out, split_by_speaker


def entry(file: str, split: str = "", *, pixels: bool = True) -> ClipEntry:
    return ClipEntry(file=file, source="x", speaker=file.partition("/")[0], split=split, has_pixels=pixels, weight=0.5)


def record(each: ClipEntry, *, lag: int = 0, confidence: float = -1.0, frames: int = 90) -> ClipRecord:
    piece = PieceFacts(
        name=each.name, first_frame=0, frames=frames, usable_frames=frames, lag_frames=lag, lag_confidence=confidence
    )
    return ClipRecord(
        file=each.file,
        shard="00000",
        sha256="",
        size=0,
        changed_ns=0,
        text="",
        audio_networks="",
        has_face=each.is_film,
        is_cut=False,
        pieces=(piece,),
    )


def rows(entries: Sequence[ClipEntry]) -> Rows:
    return rows_of(entries, {each.file: record(each) for each in entries}, {}, with_lags=True)


def held(found: Rows) -> list[str]:
    return [row.file for row in found.rows if row.split == "val"]


def test_whole_speakers_are_held_out_always_the_same() -> None:
    speakers = {f"speaker{number}" for number in range(20)}
    assert len(held_out(speakers)) == 3
    assert held_out(speakers) == held_out(sorted(speakers))
    assert held_out({"one", "two"}) == set()
    assert not held_out(speakers, spared=held_out(speakers)) & held_out(speakers)


def test_speakers_with_a_face_are_held_out_apart_from_the_others() -> None:
    entries = [entry(f"film{number}/a.mp4") for number in range(6)] + [entry(f"voice{number}/a.wav") for number in range(60)]
    splits = split_by_speaker(entries)
    val = [file for file, split in splits.items() if split == "val"]
    assert sum(file.endswith("mp4") for file in val) == 1
    assert sum(file.endswith("wav") for file in val) == 9


def test_what_is_stated_stays_and_a_training_speaker_is_not_held_out() -> None:
    stated = [entry(f"{name}/1.mp4", "train") for name in "abcd"] + [entry("e/1.mp4", "val"), entry("a/2.mp4", "dev")]
    free = [entry(f"{name}/9.mp4") for name in "abcdf"]
    splits = split_by_speaker([*stated, *free])
    assert {each.file: splits[each.file] for each in stated} == {each.file: each.split for each in stated}
    assert [splits[each.file] for each in free] == ["train"] * 4 + ["val"]


def test_the_speaker_of_most_clips_is_not_held_out() -> None:
    for name in "abc":
        entries = [entry(f"{name}/{number}.mp4") for number in range(8)] + [entry(f"{other}/1.mp4") for other in "abc"]
        splits = split_by_speaker(entries)
        assert splits[f"{name}/0.mp4"] == "train"
        assert sum(split == "val" for split in splits.values()) == 1


@pytest.mark.parametrize("speakers", [("a",) * 10, ("a",) * 6 + ("b",) * 4])
def test_of_few_speakers_the_last_clip_of_the_largest_is_held_out_and_that_is_told(speakers: tuple[str, ...]) -> None:
    found = rows([entry(f"{speaker}/{number}.mp4") for number, speaker in enumerate(speakers)])
    assert held(found) == [f"a/{speakers.count('a') - 1}.mp4"]
    assert ["is held out: there are too few speakers" in note for note in found.notes] == [True]


def test_each_kind_of_clip_has_a_held_out_one() -> None:
    voices = [entry(f"voice{number}/a.wav") for number in range(6)]
    motion = [entry(f"m/{number}.mp4", pixels=False) for number in range(3)]
    films = [entry(f"f/{number}.mp4") for number in range(2)]
    found = rows([*voices, *motion, *films])
    assert [name for name in held(found) if name.endswith(".mp4")] == ["f/1.mp4"]
    assert sum(name.endswith(".wav") for name in held(found)) == 1


def test_clips_that_are_stated_to_be_train_stay_so_and_the_lack_is_told() -> None:
    found = rows([entry(f"a/{number}.wav", "train") for number in range(3)])
    assert held(found) == []
    assert found.notes == [
        "no clip with sound is held out, because all are stated to be train: add clips of split val, since trainings choose their "
        "best step on them"
    ]
    (note,) = rows([entry("a/1.mp4")]).notes
    assert "there is only one" in note


def test_the_lag_of_short_clips_is_the_median_of_the_speakers_confident_clips() -> None:
    entries = [entry(f"{speaker}/{number}.mp4", "train") for speaker in "abc" for number in range(4)]
    measured = [(1, 0.5), (-9, 0.5), (1, 0.5), (7, 0.1), (3, 0.1), (3, 0.05), (0, -1.0), (2, 0.3), *[(4, 0.1)] * 4]
    records = {
        each.file: record(each, lag=lag, confidence=confidence) for each, (lag, confidence) in zip(entries, measured, strict=True)
    }
    found = rows_of(entries, records, {"a__1.mp4": "aligned"}, with_lags=True).rows
    assert [row.lag_frames for row in found] == [1] * 4 + [2] * 4 + [0] * 4
    assert [row.lag_confidence for row in found[:4]] == [0.5, 0.5, 0.5, 0.1]
    assert [row.phones for row in found[:3]] == ["", "aligned", ""]
    assert {row.speaker_hours for row in found} == {0.004}
    assert {row.weight for row in found} == {0.5}


def test_a_long_confident_clip_keeps_its_own_lag_unless_the_set_has_no_lags() -> None:
    entries = [entry(f"anna/{number}.mp4", "train") for number in range(4)]
    measured = [(2, 0.5, 90), (2, 0.5, 90), (6, 0.4, 500), (9, 0.1, 500)]
    records = {
        each.file: record(each, lag=lag, confidence=confidence, frames=frames)
        for each, (lag, confidence, frames) in zip(entries, measured, strict=True)
    }
    assert [row.lag_frames for row in rows_of(entries, records, {}, with_lags=True).rows] == [2, 2, 6, 2]
    without = rows_of(entries, records, {}, with_lags=False).rows
    assert {(row.lag_frames, row.lag_confidence) for row in without} == {(0, -1.0)}


def test_clips_that_are_not_finished_have_no_row() -> None:
    entries = [entry(f"{name}/1.wav") for name in "abcd"]
    found = rows_of(entries, {"b/1.wav": record(entries[1])}, {}, with_lags=True)
    assert [row.file for row in found.rows] == ["b/1.wav"]
