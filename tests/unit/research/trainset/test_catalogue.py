"""Tests of the choice of a training set's clips, and of corpus files: patterns, speakers, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.trainset import catalogue as corpus_module
from research.trainset.catalogue import ClipEntry, Corpus, CorpusSource, Listing, TranscriptTable, list_clips, matches, read_corpus
from services.common.errors import InvalidRequestError

EXAMPLES = Path(str(corpus_module.__file__)).with_name("corpora")
GOOD = '[[source]]\nname = "a"\nfiles = ["*"]\n'
SPLITS = frozenset({"train", "val"})
HEAD = "file,use,speaker,licence,transcript,other\n"


def read_example(name: str, folder: Path) -> CorpusSource:
    """Return the first source of an example, whose archives lie in `folder`."""
    (folder / "alignments.zip").touch()
    return read_corpus(EXAMPLES / name, folder).source[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "source: Field required"),
        ("[[source]", "not a TOML file"),
        ('[[source]]\nfiles = ["*"]', "source 1: name: Field required"),
        ('[[source]]\nname = "a"\nfiles = []', "source 1: files: "),
        (GOOD + "colour = 1", "source 1: colour: Extra inputs are not permitted"),
        (GOOD + GOOD + "weight = 0", "source 2: weight: Input should be greater than 0"),
        (GOOD + 'weight = "much"', "source 1: weight: Input should be a valid number"),
        (GOOD + "speaker = '(?P<speaker>'", "source 1: speaker: not a regular expression"),
        (GOOD + "speaker = 's.'", r"source 1: speaker: the regular expression needs a group \(\?P<speaker>"),
        (GOOD + "transcripts = '{chapter}.txt'", "source 1: transcripts: {chapter} is unknown; there are folder, stem"),
        (GOOD + "words = { file = '{stem' }", "source 1: words.file: "),
        (GOOD + "transcripts = '{stem!z}.txt'", r"source 1: transcripts: '\{stem!z\}\.txt': write \{stem\} without a conversion"),
        (
            GOOD + "words = { file = '{stem:d}.txt' }",
            r"source 1: words\.file: '\{stem:d\}\.txt': write \{stem\} without a conversion",
        ),
        (GOOD.replace("*", "[z-a].wav"), r"source 1: files\.0: '\[z-a\]\.wav' is no pattern of paths: bad character range"),
        (GOOD + "splits = { val = ['a', '[z-a]'] }", r"source 1: splits\.val\.1: '\[z-a\]' is no pattern of paths"),
        (GOOD + "words = { units_per_second = 5 }", "source 1: words.file: Field required"),
        (GOOD + "words = { file = 'x', units_per_second = 0 }", "source 1: words.units_per_second: "),
        (GOOD + "transcripts = { file = 'x', line = '.*' }", r"source 1: transcripts.line: .*group \(\?P<key>"),
        (GOOD + "words = { file = 'x', archive = 'gone.zip' }", r"source 1: words.archive: .*gone\.zip: no such file"),
    ],
)
def test_a_mistake_is_told_with_file_and_field(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "corpus.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=rf"corpus\.toml: {said}"):
        read_corpus(path, tmp_path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"gone\.toml: "):
        read_corpus(tmp_path / "gone.toml", tmp_path)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("*.wav", ["a.wav"], ["b/a.wav", "a.wave"]),
        ("**/*.wav", ["a.wav", "b/a.wav", "b/c/a.wav"], ["a.flac"]),
        ("b/**", ["b/a.wav", "b/c/a.wav"], ["bb/a.wav"]),
        ("s[1-3]/?.wav", ["s2/a.wav"], ["s4/a.wav", "s2/ab.wav"]),
        ("s[!1]/*", ["s2/a"], ["s1/a"]),
        ("a+(b).wav", ["a+(b).wav"], ["aab.wav"]),
    ],
)
def test_patterns_fit_paths(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    assert all(matches(pattern, file) for file in fits)
    assert not any(matches(pattern, file) for file in fits_not)


@pytest.mark.parametrize(
    ("example", "file", "speaker", "side_file"),
    [
        ("grid.toml", "s12/bbaf2n.mpg", "grid-s12", "alignments/s12/bbaf2n.align"),
        ("vctk.toml", "wav48_silence_trimmed/p225/p225_001_mic1.flac", "vctk-p225", "txt/p225/p225_001.txt"),
        (
            "librispeech.toml",
            "train-clean-100/103/1240/103-1240-0000.flac",
            "librispeech-103",
            "train-clean-100/103/1240/103-1240.trans.txt",
        ),
        ("ljspeech.toml", "wavs/LJ001-0001.wav", "ljspeech-LJ", "metadata.csv"),
    ],
)
def test_the_examples_fit_the_corpora(example: str, file: str, speaker: str, side_file: str, tmp_path: Path) -> None:
    source = read_example(example, tmp_path)
    assert source.takes(file)
    assert source.speaker_of(file) == speaker
    told = source.words.file if source.words else source.transcripts
    pattern = told.file if isinstance(told, TranscriptTable) else told
    assert pattern.format_map(source.path_fields(file)) == side_file


def test_examples_match_corpus_splits(tmp_path: Path) -> None:
    """The examples hold out what the corpora hold out."""
    books, one = read_example("librispeech.toml", tmp_path), read_example("ljspeech.toml", tmp_path)
    assert [books.split_of(f"{part}/1/2/1-2-0.flac") for part in ("train-clean-100", "dev-clean", "test-other")] == [
        "train",
        "val",
        "test",
    ]
    assert [one.split_of(f"wavs/{name}.wav") for name in ("LJ001-0001", "LJ050-0001")] == ["train", "val"]


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


def test_language_from_catalogue_or_corpus(tmp_path: Path) -> None:
    """The language is the catalogue's or the corpus files."""
    touch(tmp_path, "a/1.mp4", "a/2.mp4", "b/3.mp4")
    corpus = Corpus(source=(CorpusSource(name="a", files=("a/*",), language="en"),))
    head = HEAD.replace("other", "language")
    (tmp_path / "catalogue.csv").write_text(f"{head}a/1.mp4,train,ann,,,de\na/2.mp4,train,ann,,,\nb/3.mp4,train,ben,,,\n")
    found = entries(list_clips(tmp_path, SPLITS, corpus))
    assert [found[file].language for file in ("a/1.mp4", "a/2.mp4", "b/3.mp4")] == ["de", "en", ""]
    (tmp_path / "catalogue.csv").unlink()
    assert entries(list_clips(tmp_path, SPLITS, corpus))["a/2.mp4"].language == "en"


