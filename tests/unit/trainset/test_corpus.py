"""Corpus files: patterns, speakers, and mistakes that are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.trainset import corpus as corpus_module
from gateway.trainset.corpus import Source, TranscriptTable, matches, read_corpus
from services.common.errors import InvalidRequest

EXAMPLES = Path(str(corpus_module.__file__)).with_name("corpora")
GOOD = '[[source]]\nname = "a"\nfiles = ["*"]\n'


def read_example(name: str, folder: Path) -> Source:
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
    with pytest.raises(InvalidRequest, match=rf"corpus\.toml: {said}"):
        read_corpus(path, tmp_path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"gone\.toml: not a TOML file"):
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
    assert pattern.format_map(source.places(file)) == side_file


def test_the_examples_hold_out_what_the_corpora_hold_out(tmp_path: Path) -> None:
    books, one = read_example("librispeech.toml", tmp_path), read_example("ljspeech.toml", tmp_path)
    assert [books.split_of(f"{part}/1/2/1-2-0.flac") for part in ("train-clean-100", "dev-clean", "test-other")] == [
        "train",
        "val",
        "test",
    ]
    assert [one.split_of(f"wavs/{name}.wav") for name in ("LJ001-0001", "LJ050-0001")] == ["train", "val"]
