"""Tests of the build of a training set: splits by speaker, manifest rows, preparations, and a full disk."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from research.training.trainset import ClipRow, TrainSet, part_path, write_manifest
from research.trainset import build as build_module
from research.trainset.build import BuildOrder, Rows, build, held_out, prepare, rows_of, split_by_speaker
from research.trainset.catalogue import ClipEntry
from research.trainset.output_folder import ClipRecord, PieceFacts, in_output
from services.common.errors import InvalidRequestError, StorageFullError
from services.common.store.tensor_bytes import encode_arrays
from tests.file_limit import files_of_at_most

ROWS = [ClipRow(name=name, shard="00000", file=name, sha256="", source="x", speaker=name, split="train") for name in "ab"]


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
        has_face=each.is_video,
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


def test_held_out_speakers_with_face() -> None:
    """Speakers with a face are held out apart from the others."""
    entries = [entry(f"film{number}/a.mp4") for number in range(6)] + [entry(f"voice{number}/a.wav") for number in range(60)]
    splits = split_by_speaker(entries)
    val = [file for file, split in splits.items() if split == "val"]
    assert sum(file.endswith("mp4") for file in val) == 1
    assert sum(file.endswith("wav") for file in val) == 9


def test_stated_splits_stay() -> None:
    """Stated splits stay, and a training speaker is not held out."""
    stated = [entry(f"{name}/1.mp4", "train") for name in "abcd"] + [entry("e/1.mp4", "val"), entry("a/2.mp4", "dev")]
    free = [entry(f"{name}/9.mp4") for name in "abcdf"]
    splits = split_by_speaker([*stated, *free])
    assert {each.file: splits[each.file] for each in stated} == {each.file: each.split for each in stated}
    assert [splits[each.file] for each in free] == ["train"] * 4 + ["val"]


def test_largest_speaker_not_held_out() -> None:
    """The speaker of most clips is not held out."""
    for name in "abc":
        entries = [entry(f"{name}/{number}.mp4") for number in range(8)] + [entry(f"{other}/1.mp4") for other in "abc"]
        splits = split_by_speaker(entries)
        assert splits[f"{name}/0.mp4"] == "train"
        assert sum(split == "val" for split in splits.values()) == 1


@pytest.mark.parametrize("speakers", [("a",) * 10, ("a",) * 6 + ("b",) * 4])
def test_few_speakers_last_clip(speakers: tuple[str, ...]) -> None:
    """The last clip of the largest of few speakers is held out, and the report says so."""
    found = rows([entry(f"{speaker}/{number}.mp4") for number, speaker in enumerate(speakers)])
    assert held(found) == [f"a/{speakers.count('a') - 1}.mp4"]
    assert ["is held out: there are too few speakers" in note for note in found.notes] == [True]


def test_clip_kinds_have_held_out() -> None:
    """Each kind of clip has a held out one."""
    voices = [entry(f"voice{number}/a.wav") for number in range(6)]
    motion = [entry(f"m/{number}.mp4", pixels=False) for number in range(3)]
    videos = [entry(f"f/{number}.mp4") for number in range(2)]
    found = rows([*voices, *motion, *videos])
    assert [name for name in held(found) if name.endswith(".mp4")] == ["f/1.mp4"]
    assert sum(name.endswith(".wav") for name in held(found)) == 1


def test_stated_train_clips_stay() -> None:
    """Clips that are stated to be train stay so, and the lack is reported."""
    found = rows([entry(f"a/{number}.wav", "train") for number in range(3)])
    assert held(found) == []
    assert found.notes == [
        "no clip with sound is held out, because all are stated to be train: add clips of split val, since trainings choose their "
        "best step on them"
    ]
    (note,) = rows([entry("a/1.mp4")]).notes
    assert "there is only one" in note


def test_short_lag_is_speaker_median() -> None:
    """The lag of short clips is the median of the speaker's confident clips."""
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


def test_long_clip_keeps_own_lag() -> None:
    """A long confident clip keeps its own lag unless the set has no lags."""
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


def _full(*_: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def _clip_on_a_full_disk(tasks: Iterator[Any], *_: Any) -> Iterator[NoReturn]:
    next(tasks)
    with in_output(Path("set")):
        _full()
    yield _full()


@pytest.mark.parametrize("has_room_for_the_manifest", [True, False])
def test_full_disk_while_writing_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_room_for_the_manifest: bool
) -> None:
    """A full disk is reported whether the manifest can be written or not."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.wav").touch()
    monkeypatch.setattr(build_module, "in_processes", _clip_on_a_full_disk)
    monkeypatch.setattr(build_module, "networks_digest", lambda _: "0")
    if not has_room_for_the_manifest:
        monkeypatch.setattr(build_module, "write_refused", _full)
    with pytest.raises(StorageFullError, match=r"no space left in"):
        build(BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set"), lambda *_: None, lambda _: None)


@dataclass(frozen=True)
class Step:
    name: str
    prepare: Callable[[Path, Path, int, Callable[[int, int], None]], Mapping[str, str]]


@pytest.fixture
def order(tmp_path: Path) -> BuildOrder:
    (tmp_path / "set" / "shards" / "00000").mkdir(parents=True)
    write_manifest(tmp_path / "set", ROWS)
    return BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set", processes=3)


def label(folder: Path, clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    assert (clips.name, processes) == ("clips", 3)
    path = part_path(folder, "00000", "a", "phones")
    path.write_bytes(encode_arrays({"labels": np.zeros(4, np.uint8)}, {"origin": "recognised"}))
    progress(2, 2)
    return {"b": "no speech"}


def fail(*_: object) -> Mapping[str, str]:
    raise InvalidRequestError("a network is missing", field="data")


def test_preparations_show_progress_and_note_phones_and_reasons(order: BuildOrder) -> None:
    shown: list[tuple[str, int, int]] = []
    said: list[str] = []
    rows = prepare(order, [Step("phones", label)], lambda *each: shown.append(each), said.append)
    assert [row.phones for row in rows] == ["recognised", ""]
    assert list(TrainSet(order.output).rows) == rows
    assert shown == [("phones", 2, 2)]
    assert said == ["phones: b: no speech"]
    missing = [json.loads(line) for line in (order.output / "incomplete.jsonl").read_text().splitlines()]
    assert missing == [{"clip": "b", "step": "phones", "reason": "no speech"}]


def test_failed_preparation_spares_others(order: BuildOrder) -> None:
    """A preparation that fails does not keep the others from their work."""
    with pytest.raises(InvalidRequestError, match="a network is missing"):
        prepare(order, [Step("identities", fail), Step("phones", label)], lambda *_: None, lambda _: None)
    assert [row.phones for row in TrainSet(order.output).rows] == ["recognised", ""]


def test_a_full_disk_ends_the_preparations(order: BuildOrder) -> None:
    with (
        files_of_at_most(40),
        pytest.raises(StorageFullError, match=r"no space left in .*/set"),
    ):
        prepare(order, [Step("phones", label)], lambda *_: None, lambda _: None)
