"""Dubbing scripts in CSV, SRT and DAPT: frames, languages, speakers and sound of their lines."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest

from gateway.studio.dubbing_script import read_script
from gateway.studio.timeline import Timeline
from services.common.errors import InvalidRequestError

RATE = Fraction(30000, 1001)
DAPT = """<?xml version="1.0"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter" xmlns:ttm="http://www.w3.org/ns/ttml#metadata"
    xmlns:daptm="http://www.w3.org/ns/ttml/profile/dapt#metadata" xml:lang="en" ttp:frameRate="30"
    ttp:frameRateMultiplier="1000 1001" ttp:timeBase="media" daptm:scriptType="dubbing" daptm:scriptRepresents="audio.dialogue">
<head><metadata><ttm:agent type="character" xml:id="c1"><ttm:name type="alias">ADA</ttm:name></ttm:agent></metadata></head>
<body>
<div xml:id="e1" begin="3s" end="10s" ttm:agent="c1">
  <p xml:lang="en">Hello<br/>there</p><p xml:lang="de" daptm:langSrc="en"><audio src="rec/e1.wav" type="audio/wave"/>Hallo</p></div>
<div xml:id="e2" begin="00:00:12:15" end="20s" ttm:agent="c1"><p xml:lang="de" begin="1s" end="2s">Und?</p></div>
<div xml:id="e3" begin="30s" end="31s" daptm:onScreen="OFF"><p xml:lang="de">Von fern</p></div>
</body></tt>"""
SUBTITLES = {
    "points in times": "1\n00:00:00.200 --> 00:00:01.500\nADA: Eins\n\n2\n00:00:01.600 --> 00:00:01.900\nADA: Drei\n",
    "no hours": "1\n00:00,200 --> 00:01,500\nADA: Eins\n\n2\n00:01,600 --> 00:01,900\nADA: Drei\n",
    "one digit": "1\n0:00:00,200 --> 0:00:01,500\nADA: Eins\n\n2\n0:00:01,6 --> 0:00:01,9\nADA: Drei\n",
    "empty line after times": "1\n00:00:00,200 --> 00:00:01,500\n\nADA: Eins\n\n2\n00:00:01,600 --> 00:00:01,900\nADA: Drei\n",
    "no empty line between": "1\n00:00:00,200 --> 00:00:01,500\nADA: Eins\n2\n00:00:01,600 --> 00:00:01,900\nADA: Drei\n",
    "no numbers": "00:00:00,200 --> 00:00:01,500\nADA: Eins\n\n00:00:01,600 --> 00:00:01,900\nADA: Drei\n",
    "styles": "1\n00:00:00,200 --> 00:00:01,500\n{\\an8}<i>ADA: Eins</i>\n\n2\n00:00:01,600 --> 00:00:01,900\n<b>ADA: Drei</b>\n",
    "WebVTT": "WEBVTT - cut\n\nNOTE\nfirst\nversion\n\nintro\n00:00.200 --> 00:01.500 line:0\n<v ADA>Eins</v>\n\n"
    "NOTE of the\nsecond version\n\nSTYLE\n::cue { color: red }\n\n00:01.600 --> 00:01.900\n<v.loud ADA>Dr<00:01.700>ei\n",
    "marks of direction": "\u200e1\n\u202b00:00:00,200 --> 00:00:01,500\nADA: Eins\n\n2\n\u200e00:00:01,600\u00a0--> "
    "00:00:01,900\nADA: Drei\n",
    "other arrows": "1\n00:00:00,200 -> 00:00:01,500\nADA: Eins\n\n2\n00:00:01,600 –> 00:00:01,900\nADA: Drei\n",
    "lines of Windows": "\ufeff1\r\n00:00:00,200 --> 00:00:01,500\r\nADA: Eins\r\n\r\n2\r\n"
    "00:00:01,600 --> 00:00:01,900\r\nADA: Drei",
}


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(Path("cut.edl"), otio.schema.Timeline("night"), RATE, 107_892, True)


def lines_of(tmp_path: Path, name: str, text: str, timeline: Timeline, language: str | None = None) -> list[Any]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_script(tmp_path / name, language, timeline)


def test_csv_takes_timecodes_and_seconds(timeline: Timeline, tmp_path: Path) -> None:
    text = "start,language,id,speaker,actor,face,speech,text\n01:00:01;15,de,a,ADA,ada,0,a.wav,Hallo\n\n2.5,fr,,,,,,\n"
    one, two = lines_of(tmp_path, "s.csv", text, timeline)
    assert (one.start, one.language, one.line_id, one.speaker, one.actor, one.face) == (45, "de", "a", "ADA", "ada", "0")
    assert one.speech == tmp_path / "a.wav"
    assert (two.start, two.language, two.line_id, two.speech) == (75, "fr", "3", None)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_csv_has_lines_of_every_system(end: str, timeline: Timeline, tmp_path: Path) -> None:
    """A carriage return alone ends a line too."""
    (tmp_path / "s.csv").write_text(f'start,language,text{end}1,de,"Hallo{end}du"{end}2,fr,Bonjour{end}', newline="")
    one, two = read_script(tmp_path / "s.csv", None, timeline)
    assert (one.language, two.language) == ("de", "fr")


def test_csv_of_other_locales(timeline: Timeline, tmp_path: Path) -> None:
    """Spreadsheets of many countries write semicolons between fields and a comma in a number."""
    for first in ("", "sep=;\n", '"SEP=;"\r\n'):
        (line,) = lines_of(tmp_path, "s.csv", f"{first}start;language\n2,5;de\n", timeline)
        assert (line.start, line.language, line.line_id) == (75, "de", "1")
    with pytest.raises(InvalidRequestError, match="line 3: start"):
        lines_of(tmp_path, "s.csv", "sep=;\nstart;language\nx;de\n", timeline)


@pytest.mark.parametrize(("name", "language"), [("s.csv", None), ("s.srt", "de")])
def test_text_of_other_encodings(name: str, language: str | None, timeline: Timeline, tmp_path: Path) -> None:
    """UTF-16, which editors on Windows call Unicode, is read. Texts of 8 bits do not say their letters, and are refused."""
    text = "start;Language; Speaker\n1;de;GRÖSSE\n" if name == "s.csv" else "1\n00:00:01,000 --> 00:00:02,500\nGRÖSSE: Ja\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        (tmp_path / name).write_text(text, encoding=encoding)
        (line,) = read_script(tmp_path / name, language, timeline)
        assert (line.start, line.speaker) == (30, "GRÖSSE")
    (tmp_path / name).write_text(text, encoding="cp1252")
    with pytest.raises(InvalidRequestError, match="save it as UTF-8"):
        read_script(tmp_path / name, language, timeline)


def test_srt_has_the_language_of_its_option_and_speakers_in_capitals(timeline: Timeline, tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,500\nADA: Hallo\ndu\n\n2\n01:00:00,000 --> 01:00:01,000\nNun: so\n"
    one, two = lines_of(tmp_path, "s.srt", text, timeline, "de")
    assert (one.start, one.speaker, one.language) == (30, "ADA", "de")
    # An hour of real time has 107,892.1 frames.
    assert (two.start, two.speaker) == (107_892, "")


@pytest.mark.parametrize("kind", SUBTITLES)
@pytest.mark.parametrize("name", ["s.srt", "s.vtt"])
def test_every_kind_of_subtitles(kind: str, name: str, timeline: Timeline, tmp_path: Path) -> None:
    one, two = lines_of(tmp_path, name, SUBTITLES[kind], timeline, "de")
    assert [(line.start, line.speaker, line.line_id) for line in (one, two)] == [
        (6, "ADA", "1"),
        (48, "ADA", "2"),
    ]


def test_empty_lines_in_subtitles(timeline: Timeline, tmp_path: Path) -> None:
    text = "1\n00:00:00,200 --> 00:00:01,500\nADA: Eins\n\nzwei --> drei\n\n2\n00:00:01,600 --> 00:00:01,900\n\n"
    (line,) = lines_of(tmp_path, "s.srt", text, timeline, "de")
    assert (line.start, line.speaker) == (6, "ADA")
    with pytest.raises(InvalidRequestError, match=r"row 2: '00:00:01:12 --> 00:00:02:00' are no times; expected 00:00:01,500"):
        lines_of(tmp_path, "s.srt", "1\n00:00:01:12 --> 00:00:02:00\na\n", timeline, "de")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("      00:00:00,200 --> 00:00:01,500", "Eins"),
        ("00:00:00,200 -->      00:00:01,500", "Eins"),
        ("00:00:00,200 --> 00:00:01,500", "3 -> 2: wir verlieren"),
    ],
    ids=["indented", "blanks", "arrow in words"],
)
def test_blanks_and_arrows_lose_no_line(row: str, text: str, timeline: Timeline, tmp_path: Path) -> None:
    found = lines_of(tmp_path, "s.srt", f"1\n{row}\n{text}\n\n2\n      00:00:01,600 --> 00:00:01,900\nZwei\n", timeline, "de")
    assert [(line.start, line.line_id) for line in found] == [(6, "1"), (48, "2")]


def test_times_without_end_are_refused(timeline: Timeline, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="row 5: '00:00:01,600 --> ' are no times"):
        lines_of(tmp_path, "s.srt", "1\n00:00:00,200 --> 00:00:01,500\na\n2\n00:00:01,600 --> \nb\n", timeline, "de")


def test_dapt_has_speakers_sounds_and_languages(timeline: Timeline, tmp_path: Path) -> None:
    """Lines off screen are left out: no mouth speaks them."""
    english, german, later = lines_of(tmp_path, "s.ttml", DAPT, timeline)
    assert [(line.language, line.speaker, line.start, line.line_id) for line in (english, german, later)] == [
        ("en", "ADA", 90, "e1"),
        ("de", "ADA", 90, "e1"),
        # 12 s and 15 frames of 29.97, and a second.
        ("de", "ADA", 12 * 30 + 15 + 30, "e2"),
    ]
    assert german.speech == tmp_path / "rec" / "e1.wav"
    assert [line.line_id for line in lines_of(tmp_path, "s.ttml", DAPT, timeline, "de")] == ["e1", "e2"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "begin\n1\n", "unknown column 'begin'"),
        ("s.csv", "start\n1\n", "line 2: names no language"),
        ("s.csv", "start,language\n01:01:00;00,de\n", "line 2: start: 01:01:00;00 does not exist"),
        ("s.csv", "start,language\n-1,de\n", "line 2: start"),
        ("s.csv", "start,language\n00:00:01.500,de\n", r"line 2: start: 00:00:01.500 has parts of a second.*frame \(1.500\)"),
        ("s.csv", "start,language\n1,de,x\n", "has more than 2 fields"),
        ("s.csv", "start,language\n1,de\n2,../../../escaped/de\n", r"s\.csv: line 3: language: .*escaped/de' is no language tag"),
        ("s.csv", "start,language\n1,/de\n", r"line 2: language: '/de' is no language tag, such as de or pt-BR"),
        ("s.ttml", DAPT.replace('<p xml:lang="de" begin', '<p xml:lang="../de" begin'), r"text 3: language: '\.\./de'"),
        ("s.csv", "start,language\n", "has no line"),
        ("s.srt", "1\n00:00:01,000 --> 00:00:02,000\na\n", "SRT names no language"),
        ("s.ttml", "<tt/>", "no TTML"),
        ("s.ttml", "<tt", "not XML"),
        ("de=s.srt", "1\n-00:00:01,000 --> 00:00:02,000\na\n", "row 2: '-00:00:01,000 --> 00:00:02,000' are no times"),
        ("de=s.srt", "[00:01.00]Hallo\n", "has no line; expected 00:00:01,500 --> 00:00:02,750"),
        ("s.txt", "", "a dubbing script ends in .csv, .srt"),
    ],
)
def test_mistakes_name_file_and_line(name: str, text: str, message: str, timeline: Timeline, tmp_path: Path) -> None:
    language, _, file = name.rpartition("=")
    with pytest.raises(InvalidRequestError, match=message):
        lines_of(tmp_path, file, text, timeline, language or None)
