"""Mistakes in the options of `dubstage batch from-timeline` and `conform` are told in one sentence, and nothing is written."""

from __future__ import annotations

import re
from pathlib import Path

import opentimelineio as otio
import pytest

from gateway.batch.types import manifest_of
from gateway.cli.app import run
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row


@pytest.fixture
def timeline(tmp_path: Path) -> Path:
    span = otio.opentime.TimeRange(otio.opentime.RationalTime(0, 25), otio.opentime.RationalTime(10, 25))
    clip = otio.schema.Clip("sh010", otio.schema.ExternalReference("sh010.mov"), span)
    track = otio.schema.Track("V1", children=[clip], kind=otio.schema.TrackKind.Video)
    content = otio.schema.Timeline("night", tracks=[track])
    otio.adapters.write_to_file(content, str(tmp_path / "cut.otio"), "otio_json")
    (tmp_path / "s.csv").write_text("start,language\n0,de\n")
    (tmp_path / "out.csv").write_text("start,language\n0,../../../escaped/de\n")
    (tmp_path / "s.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHallo\n")
    return tmp_path / "cut.otio"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --script FILE, or --speech PATTERN with --language LANGUAGE"),
        (["--speech", "{clip}.wav"], "give --script FILE, or --speech PATTERN with --language LANGUAGE"),
        (["--script", "s.csv", "--language", "de"], "--language goes without --script"),
        (["--script", "none.csv"], "none.csv: cannot be read: No such file or directory"),
        (["--script", "out.csv"], "out.csv: line 2: language: '../../../escaped/de' is no language tag, such as de or pt-BR"),
        (["--script", "../x=s.srt"], "s.srt: line 1: language: '../x' is no language tag"),
        (["--speech", "{clip}.wav", "--language", "../de"], "--language ../de: language: '../de' is no language tag"),
        (["--script", "s.csv", "--rate", "fast"], "--rate 'fast': give a frame rate, such as 25, 23.976 or 30000/1001"),
        (["--script", "s.csv", "--rate", "1/0"], "--rate '1/0': give a frame rate"),
        (["--script", "s.csv", "--rate", "24"], "the timeline has 25 frames per second, and not 24, the rate that was given"),
        (["--script", "s.csv", "--track", "V9"], "has the video tracks V1"),
        (["--script", "s.csv", "--media", "nowhere"], "media: nowhere: no such folder"),
        (["--script", "s.csv", "--actor", "ADA"], "--actor 'ADA': give SPEAKER=ACTOR, such as ADA=ada"),
        (["--script", "s.csv", "--set", "seed=x"], "--set seed: takes a valid integer"),
        (["--script", "s.csv", "--set", "face=0"], "--set face: the script and other options say it for each row"),
        (["--script", "s.csv", "--set", "colour=3"], "--set colour: is no field of a row"),
        (
            ["--script", "s.csv"],
            "names no speech file: fill the column `speech`, or give a pattern of speech files; nothing was written",
        ),
    ],
)
def test_mistakes_of_from_timeline(
    options: list[str], message: str, timeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(timeline.parent)
    assert run(["batch", "from-timeline", "cut.otio", "--output", "night", *options]) == 10
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert message in said
    assert "Traceback" not in said
    assert not (timeline.parent / "night").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "back.mov"], "output: back.mov: a timeline ends in .otio, .edl, .fcpxml, .aaf"),
        (["--output", "back.otio"], "clips.json: cannot be read: No such file or directory; `dubstage batch from-timeline` writes"),
        (["--output", "back.otio", "--clips", "s.csv"], "s.csv: not a file of `dubstage batch from-timeline`"),
    ],
)
def test_mistakes_of_conform(
    options: list[str], message: str, timeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(timeline.parent)
    shot = shot_of_row(id="a", footage="/a.mov", output=f"{timeline.parent}/night/dubs/de/a.mov")
    open_store(timeline.parent / "data").create(manifest_of("night", [shot]), "local")
    assert run(["batch", "conform", "night", "cut.otio", *options]) == 10
    assert message in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (timeline.parent / "back.otio").exists()


def test_refusals_are_for_quiet_too(timeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --quiet, the command still says which clips and lines it refuses."""
    monkeypatch.chdir(timeline.parent)
    (timeline.parent / "two.csv").write_text("start,language,text,speech\n90000,de,a,a.wav\n90001,de,b,b.wav\n")
    assert run(["-q", "batch", "from-timeline", "cut.otio", "--output", "night", "--script", "two.csv"]) == 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"two.csv: line {row}: {name}.wav does not exist; check the path" for row, name in ((2, "a"), (3, "b"))]
    assert lines[2].startswith("error: 2 clips and lines are refused")
