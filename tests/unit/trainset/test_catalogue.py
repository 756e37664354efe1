from __future__ import annotations

from pathlib import Path

import pytest

from gateway.trainset.build import lags_by_speaker
from gateway.trainset.catalogue import ClipEntry, held_out, list_clips
from gateway.trainset.clip import ClipFacts
from services.common.errors import InvalidRequest

USES = frozenset({"train", "val"})


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_catalogue_says_whose_the_clips_are(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/2.mp4", "speech.wav", "b.mkv")
    (tmp_path / "catalogue.csv").write_text(
        "file,use,speaker,licence,transcript,other\n"
        'a/1.mp4,train,ann,CC0,"yes, no",x\na/2.mp4,test,ann,CC0,,x\nb.mkv,val,,CC0,,x\n'
        "speech.wav,train,ann,CC0,,x\ngone.mp4,train,ann,CC0,,x\n"
    )
    assert list_clips(tmp_path, USES) == [
        ClipEntry("a/1.mp4", "train", "ann", "CC0", "yes, no"),
        ClipEntry("b.mkv", "val", "b", "CC0", ""),
    ]


def test_without_one_the_sub_folder_is_the_speaker(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.mp4", "ann/more/2.MOV", "film.mkv", "notes.txt")
    clips = list_clips(tmp_path, USES)
    assert [(clip.name, clip.speaker) for clip in clips] == [
        ("ann__1.mp4", "ann"),
        ("ann__more__2.MOV", "ann"),
        ("film.mkv", "film"),
    ]


def test_whole_speakers_are_held_out_always_the_same() -> None:
    speakers = {f"speaker{number}" for number in range(20)}
    assert len(held_out(speakers)) == 3
    assert held_out(speakers) == held_out(speakers | set())
    assert held_out({"one", "two"}) == set()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no such folder"):
        list_clips(tmp_path / "missing", USES)
    with pytest.raises(InvalidRequest, match="no film"):
        list_clips(tmp_path, USES)
    (tmp_path / "catalogue.csv").write_text("file,use\n")
    with pytest.raises(InvalidRequest, match="licence, speaker, transcript"):
        list_clips(tmp_path, USES)


def test_the_lag_of_a_speaker_is_the_median_of_the_clips() -> None:
    def facts(lag: int, confidence: float = 1.0) -> ClipFacts:
        return ClipFacts(75, 75, lag, confidence, "")

    entries = [ClipEntry(f"{speaker}/{number}.mp4", "train", speaker, "", "") for speaker in "ab" for number in range(3)]
    measured = [facts(1), facts(-9), facts(1), facts(0, -1.0), facts(0, -1.0), facts(0, -1.0)]
    lags = lags_by_speaker(dict(zip(entries, measured, strict=True)))
    assert lags == {"a__0.mp4": 1, "a__1.mp4": 1, "a__2.mp4": 1}
