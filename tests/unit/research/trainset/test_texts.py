"""Transcripts and word times from side files, tables and archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from research.trainset.catalogue import ClipEntry, CorpusSource, TranscriptTable, WordTimes
from research.trainset.texts import ClipText, Texts
from services.common.errors import InvalidRequestError

ALIGNED = "0 10000 sil\n10000 25000 two\n25000 30000 words\n30000 31000 sp\n"
TIMED = (("two", 0.4, 1.0), ("words", 1.0, 1.2))


def entry(rules: CorpusSource | None = None, file: str = "s1/a.wav", transcript: str = "") -> ClipEntry:
    return ClipEntry(file=file, source="x", speaker="s1", transcript=transcript, rules=rules)


def source(**given: object) -> CorpusSource:
    return CorpusSource.model_validate({"name": "x", "files": ["*"], "speaker": r"(?P<speaker>s\d)/", **given})


def times(file: str, archive: str = "") -> WordTimes:
    return WordTimes(file=file, archive=archive, units_per_second=25_000, silence=("sil", "sp"))


def test_a_text_beside_the_clip_is_its_transcript(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "a.txt").write_text("\ufeffone\n two ", encoding="utf-8")
    assert Texts(tmp_path).of(entry()) == ClipText("one two")
    assert Texts(tmp_path).of(entry(transcript="three")) == ClipText("three")
    assert Texts(tmp_path).of(entry(file="s1/b.wav")) == ClipText()


def test_a_table_has_the_transcripts_of_many_clips(tmp_path: Path) -> None:
    (tmp_path / "s1.trans.txt").write_text("s1-a ONE TWO\nodd\ns1-b THREE\n")
    table = TranscriptTable(file="{speaker}.trans.txt", line=r"(?P<key>\S+) (?P<text>.*)", key="{speaker}-{stem}")
    texts, rules = Texts(tmp_path), source(transcripts=table)
    assert texts.of(entry(rules)) == ClipText("ONE TWO")
    assert texts.of(entry(rules, "s1/c.wav")) == ClipText()
    assert texts.of(entry(rules, "s2/a.wav")) == ClipText()


def test_word_times_come_without_silence_and_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "a.align").write_text(ALIGNED)
    rules = source(words=times("{folder}/{stem}.align"))
    assert Texts(tmp_path).of(entry(rules)) == ClipText("two words", TIMED)
    assert Texts(tmp_path).of(entry(rules, transcript="as written")) == ClipText("as written", TIMED)
    assert Texts(tmp_path).of(entry(rules, "s1/b.wav")) == ClipText()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_word_times_may_lie_in_an_archive(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"times.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("align/s1/a.align", ALIGNED)
    else:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("./align/s1/a.align")
            member.size = len(ALIGNED)
            archive.addfile(member, io.BytesIO(ALIGNED.encode()))
    texts, rules = Texts(tmp_path), source(words=times("align/{speaker}/{stem}.align", path.name))
    assert texts.of(entry(rules)).words == TIMED
    assert texts.of(entry(rules, "s2/a.wav")).words is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"0 1 one\n1 two\n", "line 2: start, end and word were expected"),
        (b"0 x one\n", "line 1: start, end and word were expected"),
        (b"5 1 one\n", "line 1: a word starts at 0 or later"),
        (b"0 nan one\n", "line 1: a word starts at 0 or later"),
        (b"\xff\xfe", "not a text in UTF-8"),
        (b" " * ((1 << 20) + 1), "more than 1 MiB"),
    ],
)
def test_a_wrong_side_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.align").write_bytes(content)
    with pytest.raises(InvalidRequestError, match=rf"a\.align.*{said}"):
        Texts(tmp_path).of(entry(source(words=times("{stem}.align"))))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "times.tar").write_bytes(b"no archive")
    with pytest.raises(InvalidRequestError, match=r"times\.tar: not"):
        Texts(tmp_path).of(entry(source(words=times("{stem}.align", "times.tar"))))


def test_clip_part_has_own_words() -> None:
    """A part of a clip has the words inside."""
    spoken = ClipText("one two three", (("one", 0.0, 0.5), ("two", 0.9, 1.1), ("three", 1.5, 1.75)))
    assert spoken.part(1.0, 2.0) == ClipText("three", (("three", 0.5, 0.75),))
    assert ClipText("one two three").part(1.0, 2.0) == ClipText()