def test_one_file_listed_once(tmp_path: Path) -> None:
    """One file is listed once however its path is written."""
    touch(tmp_path, "eve/a.mkv", "eve/b.mkv")
    (tmp_path / "catalogue.csv").write_text(f"{HEAD}eve/a.mkv,train,eve,,,\n./eve/a.mkv,val,ann,,,\n.//eve/./b.mkv,train,eve,,,\n")
    listing = list_clips(tmp_path, SPLITS)
    assert {entry.file: entry.split for entry in listing.entries} == {"eve/a.mkv": "train", "eve/b.mkv": "train"}
    assert listing.refused == {"eve/a.mkv": "the catalogue lists the file twice"}


def test_row_without_speaker(tmp_path: Path) -> None:
    """A row without a speaker is a person of its own unless a corpus table takes it."""
    touch(tmp_path, "ann/1.mkv", "ann/2.mkv", "video/1.mkv", "video/2.mkv", "3.mkv")
    rows = [f"{file},train,,,,\n" for file in ("ann/1.mkv", "ann/2.mkv", "video/1.mkv", "video/2.mkv", "3.mkv")]
    (tmp_path / "catalogue.csv").write_text(HEAD + "".join(rows))
    corpus = Corpus(source=(CorpusSource(name="x", files=("ann/*", "3.mkv")),))
    found = entries(list_clips(tmp_path, SPLITS, corpus))
    assert {file: entry.speaker for file, entry in found.items()} == {
        "ann/1.mkv": "ann",
        "ann/2.mkv": "ann",
        "video/1.mkv": "video/1",
        "video/2.mkv": "video/2",
        "3.mkv": "3",
    }


def test_folder_is_speaker_without_catalogue(tmp_path: Path) -> None:
    """Without a catalogue, the subfolder is the speaker."""
    touch(tmp_path, "ann/1.mp4", "ann/more/2.MOV", "ann/._1.mp4", ".cache/3.mp4", "take.mkv", "notes.txt", "bob/1.wav", "bob/2.m4a")
    found = entries(list_clips(tmp_path, SPLITS))
    assert {file: (entry.speaker, entry.split, entry.is_video) for file, entry in found.items()} == {
        "ann/1.mp4": ("ann", "", True),
        "ann/more/2.MOV": ("ann", "", True),
        "bob/1.wav": ("bob", "", False),
        "bob/2.m4a": ("bob", "", False),
        "take.mkv": ("take", "", True),
    }


def test_corpus_fills_catalogue_gaps(tmp_path: Path) -> None:
    """A corpus file takes files and fills what the catalogue leaves open."""
    touch(tmp_path, "x/s1_a.wav", "x/s2_b.wav", "x/odd.wav", "y/c.wav")
    source = CorpusSource(
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


def test_clip_names_safe_and_distinct() -> None:
    """Names of clips fit a file system and differ."""
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
    with pytest.raises(InvalidRequestError, match="no such folder"):
        list_clips(tmp_path / "missing", SPLITS)
    with pytest.raises(InvalidRequestError, match="splits train, val"):
        list_clips(tmp_path, SPLITS)
    (tmp_path / "catalogue.csv").write_text(f"{HEAD}gone.mp4,train,,,,\n")
    with pytest.raises(InvalidRequestError, match=r"gone\.mp4: no such file"):
        list_clips(tmp_path, SPLITS)
    (tmp_path / "catalogue.csv").write_text("file,use\n")
    with pytest.raises(InvalidRequestError, match="licence, speaker, transcript"):
        list_clips(tmp_path, SPLITS)
