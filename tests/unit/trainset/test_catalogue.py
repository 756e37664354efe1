"""Which clips a folder has, whose they are, and what their split is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.trainset.catalogue import ClipEntry, Listing, list_clips
from gateway.trainset.corpus import Corpus, Source
from services.common.errors import InvalidRequest

SPLITS = frozenset({"train", "val"})
HEAD = "file,use,speaker,licence,transcript,other\n"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def entries(listing: Listing) -> dict[str, ClipEntry]:
    return {entry.file: entry for entry in listing.entries}


def test_a_catalogue_says_whose_the_clips_are(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/2.mp4", "a/3.mp4", "a/4.mp4", "speech.wav", "b.mkv", "notes.txt")
    (tmp_path / "catalogue.csv").write_text(
        f'{HEAD}a/1.mp4,train,ann,CC0,"yes,\n no",x\na/2.mp4,test,ann,CC0,,x\na/3.mp4,train_motion,ann,,,x\na/4.mp4,,,,,x\n'
        "b.mkv,val,,CC0,,x\nspeech.wav,train,ann,CC0,,x\ngone.mp4,train,ann,CC0,,x\nb.mkv,val,,,,x\n../c.mp4,train,,,,x\n"
        "notes.txt,train,,,,x\n"
    )
    listing = list_clips(tmp_path, SPLITS)
    found = entries(listing)
    assert sorted(found) == ["a/1.mp4", "a/3.mp4", "a/4.mp4", "b.mkv", "speech.wav"]
    first = found["a/1.mp4"]
    assert (first.split, first.speaker, first.licence, first.transcript) == ("train", "ann", "CC0", "yes, no")
    assert (first.has_pixels, first.source, first.weight) == (True, tmp_path.name, 1.0)
    assert (found["a/3.mp4"].split, found["a/3.mp4"].has_pixels) == ("train", False)
    assert (found["a/4.mp4"].split, found["a/4.mp4"].speaker) == ("", "a/4")
    assert (found["b.mkv"].split, found["b.mkv"].speaker) == ("val", "b")
    assert listing.refused == {
        "gone.mp4": "no such file",
        "b.mkv": "the catalogue lists the file twice",
        "../c.mp4": "the catalogue names a file outside of the folder",
    }
    assert entries(list_clips(tmp_path, SPLITS | {"test"}))["a/2.mp4"].split == "test"


def test_the_language_is_the_catalogues_or_the_corpus_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/2.mp4", "b/3.mp4")
    corpus = Corpus(source=(Source(name="a", files=("a/*",), language="en"),))
    head = HEAD.replace("other", "language")
    (tmp_path / "catalogue.csv").write_text(f"{head}a/1.mp4,train,ann,,,de\na/2.mp4,train,ann,,,\nb/3.mp4,train,ben,,,\n")
    found = entries(list_clips(tmp_path, SPLITS, corpus))
    assert [found[file].language for file in ("a/1.mp4", "a/2.mp4", "b/3.mp4")] == ["de", "en", ""]
    (tmp_path / "catalogue.csv").unlink()
    assert entries(list_clips(tmp_path, SPLITS, corpus))["a/2.mp4"].language == "en"


def test_one_file_is_listed_once_however_its_path_is_written(tmp_path: Path) -> None:
    touch(tmp_path, "eve/a.mkv", "eve/b.mkv")
    (tmp_path / "catalogue.csv").write_text(f"{HEAD}eve/a.mkv,train,eve,,,\n./eve/a.mkv,val,ann,,,\n.//eve/./b.mkv,train,eve,,,\n")
    listing = list_clips(tmp_path, SPLITS)
    assert {entry.file: entry.split for entry in listing.entries} == {"eve/a.mkv": "train", "eve/b.mkv": "train"}
    assert listing.refused == {"eve/a.mkv": "the catalogue lists the file twice"}


def test_a_row_without_a_speaker_is_a_person_of_its_own_unless_a_corpus_table_takes_it(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.mkv", "ann/2.mkv", "video/1.mkv", "video/2.mkv", "3.mkv")
    rows = [f"{file},train,,,,\n" for file in ("ann/1.mkv", "ann/2.mkv", "video/1.mkv", "video/2.mkv", "3.mkv")]
    (tmp_path / "catalogue.csv").write_text(HEAD + "".join(rows))
    corpus = Corpus(source=(Source(name="x", files=("ann/*", "3.mkv")),))
    found = entries(list_clips(tmp_path, SPLITS, corpus))
    assert {file: entry.speaker for file, entry in found.items()} == {
        "ann/1.mkv": "ann",
        "ann/2.mkv": "ann",
        "video/1.mkv": "video/1",
        "video/2.mkv": "video/2",
        "3.mkv": "3",
    }


def test_without_a_catalogue_the_sub_folder_is_the_speaker(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.mp4", "ann/more/2.MOV", "ann/._1.mp4", ".cache/3.mp4", "film.mkv", "notes.txt", "bob/1.wav", "bob/2.m4a")
    found = entries(list_clips(tmp_path, SPLITS))
    assert {file: (entry.speaker, entry.split, entry.is_film) for file, entry in found.items()} == {
        "ann/1.mp4": ("ann", "", True),
        "ann/more/2.MOV": ("ann", "", True),
        "bob/1.wav": ("bob", "", False),
        "bob/2.m4a": ("bob", "", False),
        "film.mkv": ("film", "", True),
    }


def test_a_corpus_file_takes_files_and_fills_what_the_catalogue_leaves_open(tmp_path: Path) -> None:
    touch(tmp_path, "x/s1_a.wav", "x/s2_b.wav", "x/odd.wav", "y/c.wav")
    source = Source(
        name="x",
        files=("x/*",),
        licence="CC0",
        speaker=r"(?P<speaker>s\d)_",
        weight=0.5,
        has_pixels=False,
        narrow=True,
        splits={"val": ("x/s2*",)},
    )
    corpus = Corpus(source=(source,))
    listing = list_clips(tmp_path, SPLITS, corpus)
    found = entries(listing)
    assert {file: (entry.speaker, entry.split) for file, entry in found.items()} == {
        "x/s1_a.wav": ("x-s1", ""),
        "x/s2_b.wav": ("x-s2", "val"),
    }
    assert listing.refused == {"x/odd.wav": "source x: the regular expression of `speaker` does not match the path"}

    (tmp_path / "catalogue.csv").write_text(f"{HEAD}x/s1_a.wav,train,,,,\nx/s2_b.wav,,ann,PD,,\ny/c.wav,train,,,,\n")
    found = entries(list_clips(tmp_path, SPLITS, corpus))
    first, second, third = (found[name] for name in ("x/s1_a.wav", "x/s2_b.wav", "y/c.wav"))
    assert (first.source, first.speaker, first.licence, first.weight, first.has_pixels) == ("x", "x-s1", "CC0", 0.5, False)
    assert (second.speaker, second.licence, second.split, second.narrow) == ("ann", "PD", "val", True)
    assert (third.source, third.weight, third.has_pixels, third.narrow) == (tmp_path.name, 1.0, True, False)


def test_names_of_clips_fit_a_file_system_and_differ() -> None:
    long = "/".join(["folder"] * 60)
    files = ["a/b.wav", "a__b.wav", "a_/_b.wav", f"{long}/1.wav", f"{long}/2.wav"]
    names = [ClipEntry(file=file, source="", speaker="").name for file in files]
    assert len(set(names)) == len(files)
    assert names[0] == "a__b.wav"
    assert all("/" not in name and len(name) <= 180 for name in names)


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "\udcff.wav")
    listing = list_clips(tmp_path, SPLITS)
    assert list(entries(listing)) == ["a.wav"]
    assert listing.refused == {"\udcff.wav": "the name is not text in UTF-8; rename the file"}


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no such folder"):
        list_clips(tmp_path / "missing", SPLITS)
    with pytest.raises(InvalidRequest, match="no film or recording of the splits train, val"):
        list_clips(tmp_path, SPLITS)
    (tmp_path / "catalogue.csv").write_text(f"{HEAD}gone.mp4,train,,,,\n")
    with pytest.raises(InvalidRequest, match=r"gone\.mp4: no such file"):
        list_clips(tmp_path, SPLITS)
    (tmp_path / "catalogue.csv").write_text("file,use\n")
    with pytest.raises(InvalidRequest, match="licence, speaker, transcript"):
        list_clips(tmp_path, SPLITS)
