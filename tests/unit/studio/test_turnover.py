"""Media of clips: found by name and reel, exact in the media's own time, or refused with both sides named."""

from __future__ import annotations

import json
import shutil
import unicodedata
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import opentimelineio as otio
import pytest

from gateway.media.probe import probe
from gateway.studio.dubbing_script import ScriptLine
from gateway.studio.timeline import Clip, Timeline
from gateway.studio.turnover import TurnoverRequest, plan_turnover, read_clips, timecode_of, write_turnover
from services.common.errors import InvalidRequestError
from tests.unit.batch.painted import paint_video, painted_numbers, write_speech

RATE = Fraction(25)
HOUR = 90_000
CLIP = Clip(
    number=1,
    name="sh010",
    index=0,
    record=range(10),
    source=HOUR + 20,
    before=0,
    after=0,
    media=None,
    drop=None,
    files=(),
    reels=(),
    refused="",
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_video(tmp_path_factory.mktemp("media") / "A001C003_0101.mov", 60, RATE, timecode="01:00:00:00", sound=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video without a timecode."""
    return paint_video(tmp_path_factory.mktemp("plain") / "plain.mov", 60, RATE, sound=False)


def request_of(tmp_path: Path, folder: Path, clip: Clip, **more: Any) -> TurnoverRequest:
    speech = write_speech(tmp_path / "line.wav", 0.1)
    line = ScriptLine("s.csv: line 2", "1", 2, "de", speech=speech)
    given = {
        "timeline": Timeline(tmp_path / "cut.edl", otio.schema.Timeline("night"), RATE, HOUR, False),
        "clips": [clip],
        "lines": [line],
        "languages": (),
        "media": [folder],
        "speech": None,
        "handles": 4,
        "face": "speaker",
        "actors": {},
        "defaults": {},
        "folder": tmp_path / "night",
        "name": "night",
    }
    return TurnoverRequest(**{**given, **more})


def made(request: TurnoverRequest) -> Path:
    """The part of the only clip."""
    turnover = plan_turnover(request)
    assert turnover.problems == ()
    write_turnover(turnover)
    (part,) = (request.folder / "parts").iterdir()
    return part


@pytest.mark.parametrize(
    "names",
    [
        {"files": ("file:///Volumes/X/A001C003_0101.mov",)},
        {"files": ("C:\\X\\a001c003_0101.MOV",)},
        {"files": ("A001C003_0101.mxf",)},
        {"reels": ("A001C003_0101",)},
        {"reels": ("A001C003",)},
        {"name": "A001C003_0101.mov"},
    ],
)
def test_media_is_found_by_its_names(names: dict[str, Any], video: Path, tmp_path: Path) -> None:
    part = made(request_of(tmp_path, video.parent, replace(CLIP, **names)))
    assert painted_numbers(part) == list(range(16, 34))
    assert timecode_of(probe(part)) == "01:00:00:16"
    (found,) = read_clips(tmp_path / "night" / "clips.json").clips
    assert (found.start, found.frames, found.source, found.length) == (HOUR + 16, 18, HOUR + 20, 10)


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("searched", [True, False])
def test_accents_of_names_are_one(forms: tuple[Any, Any], searched: bool, video: Path, tmp_path: Path) -> None:
    """macOS writes an accent as a character of its own: the name in a timeline and the name of the file are one name."""
    named, there = (unicodedata.normalize(form, "Gespr\u00e4ch \u00fc") for form in forms)
    folder = tmp_path / there
    folder.mkdir()
    shutil.copy(video, folder / f"{there}{video.suffix}")
    clip = replace(CLIP, files=(f"{named}/{named}{video.suffix}",))
    request = request_of(tmp_path, folder, clip) if searched else request_of(tmp_path, folder, clip, media=())
    assert painted_numbers(made(request)) == list(range(16, 34))
    (found,) = read_clips(tmp_path / "night" / "clips.json").clips
    assert found.files == (unicodedata.normalize("NFC", named).lower(),)


@pytest.mark.parametrize(
    ("stated", "source", "first"),
    [
        (range(HOUR, HOUR + 60), HOUR + 20, 16),
        # The timeline knows a part of the media.
        (range(HOUR + 10, HOUR + 40), HOUR + 20, 16),
        # The timeline counts the media from 0, and the file states a timecode.
        (range(60), 20, 16),
    ],
)
def test_the_time_of_the_media(stated: range, source: int, first: int, video: Path, tmp_path: Path) -> None:
    clip = replace(CLIP, files=(video.name,), media=stated, source=source)
    assert painted_numbers(made(request_of(tmp_path, video.parent, clip)))[0] == first


@pytest.mark.parametrize(("stated", "source"), [(None, 20), (range(60), 20), (range(30), 20), (range(HOUR, HOUR + 60), HOUR + 20)])
def test_media_without_a_timecode(stated: range | None, source: int, plain: Path, tmp_path: Path) -> None:
    clip = replace(CLIP, files=(plain.name,), media=stated, source=source)
    part = made(request_of(tmp_path, plain.parent, clip))
    assert painted_numbers(part)[0] == 16
    assert timecode_of(probe(part)) == ("01:00:00:16" if source > HOUR else "00:00:00:16")


def test_handles_end_with_the_media_and_transitions_need_theirs(video: Path, tmp_path: Path) -> None:
    clip = replace(CLIP, files=(video.name,), source=HOUR + 2, record=range(55))
    assert painted_numbers(made(request_of(tmp_path, video.parent, clip, handles=2))) == list(range(59))
    late = replace(clip, after=6)
    (problem,) = plan_turnover(request_of(tmp_path, video.parent, late)).problems
    assert problem.startswith(
        "clip 1 (sh010) at 01:00:00:00: it needs with its transitions 01:00:00:02 to 01:00:02:13, and its media "
    )
    assert problem.endswith("has 01:00:00:00 to 01:00:02:10")


def test_a_clip_of_all_frames_is_its_media(video: Path, tmp_path: Path) -> None:
    clip = replace(CLIP, files=(video.name,), source=HOUR, record=range(60))
    request = request_of(tmp_path, video.parent, clip)
    write_turnover(plan_turnover(request))
    assert list((tmp_path / "night" / "parts").iterdir()) == []
    assert str(video) in (tmp_path / "night" / "night.jsonl").read_text()


def test_contradictions_are_refused(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    for day in ("a", "b"):
        (folder / day).mkdir(parents=True)
        shutil.copy(video, folder / day)

    def problem(clip: Clip, **more: Any) -> str:
        (found,) = plan_turnover(request_of(tmp_path, folder, clip, **more)).problems
        return found

    clip = replace(CLIP, files=(video.name,))
    assert "two files may be its media" in problem(clip)
    (folder / "b" / video.name).unlink()
    assert "has 25 frames per second, and the timeline 24" in problem(
        clip, timeline=Timeline(tmp_path / "cut.edl", otio.schema.Timeline("night"), Fraction(24), 86_400, False)
    )
    contradicting = replace(clip, media=range(50), source=20)
    assert "the timeline says that its media has 00:00:00:00 to 00:00:02:00, and" in problem(contradicting)
    assert "is not there: give the folder of the media" in problem(replace(clip, files=("/none/a.mov",)), media=[])
    assert "s.csv: line 2: no clip of the track is shown while the line is spoken" in problem(replace(clip, record=range(500, 510)))
    assert not (tmp_path / "night").exists()


def test_patterns_of_speech(video: Path, tmp_path: Path) -> None:
    clip = replace(CLIP, files=(video.name,))
    line = ScriptLine("s.csv: line 2", "7", 2, "de", speaker="ADA")
    write_speech(tmp_path / "de" / "ADA_7.wav", 0.1)
    pattern = str(tmp_path / "{language}" / "{speaker}_{id}.wav")
    turnover = plan_turnover(request_of(tmp_path, video.parent, clip, lines=[line], speech=pattern, actors={"ADA": "ada"}))
    assert (turnover.problems, turnover.rows) == ((), 1)
    assert '"actor": "ada"}' in write_turnover(turnover).read_text()
    (problem,) = plan_turnover(request_of(tmp_path, video.parent, clip, lines=[line])).problems
    assert problem == "s.csv: line 2: names no speech file: fill the column `speech`, or give a pattern of speech files"
    for wrong in ("{take}.wav", "{id", "{0}.wav", "{id.real}"):
        with pytest.raises(InvalidRequestError, match=r"the fields of a pattern are \{language\}, \{id\}"):
            plan_turnover(request_of(tmp_path, video.parent, clip, lines=[line], speech=wrong))


@pytest.mark.parametrize("field", ["speaker", "line_id"])
@pytest.mark.parametrize("text", ["../x", "a/../../x", "/x", "..", ""])
def test_patterns_stay_in_their_folder(field: str, text: str, video: Path, tmp_path: Path) -> None:
    """What a script says fills the pattern, but does not choose another folder."""
    write_speech(tmp_path / "x.wav", 0.1)
    line = replace(ScriptLine("s.csv: line 2", "7", 2, "de", speaker="ADA"), **{field: text})
    pattern = f"{tmp_path}/de/{{{'id' if field == 'line_id' else field}}}"
    (problem,) = plan_turnover(request_of(tmp_path, video.parent, CLIP, lines=[line], speech=pattern)).problems
    assert problem.startswith("s.csv: line 2: ")
    assert f"is no name of a file in {tmp_path}/de" in problem


def test_languages_that_are_no_folder(video: Path, tmp_path: Path) -> None:
    """No caller can write outside of the folder of the output."""
    clip = replace(CLIP, files=(video.name,))
    line = ScriptLine("s.csv: line 2", "7", 2, "../../escaped", speech=write_speech(tmp_path / "a.wav", 0.1))
    with pytest.raises(InvalidRequestError, match=r"'dubs/\.\./\.\./escaped' is no name of a file in"):
        write_turnover(plan_turnover(request_of(tmp_path, video.parent, clip, lines=[line])))
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("rate", ["1/0", "x", "0/1", "25"])
def test_clips_of_no_rate(rate: str, tmp_path: Path) -> None:
    (tmp_path / "clips.json").write_text(json.dumps({"rate": rate, "clips": []}))
    with pytest.raises(InvalidRequestError, match=r"clips\.json: not a file of `dubstage batch from-timeline`"):
        read_clips(tmp_path / "clips.json")


def test_lines_that_overlap_are_named(video: Path, tmp_path: Path) -> None:
    """A long line of one speaker runs on behind a cut, where the next speaker begins. Faces of their own keep both lines apart."""
    long, short = write_speech(tmp_path / "long.wav", 1.0), write_speech(tmp_path / "short.wav", 0.1)
    first = ScriptLine("s.csv: line 2", "1", 2, "de", speaker="ADA", speech=long)
    later = ScriptLine("s.csv: line 3", "2", 12, "de", speaker="BEN", speech=short)
    clips = [
        replace(CLIP, files=(video.name,)),
        replace(CLIP, number=2, record=range(10, 20), source=HOUR + 30, files=(video.name,)),
    ]

    def overlaps(*lines: ScriptLine, **more: Any) -> tuple[str, ...]:
        turnover = plan_turnover(request_of(tmp_path, video.parent, CLIP, clips=clips, lines=lines, **more))
        assert turnover.problems == ()
        return turnover.overlaps

    assert overlaps(first, later) == (
        "s.csv: line 3: begins while s.csv: line 2 is spoken, until 01:00:01:01, and both have the same face or actor: give one of "
        "them another face, or a shorter speech",
    )
    assert overlaps(first, replace(later, face="left")) == ()
    assert overlaps(first, later, actors={"BEN": "ben"}) == ()
    assert overlaps(replace(first, speech=short), later) == ()
    assert overlaps(first, replace(later, language="fr")) == ()


@pytest.mark.parametrize(("encoder", "profile", "codec"), [("prores_ks", "3", "prores"), ("dnxhd", "dnxhr_hqx", "dnxhr")])
def test_dubs_keep_the_codec_of_an_editor(encoder: str, profile: str, codec: str, tmp_path: Path) -> None:
    """A part is FFV1, and its dub has the codec of the media again."""
    media = tmp_path / "media" / "A001C003_0101.mov"
    media.parent.mkdir()
    with av.open(str(media), "w") as output:
        stream = output.add_stream(encoder, rate=RATE, options={"profile": profile})
        stream.width, stream.height, stream.pix_fmt = 256, 144, "yuv422p10le"
        stream.metadata["timecode"] = "01:00:00:00"
        for number in range(60):
            picture = av.VideoFrame(256, 144, "yuv422p10le")
            for plane in picture.planes:
                np.frombuffer(plane, np.uint16)[:] = 400 + number
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    turnover = plan_turnover(request_of(tmp_path, media.parent, replace(CLIP, files=(media.name,))))
    assert not turnover.problems
    (row,) = (json.loads(line) for line in write_turnover(turnover).read_text().splitlines())
    assert (row["codec"], row["footage"], Path(row["output"]).suffix) == (codec, "parts/0001_sh010.mp4", ".mov")
