"""Tests of the file of a scene's lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec
from gateway.cli.words import COMMAND_LINE
from gateway.dub.analyse.face_boxes import FrameBox
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.request.dub_request import DubLine, check_overlaps
from gateway.dub.request.spec import LocalFiles, mouths_of, request_from
from gateway.dub.request.spec_text import naming_file, read_lines, read_spoken_lines, spec_from
from services.common.errors import InvalidRequestError

SCENE: dict[str, Any] = {"footage": "video.mp4", "output": "out.mp4", "method": "dubstage", "expressiveness": 0.9}
GOOD: dict[str, Any] = {"start": 1.5, "speech": "a.wav", "face": 0}
BOXED: dict[str, Any] = {"start": 1.5, "speech": "a.wav"}
AT_0: dict[str, Any] = {"frame": 0, "box": [0, 0, 9, 9]}


def written(folder: Path, content: object) -> Path:
    file = folder / "lines.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def lines_in(file: Path, **more: Any) -> tuple[DubLine, ...]:
    """Return the lines of a file, as `dubstage dub` reads them."""
    spec: DubSpec = spec_from({**SCENE, "lines": read_lines(file), **more})
    with naming_file(file):
        return request_from(spec, LocalFiles(str(file.parent)), threads=1).lines


def test_lines_take_over_the_scene(tmp_path: Path) -> None:
    rows = [GOOD, {"start": "00:00:02:10", "speech": "/b.wav", "actor": "ben", "language": "de", "expressiveness": 1.2}]
    rows += [{**GOOD, "face": "speaker"}, {"start": 0, "speech": "c.wav", "box": [1, 2, 30, 40]}]
    rows += [{"start": 0, "speech": "c.wav", "boxes": [{"frame": 3, "box": [1, 2, 30, 40.5]}]}]
    first, second, third, fourth, fifth = lines_in(written(tmp_path, rows))
    assert (first.dub.speech, first.dub.face, first.dub.mouth.expressiveness) == (
        tmp_path / "a.wav",
        FaceChoice("id", face_id=0),
        0.9,
    )
    assert (second.dub.speech, second.dub.face, second.actor_id) == (Path("/b.wav"), FaceChoice("actor"), "ben")
    assert (second.dub.use.language, second.dub.mouth.expressiveness) == ("de", 1.2)
    assert third.dub.face == FaceChoice("speaker")
    assert fourth.dub.face == FaceChoice("box", box=(1.0, 2.0, 30.0, 40.0))
    assert fifth.dub.face == FaceChoice("boxes", boxes=(FrameBox(3, 1.0, 2.0, 30.0, 40.5),))
    assert [str(line.name) for line in (first, fourth)] == ["lines[0]", "lines[3]"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"speech": "a.wav", "face": 0}, "start: is missing: every line has start and speech"),
        ({**GOOD, "start": "soon"}, "start: 'soon' is no time: give seconds (12.48) or a timecode"),
        ({**GOOD, "start": -1}, "start: takes seconds (12.48) or a timecode from the first frame"),
        ({**GOOD, "face": "left"}, "face: takes the number of a face (`dubstage faces`), auto, speaker"),
        ({**GOOD, "face": 1.5}, "face: takes the number of a face"),
        ({**GOOD, "box": [1, 2]}, "box: takes four numbers, [left, top, width, height]"),
        ({**GOOD, "box": [1, 2, 3, 4]}, "give face or box, not both"),
        ({**GOOD, "boxes": [AT_0]}, "give face or boxes, not both"),
        ({**BOXED, "boxes": []}, "boxes: takes 1 to 10000 boxes, such as"),
        ({**BOXED, "boxes": [AT_0] * 10_001}, "boxes: takes 1 to 10000 boxes, such as"),
        ({**BOXED, "boxes": [{"frame": 0.5, "box": [0, 0, 9, 9]}]}, "boxes: takes 1 to 10000 boxes, such as"),
        ({**BOXED, "boxes": [{"frame": 2, "box": [0, 0, 9, 9]}, AT_0]}, "boxes: boxes[1]: frame 0 follows frame 2"),
        ({**BOXED, "boxes": [{"frame": 0, "box": [9, 9, 0, 9]}]}, "boxes: boxes[0]: a box needs a width and a height above 0"),
        ({"start": 1, "speech": "a.wav"}, "give face, box, boxes or actor: who speaks the line"),
        ({**GOOD, "spech": "b.wav"}, "spech: is no field of a line; there are: start, speech, face"),
        ({**GOOD, "expressiveness": 3}, "expressiveness: takes less than or equal to 1.5, not 3"),
        ({**GOOD, "language": "not a language"}, "language: "),
        ({**GOOD, "consent": "none.json"}, "consent: "),
        ("a.wav", "a line is a JSON object"),
    ],
)
def test_mistakes_name_line_and_field(tmp_path: Path, row: object, said: str) -> None:
    file = written(tmp_path, [GOOD, row])
    with pytest.raises(InvalidRequestError) as caught:
        lines_in(file)
    assert caught.value.in_words(COMMAND_LINE).startswith(f"{file}: line 2: {said}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LineSpec(speech_uri="/a.wav", start_time=Duration(seconds=-1)), "lines[0].start_time: -1 s is before the first frame"),
        (LineSpec(speech_uri="/a.wav", start_timecode="soon"), "lines[0].start: 'soon' is no time"),
        (LineSpec(speech_uri="/a.wav"), "lines[0].start_time: give start_time or start_timecode"),
        (LineSpec(start_time=Duration(seconds=1)), "lines[0].speech_uri: is missing"),
    ],
)
def test_mistakes_of_messages(tmp_path: Path, line: LineSpec, said: str) -> None:
    """A line of a message names its fields too."""
    spec = spec_from(SCENE)
    spec.lines.append(line)
    with pytest.raises(InvalidRequestError) as caught:
        request_from(spec, LocalFiles(str(tmp_path)), threads=1)
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", "[" * 9000, r'[{"\ud800": 1}]', [GOOD] * 201])
def test_other_files_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"lines\.json: ") as caught:
        read_lines(written(tmp_path, content))
    assert caught.value.field == "lines"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"speech": "x.wav"}, "takes no speech: each line names its own"),
        ({"face": "1"}, "takes no face: each line names its own"),
        ({"actor": "ada"}, "takes no actor: each line names its own"),
        ({"fit": "loop"}, "takes no fit: a scene has the frames of its footage"),
        ({"method": "portrait"}, "takes no method portrait"),
    ],
)
def test_options_of_one_person_are_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    file = written(tmp_path, [GOOD])
    assert len(lines_in(file, face="auto", fit="cut")) == 1
    with pytest.raises(InvalidRequestError, match=said):
        lines_in(file, **more)


def test_overlaps_of_one_face_are_refused(tmp_path: Path) -> None:
    """Lines of different faces may overlap. Lines of one face may follow each other without a gap."""
    lines = lines_in(written(tmp_path, [GOOD] * 3))
    check_overlaps(lines, [range(10), range(5, 12), range(10, 20)], [0, 1, 0])
    with pytest.raises(InvalidRequestError) as caught:
        check_overlaps(lines, [range(8, 20), range(30, 40), range(10)], [0, 0, 0])
    assert caught.value.message.startswith("lines[2] and lines[0] overlap, and both are of face 0")


def test_lines_have_words_for_speech(tmp_path: Path) -> None:
    """Words and voices of lines come beside the lines, which have no speech then."""
    spoken: dict[str, Any] = {"start": 2, "face": 1, "say": "Good morning."}
    file = written(tmp_path, [GOOD, {**spoken, "voice": "ann"}, {**spoken, "speech": None}])
    lines, words = read_spoken_lines(file)
    assert words == {1: ("Good morning.", "ann"), 2: ("Good morning.", "")}
    assert [line.speech_uri for line in lines] == ["a.wav", "", ""]
    assert [line.face_id for line in lines] == [0, 1, 1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**GOOD, "say": "Hello"}, "line 1: give speech or say, not both"),
        ({"start": 1, "say": 7, "face": 0}, "line 1: say: takes a valid string, not 7"),
        ({**GOOD, "voice": "ann"}, "line 1: voice: is no field of a line"),
        ({"start": 1, "face": 0}, "line 1: speech: is missing"),
        ({"say": "Hello", "face": 0}, "line 1: start: is missing"),
    ],
)
def test_wrong_words_of_lines(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    file = written(tmp_path, [row])
    with pytest.raises(InvalidRequestError) as caught:
        read_spoken_lines(file)
    assert said in caught.value.said(COMMAND_LINE)


def test_mouths_of_scenes() -> None:
    """Outputs change no mouth. Lines and options of mouths do, unless scenes of one footage are compared."""
    alone, scene = spec_from(SCENE), spec_from(SCENE)
    scene.lines.add(speech_uri="/a.wav", face_id=0)
    for spec, changed, of_lines, same in (
        (alone, {"output_uri": "b.mp4"}, True, True),
        (alone, {"expressiveness": 1.1}, True, False),
        (alone, {"expressiveness": 1.1}, False, False),
        (scene, {"output_uri": "b.mp4"}, True, True),
        (scene, {"lines": [LineSpec(speech_uri="/b.wav", face_id=0)]}, True, False),
        (scene, {"lines": [LineSpec(speech_uri="/b.wav", face_id=0)], "expressiveness": 1.1}, False, True),
        (scene, {"footage_uri": "b.mp4"}, False, False),
    ):
        other = DubSpec()
        other.CopyFrom(spec)
        other.MergeFrom(DubSpec(**changed))
        assert (mouths_of(spec, of_lines=of_lines) == mouths_of(other, of_lines=of_lines)) == same, changed
