"""Tests of batch manifests: rows are read with their defaults, and all mistakes are reported at once, by line and field."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile

from dubstage.gateway.v1.dub_pb2 import FIT_LOOP, DubSpec, LineSpec
from gateway.batch import manifest as batch_manifest
from gateway.batch.manifest import batch_name, manifest_or_mistakes
from gateway.batch.types import Quality, ShotSpec, Words, manifest_of
from services.common.errors import ActorNotReadyError, InvalidRequestError
from tests.unit.batch.rows import read_manifest

Write = Callable[..., Path]
CONSENT = {"subject": "Ann", "granted_by": "Ann", "scope": "one film", "date": "2026-02-01", "reference": "folder 3"}
LINE: dict[str, Any] = {"start": 1.5, "speech": "de/a.wav", "face": 0}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a manifest of rows or of lines next to a plate, a sound file and a consent record."""
    (tmp_path / "plate.mp4").write_bytes(b"video")
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / "a.wav").write_bytes(b"sound")
    (tmp_path / "consent.json").write_text(json.dumps(CONSENT))

    def manifest(*rows: dict[str, Any] | str) -> Path:
        path = tmp_path / "Night 12 (reel é).jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return manifest


def row(shot_id: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": shot_id, "footage": "plate.mp4", "output": f"out/{shot_id}.mp4", **more}


def mistakes(path: Path, **more: Any) -> list[str]:
    """Return the mistakes without the path of the manifest."""
    found = manifest_or_mistakes(path, **more)
    assert isinstance(found, tuple), "the manifest has no mistakes"
    return [text.removeprefix(f"{path}:") for text in found]


def test_rows_take_defaults_and_paths(write: Write, tmp_path: Path) -> None:
    """Rows take the defaults and paths begin at the manifest."""
    defaults = {"defaults": {"speech": "de/a.wav", "fit": "loop", "quality": {"max_warnings": 2}}}
    path = write(defaults, "", row("a"), row("b", fit="cut", consent="consent.json", footage=f"file://{tmp_path}/plate.mp4"))
    manifest = read_manifest(path)
    assert manifest.name == "night-12-reel-e"
    first, second = manifest.shots
    dub = DubSpec(
        footage_uri=f"{tmp_path}/plate.mp4", speech_uri=f"{tmp_path}/de/a.wav", output_uri=f"{tmp_path}/out/a.mp4", fit=FIT_LOOP
    )
    assert first == ShotSpec("a", dub, Quality(max_warnings=2))
    assert not second.dub.fit
    assert (second.dub.footage_uri, second.dub.consent_uri) == (f"{tmp_path}/plate.mp4", f"{tmp_path}/consent.json")


def test_the_digest_is_that_of_the_wanted_videos(write: Write) -> None:
    plain = read_manifest(write(row("a", fit="cut"), row("b")))
    spelled = read_manifest(write({"defaults": {"fit": "cut"}}, row("a"), row("b", seed=0)), name="other")
    assert plain.sha256 == spelled.sha256
    assert (plain.name, spelled.name) == ("night-12-reel-e", "other")
    assert read_manifest(write(row("b"), row("a"))).sha256 != plain.sha256
    assert read_manifest(write(row("a", seed=1), row("b"))).sha256 != plain.sha256
    assert manifest_of("x", plain.shots).sha256 == plain.sha256


def test_every_mistake_is_told_by_line_and_field(write: Write, tmp_path: Path) -> None:
    path = write(
        {"defaults": {"speech": "de/a.wav"}},
        row("a", footage="none.mp4"),
        "nonsense",
        row("b", seed="1", quality={"min_dubbed_share": 2}),
        row("c", sped="fast"),
        {"id": "c d"},
        "[1, 2]",
        row("e", face="the left one"),
        row("f", method="magic"),
        row("g", codec="vp9"),
        row("h", fit="slow", keep_audio=True),
        row("i", output="out/i.txt"),
        row("j", output="de"),
        '{"id": "k", "id": "l"}',
        row("m", quality={"min_r_opening": float("nan")}),
        row("n", footage="de"),
        row("o", consent="de/a.wav"),
        row("p", footage="ftp://host/plate.mp4"),
        row("q", output="https://host/q.mp4"),
        row("r", footage="s3://bucket"),
        row("s", expressiveness=1.6),
        row("t", expressiveness="loud"),
        row("u", label="由AI配音"),
        row("v", label_position="top-left"),
        row("w", label="AI", label_position="middle"),
        row("x", label="a" * 61),
        row("y", encode_quality="fine"),
        row("z", codec="ffv1", encode_quality="small"),
        row("za", encode_quality=52),
        row("zb", encode_quality=1.5),
        row("zc", fit=["cut"]),
        row("zd", codec={}),
        row("ze", expressiveness=10**400),
        row("zf", seed=-(10**400)),
        row("zg", **{"\ud800": 1}),
    )
    told = mistakes(path)
    assert told[0] == f"2: footage: no such file {tmp_path}/none.mp4"
    assert told[1] == "3: row: not JSON (character 1: Expecting value); a row is one JSON object in one line"
    expected = [
        '4: seed: takes a valid integer, not "1"',
        "4: quality.min_dubbed_share: takes less than or equal to 1, not 2",
        "5: sped: is no field of a row; there are: id, footage, output, speech,",
        "6: id: takes at most 63 letters, digits, dots, hyphens and underscores",
        "6: footage: is missing: every row has one",
        "6: output: is missing: every row has one",
        "7: row: a row is one JSON object",
        "8: face: takes auto, largest, speaker",
        "9: method: no method 'magic'; there are:",
        '10: codec: takes one of h264, hevc, ffv1, prores, mpeg2video, dnxhr, av1, not "vp9"',
        "11: keep_audio: the video gets a timeline of its own",
        "12: output: ",
        "13: output: ",
        "14: row: 'id' stands twice",
        "15: row: NaN is no number of JSON",
        f"16: footage: {tmp_path}/de is no regular file",
        f"17: consent: {tmp_path}/de/a.wav: not JSON",
        "18: footage: 'ftp://host/plate.mp4' cannot be used: give a path or s3://BUCKET/KEY, https://HOST/PATH",
        "19: output: 'https://host/q.mp4' cannot be used: give a path or s3://BUCKET/KEY",
        "20: footage: 's3://bucket' cannot be used",
        "21: expressiveness: takes less than or equal to 1.5, not 1.6",
        '22: expressiveness: takes a valid number, not "loud"',
        "23: label: labels cannot show '由'",
        "24: label_position: a position is given without a label",
        "25: label_position: takes ",
        "26: label: a label has 1 to 60 characters, not 61",
        "27: encode_quality: the quality 'fine' of the pictures is unknown: give visually-lossless, high, small, or a number",
        "28: encode_quality: ffv1 has one quality: give no quality of the pictures, or choose the codec h264, hevc, av1",
        "29: encode_quality: the quality '52' of the pictures is unknown",
        "30: encode_quality: takes a valid string, not 1.5",
        "31: fit: takes one of cut, ",
        "32: codec: takes one of h264, ",
        "33: expressiveness: takes less than or equal to 1.5, not 1000",
        "34: seed: takes greater than or equal to 0, not -1000",
        r"35: row: \ud800 without its other half is no character",
    ]
    for text in expected:
        assert [one for one in told if one.startswith(text)], (text, told)
    lines = [int(text.partition(":")[0]) for text in told]
    assert lines == sorted(lines)
    assert set(lines) == set(range(2, 36))


def test_languages_are_tags(write: Write) -> None:
    """Languages of rows and of lines are told once, with and without a database of actors."""
    line = {"start": 0, "speech": "de/a.wav", "face": 0, "language": "../de"}
    path = write(row("a", language="../../de"), row("b", language="pt-BR"), row("c", speech=None, lines=[line]))
    assert mistakes(path) == [
        "1: language: '../../de' is no language tag, such as de or pt-BR (BCP 47)",
        "3: lines[0].language: '../de' is no language tag, such as de or pt-BR (BCP 47)",
    ]


def test_wrong_defaults_are_told_once(write: Write) -> None:
    path = write({"defaults": {"seed": "x", "id": "a", "quality": {"least": 1}}}, *(row(f"s{number}") for number in range(30)))
    told = mistakes(path)
    assert [text.partition(": ")[0] + text.partition(": ")[2].partition(":")[0] for text in told] == [
        "1defaults.id",
        "1defaults.quality.least",
        "1defaults.seed",
    ]
    assert "there are: min_dubbed_share, min_r_opening, max_warnings" in told[1]
    assert mistakes(write({"defaults": {}, "id": "a"}, row("b")))[0].startswith("1: defaults: this line is")
    assert mistakes(write(row("b"), {"defaults": {}}))[0].startswith("2: id: is missing")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff", "bmp"])
def test_pictures_need_methods_that_take_them(write: Write, tmp_path: Path, astronaut: Path, ending: str) -> None:
    """A picture without a method is dubbed with `portrait`. A method that needs a video is refused before anything is dubbed."""
    picture = f"ann.{ending}"
    assert cv2.imwrite(str(tmp_path / picture), cv2.imread(str(astronaut)))
    rows = [row("a", footage=picture), row("b", footage=picture, method="portrait"), row("c", footage=picture, method="dubstage")]
    (said,) = mistakes(write(*rows))
    assert f"3: method: {tmp_path}/{picture} is a single picture, and method dubstage needs a video; methods that take" in said
    assert said.endswith("portrait, headpose")
    assert read_manifest(write(*rows[:2])).name


@pytest.mark.parametrize(
    ("fields", "file", "said"),
    [
        ({"speech": "picture"}, "picture", "speech: {} has no sound track"),
        ({"mix": "picture", "speech": "de/a.wav"}, "picture", "mix: {} has no sound track"),
        ({"lines": [{**LINE, "speech": "picture"}]}, "picture", "lines[0].speech: {} has no sound track"),
        ({"footage": "sound"}, "sound", "footage: {} has no video stream (it holds: audio)"),
        ({"reference": "sound", "method": "hetero"}, "sound", "reference: {} has no video stream (it holds: audio)"),
        ({"speech": "words.txt"}, "words.txt", "speech: {} is not a media file"),
        ({"speech": "words"}, "words", "speech: {} is not a media file"),
        ({"footage": "picture", "method": "dubstage"}, "picture", "method: {} is a single picture"),
    ],
)
def test_files_of_another_kind_are_named(
    write: Write, tmp_path: Path, astronaut: Path, fields: dict[str, Any], file: str, said: str
) -> None:
    """A file whose first bytes or name tell another kind is refused with row and field, whatever the file is called."""
    (tmp_path / "picture").write_bytes(astronaut.read_bytes())
    soundfile.write(tmp_path / "sound", np.zeros(1600), 16_000, format="WAV")
    (tmp_path / "words.txt").write_text("Good morning")
    (tmp_path / "words").write_text('{"say": "Good morning"}')
    (mistake,) = mistakes(write(row(**fields)))
    assert mistake.startswith(f"1: {said.format(tmp_path / file)}")


def test_sounds_and_pictures_in_their_fields(
    write: Write, tmp_path: Path, astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sounds as speech and pictures as references or footage are no mistakes. Not all of many wrong files are read."""
    soundfile.write(tmp_path / "sound.wav", np.zeros(1600), 16_000)
    (tmp_path / "still").write_bytes(astronaut.read_bytes())
    rows = [row("a", speech="sound.wav", mix="sound.wav"), row("b", footage=str(astronaut)), row("c", footage="still")]
    assert len(read_manifest(write(*rows)).shots) == 3
    monkeypatch.setattr(batch_manifest, "_MOST_SUSPECTS", 2)
    for name in "cde":
        (tmp_path / f"{name}.wav").write_text("{}")
    assert len(mistakes(write(*(row(name, speech=f"{name}.wav") for name in "cde")))) == 2


def test_outputs_unique_and_no_inputs(write: Write, tmp_path: Path) -> None:
    """Ids and outputs are unique and no video replaces an input."""
    (tmp_path / "b.mp4").write_bytes(b"video")
    path = write(row("a"), row("a", output="out/b.mp4"), row("A", output="./out/a.mp4"), row("c", output="de/../plate.mp4"))
    assert mistakes(path) == [
        "2: id: a: line 1 has this id already",
        "3: id: A: line 1 has the id a, which differs only in case",
        f"3: output: {tmp_path}/out/a.mp4: line 1 writes this video already",
        f"4: output: {tmp_path}/plate.mp4 is the footage of line 4: give another name",
    ]


def test_link_gives_no_second_name(write: Write, tmp_path: Path) -> None:
    """A link gives a video or an input no second name."""
    (tmp_path / "out").mkdir()
    (tmp_path / "outlink").symlink_to("out")
    (tmp_path / "delink").symlink_to(tmp_path / "de")
    (tmp_path / "here").symlink_to(".")
    (tmp_path / "speech.wav").symlink_to("out/speech.mp4")
    (tmp_path / "out" / "speech.mp4").write_bytes(b"sound")
    path = write(
        row("a"),
        row("b", output="outlink/a.mp4"),
        row("c", output="here/plate.mp4"),
        row("d", output="delink/d.mp4"),
        row("e", speech="speech.wav"),
        row("f", output="here/outlink/speech.mp4"),
        row("g", output="outlink/not/there/g.mp4"),
        row("h", output="here/outlink/not/there/g.mp4"),
    )
    assert mistakes(path) == [
        f"2: output: {tmp_path}/outlink/a.mp4: line 1 writes this video already as {tmp_path}/out/a.mp4, through a link",
        f"3: output: {tmp_path}/here/plate.mp4 is the footage of line 8 ({tmp_path}/plate.mp4, through a link): give another name",
        f"6: output: {tmp_path}/here/outlink/speech.mp4 is the speech of line 5 ({tmp_path}/speech.wav, through a link): "
        "give another name",
        f"8: output: {tmp_path}/here/outlink/not/there/g.mp4: line 7 writes this video already as "
        f"{tmp_path}/outlink/not/there/g.mp4, through a link",
    ]
    assert len(read_manifest(path, check_files=False).shots) == 8, "links of other machines are unknown"


def test_actor_decides_method(write: Write) -> None:
    """Actors are looked up and their method decides what goes together."""

    def method_of(shot: ShotSpec, line: LineSpec | None = None) -> str:
        if shot.dub.actor == "actors/nobody":
            raise ActorNotReadyError("no actor 'nobody'")
        return "portrait" if shot.dub.actor else shot.dub.method or "dubstage"

    path = write(row("a", actor="nobody"), row("b", actor="ann"), row("c", actor="ann", keep_audio=True))
    assert mistakes(path, method_of=method_of) == [
        "1: actor: no actor 'nobody'",
        "3: keep_audio: the video gets a timeline of its own, so the sound of the footage does not fit it: leave keep_audio out",
    ]
    assert read_manifest(write(row("a", actor="nobody"))).shots[0].actor_ids == ("nobody",)


def test_sequence_takes_no_actor_of_portrait(write: Write, plates: Path) -> None:
    """The method of a sequence's actor is checked as a named method is, and told once."""
    path = write(sequence("a", rate=24, actor="ann"), sequence("b", rate=24, actor="ann", method="portrait"))
    (actors, named) = mistakes(path, method_of=lambda shot, line=None: "portrait")
    said = "method: an image sequence keeps its frames, and videos of method portrait are as long as the speech"
    assert actors.startswith(f"1: {said}")
    assert named.startswith(f"2: {said}")


def test_remote_files_are_not_checked(write: Write) -> None:
    """Files are left alone if only workers reach them."""
    path = write(row("a", footage="/nfs/of/the/farm/a.mp4", output="/nfs/of/the/farm/out/a.mp4"))
    assert mistakes(path) == ["1: footage: no such file /nfs/of/the/farm/a.mp4"]
    assert read_manifest(path, check_files=False).shots[0].dub.footage_uri == "/nfs/of/the/farm/a.mp4"


@pytest.fixture
def plates(write: Write, tmp_path: Path) -> Path:
    """Folder with the names of the frames of two shots. The frames are not opened before a worker dubs them."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for name in ("a.1001.exr", "a.1002.exr", "b.1001.exr", "b.1003.exr"):
        (folder / name).write_bytes(b"frame")
    return folder


def sequence(shot_id: str, **more: Any) -> dict[str, Any]:
    return {"id": shot_id, "footage": "plates/a.%04d.exr", "output": f"out/{shot_id}.%04d.exr", "speech": "de/a.wav", **more}


def test_image_sequences(write: Write, plates: Path, tmp_path: Path) -> None:
    colour = {"ocio": "ocio://studio-config-latest", "input_colourspace": "ACEScg"}
    path = write(sequence("a", rate=24), sequence("b", footage="plates/a.1001-1002#.exr", footage_sound="de/a.wav", **colour))
    first, second = read_manifest(path).shots
    assert (first.dub.sequence.rate, first.is_sequence, first.output) == ("24", True, f"{tmp_path}/out/a.%04d.exr")
    assert (first.result, first.written) == (
        f"{tmp_path}/out/a.sha256",
        (f"{tmp_path}/out/a.sha256", f"{tmp_path}/out/a.wav", f"{tmp_path}/out/a.exr"),
    )
    assert (second.dub.sequence.sound_uri, second.dub.sequence.ocio) == (f"{tmp_path}/de/a.wav", "ocio://studio-config-latest")
    assert not read_manifest(write(row("a"))).shots[0].is_sequence


def test_mistakes_of_image_sequences(write: Write, plates: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "k.wav").write_bytes(b"sound")
    path = write(
        sequence("a"),
        sequence("b", footage="plates/b.%04d.exr"),
        sequence("c", footage="plates/c.%04d.exr"),
        sequence("d", output="out/d.mov"),
        sequence("e", output="out/e.%04d.dpx"),
        sequence("f", fit="pad"),
        sequence("g", codec="ffv1"),
        sequence("h", encode_quality="small"),
        sequence("i", rate="fast"),
        sequence("j", view="Film"),
        sequence("k", speech="out/k.wav"),
        sequence("l", output="out/a.####.exr"),
        sequence("m", output="plates/a.1001-1002####.exr"),
        sequence("n", footage="s3://plates/a.%04d.exr"),
        sequence("o", ocio="show.ocio"),
        sequence("p", ocio="ocio://studio-config-latest", input_colourspace="ACEScgg"),
        row("q", rate=24),
        row("r", speech="plates/a.%04d.exr"),
    )
    told = mistakes(path)
    expected = [
        f"2: footage: {plates}/b.1002.exr: this frame is missing between 1001 and 1003",
        f"3: footage: {plates}/c.%04d.exr: the folder {plates} has no file of this sequence",
        f"4: output: {tmp_path}/out/d.mov: the footage is an image sequence, so give the output as one too",
        f"5: output: {tmp_path}/out/e.%04d.dpx: frames come back in their own format; give the output the ending .exr",
        "6: fit: an image sequence keeps its frames",
        "7: codec: frames of an image sequence keep their own format",
        "8: encode_quality: frames of an image sequence keep their own format",
        "9: rate: 'fast'",
        "10: ocio: input_colourspace, display and view need ocio",
        f"11: output: {tmp_path}/out/k.%04d.exr (k.wav) is the speech of line 11: give another name",
        f"12: output: {tmp_path}/out/a.####.exr (a.sha256): line 1 writes this video already",
        f"13: output: {plates}/a.1001-1002####.exr (a.exr) is the footage of line ",
        "14: footage: 's3://plates/a.%04d.exr' is a URL, and image sequences, their sound and their colour configurations are read",
        f"15: ocio: no such file {tmp_path}/show.ocio",
        "16: input_colourspace: 'ACEScgg' is not in the configuration; near to it are: ",
        "17: rate: rate is for image sequences",
        f"18: speech: no such file {plates}/a.%04d.exr",
    ]
    for text in expected:
        assert [one for one in told if one.startswith(text)], (text, told)
    assert len(told) == len(expected), told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_reported(write: Write, tmp_path: Path) -> None:
    """A folder that may not be written is reported."""
    (tmp_path / "de").chmod(0o500)
    assert "may not be written" in mistakes(write(row("a", output="de/films/a.mp4")))[0]


def test_shots_are_no_previews(write: Write) -> None:
    """A video of the first seconds would pass the quality gate, and be delivered as the shot."""
    assert mistakes(write(row("a", preview=True), row("b"))) == [
        "1: preview: a shot of a batch is delivered whole: preview it as a dub of its own"
    ]


def test_only_rows_count_against_the_most_rows(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_manifest, "MOST_ROWS", 2)
    defaults = {"defaults": {"fit": "loop"}}
    for first in ((), (defaults,)):
        assert len(read_manifest(write(*first, row("a"), row("b"))).shots) == 2
        with pytest.raises(InvalidRequestError, match="3 rows, and a batch has at most 2"):
            read_manifest(write(*first, row("a"), row("b"), row("c")))
    with pytest.raises(InvalidRequestError, match="3 rows"):
        read_manifest(write("no JSON", row("a"), row("b")))


def test_a_file_that_is_no_manifest_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"none\.jsonl: cannot be read: No such file"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(InvalidRequestError, match="cannot be read: Is a directory"):
        read_manifest(tmp_path)
    with pytest.raises(InvalidRequestError, match="has no rows"):
        read_manifest(write({"defaults": {}}, "  "))
    path = write(row("a"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\xff\xfe\n" + b'{"a":' * 100_000 + b"\n")
    assert [text.partition(" (")[0] for text in mistakes(path)] == [
        "2: row: not a text in UTF-8",
        "3: row: more than 100 levels of brackets",
    ]


@pytest.mark.parametrize("name", ["", "Night", "a_b", "-a", "a-", "a" * 41, "a/b", "é"])
def test_non_kubernetes_name_refused(name: str, write: Write) -> None:
    """A name that Kubernetes does not take is refused."""
    with pytest.raises(InvalidRequestError, match="at most 40 small letters, digits and hyphens") as caught:
        read_manifest(write(row("a")), name=name)
    assert caught.value.field == "name"


def test_name_derived_from_file_name() -> None:
    """A name is made from any name of a file."""
    assert batch_name("Reel_07.FINAL", given=False) == "reel-07-final"
    assert batch_name("x" * 39 + "_y", given=False) == "x" * 39
    with pytest.raises(InvalidRequestError, match="give batch_id"):
        batch_name("???", given=False)


def test_large_manifest_checked_in_seconds(write: Write) -> None:
    """Five thousand rows with many mistakes are checked in seconds."""
    rows = [row(f"s{number}", speech="none.wav" if number % 2 else "de/a.wav") for number in range(5000)]
    path = write(*rows)
    begun = time.thread_time()
    assert len(mistakes(path)) == 2500
    assert time.thread_time() - begun < 60, "a second or two on a free core"


def test_non_utf8_folder_named_by_rows(tmp_path: Path) -> None:
    """A folder whose name is no UTF-8 is reported by each row."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "plate.mp4").write_bytes(b"video")
    manifest = folder / "night.jsonl"
    manifest.write_text('{"id": "a", "footage": "plate.mp4", "output": "film.mp4"}\n', encoding="utf-8")
    found = manifest_or_mistakes(manifest)
    assert isinstance(found, tuple)
    assert [mistake.rpartition("jsonl:")[2].partition(": '")[0] for mistake in found] == ["1: footage", "1: output"]
    assert all("rename the folder" in mistake for mistake in found)


def test_lines_stand_in_row_or_file(write: Write, tmp_path: Path) -> None:
    """Paths of a file of lines begin at its folder. The rows of both kinds ask for the same video."""
    own = read_manifest(write(row(lines=[LINE, {**LINE, "start": "00:00:03:00", "consent": "consent.json"}])), check_files=False)
    file = tmp_path / "de" / "lines.json"
    rows = [{**LINE, "speech": "a.wav"}, {**LINE, "speech": "a.wav", "start": "00:00:03:00", "consent": "../consent.json"}]
    file.write_text(json.dumps(rows))
    named = read_manifest(write(row(lines="de/lines.json")), check_files=False)
    assert named.sha256 == own.sha256
    assert own.shots[0].inputs == {
        "footage": f"{tmp_path}/plate.mp4",
        "lines[0].speech": f"{tmp_path}/de/a.wav",
        "lines[1].speech": f"{tmp_path}/de/a.wav",
        "lines[1].consent": f"{tmp_path}/consent.json",
    }
    file.write_text(json.dumps([rows[0]]))
    assert read_manifest(write(row(lines="de/lines.json")), check_files=False).sha256 != own.sha256


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lines": [{**LINE, "start": "soon"}]}, "lines[0].start: 'soon' is no time"),
        ({"lines": [LINE, {"speech": "de/a.wav", "face": 0}]}, "lines[1].start: is missing"),
        ({"lines": [{**LINE, "text": "hi"}]}, "lines[0].text: is no field of a line"),
        ({"lines": [{**LINE, "face": "left"}]}, "lines[0].face: takes"),
        ({"lines": [{**LINE, "box": [0, 0, 9, 9]}]}, "lines[0]: give face or box, not both"),
        ({"lines": [3]}, "lines[0]: a line is a JSON object"),
        ({"lines": 3}, "lines: takes a list of lines"),
        ({"lines": "none.json"}, "lines: {0}/none.json: cannot be read"),
        ({"lines": "plate.mp4"}, "lines: {0}/plate.mp4: not JSON"),
        ({"lines": [{**LINE, "speech": "none.wav"}]}, "lines[0].speech: no such file {0}/none.wav"),
        ({"lines": [{**LINE, "consent": "plate.mp4"}]}, "lines[0].consent: {0}/plate.mp4: not"),
        ({"lines": [LINE], "speech": "de/a.wav"}, "speech: a dub with lines takes no speech"),
        ({"lines": [LINE], "actor": "ada"}, "actor: a dub with lines takes no actor"),
        ({"lines": [LINE], "fit": "loop"}, "fit: a dub with lines takes no fit"),
        ({"lines": [LINE], "method": "portrait"}, "method: a dub with lines takes no method portrait"),
        ({"lines": [{**LINE, "actor": "nobody"}]}, "lines[0].actor: no actor 'nobody'"),
        ({"lines": [{**LINE, "actor": "ada"}, {**LINE, "actor": "ben"}]}, "lines[1].actor: actor ben is enrolled for portrait"),
    ],
)
def test_mistake_of_a_line_is_told(write: Write, tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    def method_of(shot: ShotSpec, line: LineSpec | None = None) -> str:
        if line is not None and line.actor == "actors/nobody":
            raise ActorNotReadyError("no actor 'nobody'")
        return "portrait" if line is not None and line.actor == "actors/ben" else shot.dub.method or "dubstage"

    first = mistakes(write(row(**fields)), method_of=method_of)[0]
    assert first.startswith(f"1: {said.format(tmp_path)}")


def test_rows_have_words_for_speech(write: Write) -> None:
    """Words belong to a row, make another digest, and are checked by the command of this machine."""
    defaults = {"defaults": {"voice": "ann", "language": "de"}}
    path = write(defaults, row("a", say="Guten Morgen!"), row("b", say="-h", voice=None), row("c", speech="de/a.wav"))
    found = read_manifest(path)
    assert [shot.words for shot in found.shots] == [Words(say="Guten Morgen!", voice="ann"), Words(say="-h"), None]
    evening = write(defaults, row("a", say="Guten Abend!"), row("b", say="-h", voice=None), row("c", speech="de/a.wav"))
    assert read_manifest(evening).sha256 != found.sha256

    def refuse(shot: ShotSpec) -> None:
        if shot.words is not None and shot.words.voice:
            raise InvalidRequestError("takes no voice", field="voice")

    assert mistakes(evening, speaks=refuse) == ["2: voice: takes no voice"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"say": "Hello", "speech": "de/a.wav"}, "2: say: a row has say or speech: leave one of them out"),
        ({"say": "Hello", "lines": [LINE]}, "2: say: a row has say or lines"),
        ({"say": "Hello", "audio_channel": 1}, "2: say: a row has say or audio_channel"),
        ({"say": " "}, "2: say: there are no words to say"),
        ({"say": 7}, "2: say: takes a valid string, not 7"),
        ({"say": "Hello", "voice": "-v"}, "2: voice: '-v' is no name of a voice"),
        ({"voice": "ann"}, "2: voice: is the voice of say, and the row has no words"),
    ],
)
def test_wrong_words_are_named(write: Write, fields: dict[str, Any], said: str) -> None:
    (told,) = mistakes(write({"defaults": {}}, row(**fields)))
    assert told.startswith(said)
