"""

Tests of a video's comment: that its mouth is synthetic, but only where it is.
"""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dubstage.gateway.v1 import dub_pb2, gateway_pb2
from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec
from dubstage.motion.v1 import motion_pb2
from gateway.api.convert import check_dub
from gateway.dub.choices import EXPRESSIONS, Expression, Fit
from gateway.dub.job.outcome import about_channels, about_pictures
from gateway.dub.request.dub_request import (
    DubLine,
    DubRequest,
    check_output,
    check_timeline,
    open_speech,
    open_writer,
    sha256_of,
    shown_video,
    what_is_synthetic,
)
from gateway.dub.request.spec import LocalFiles, files_read, problems, request_from
from gateway.dub.request.spec_text import names_of, spec_from
from gateway.dub.sound.timecode import parse_time
from gateway.media.mix import SoundMix
from gateway.media.output import is_marked
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.types import COVER, OtherStream, VideoInfo
from gateway.provenance.claim import VoiceFacts
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from services.common.methods import (
    LEAST_EXPRESSIVENESS,
    LIVE_LOOK_AHEAD_CHOICES,
    MOST_EXPRESSIVENESS,
    Finish,
    MouthOptions,
    method_named,
)
from services.common.server.bounds import declared
from services.common.texts import Field
from services.common.wire.convert import mouth_from_proto
from tests.unit.media.made_footage import Clip, make_clip, make_sound, tone


@pytest.mark.parametrize(
    ("method", "dubbed", "words"),
    [
        ("dubstage", True, "The mouth in this video is synthetic (made with dubstage); "),
        ("dubstage", False, "No mouth in this video is synthetic (made with dubstage); "),
        ("portrait", True, "The mouth and the motion of the head in this video are synthetic (made with dubstage); "),
        ("portrait", False, "The motion of the head in this video is synthetic (made with dubstage); "),
    ],
)
def test_the_mark_says_what_is_synthetic(tmp_path: Path, method: str, dubbed: bool, words: str) -> None:
    footage = make_clip(tmp_path / "clip.mp4", Clip(sound_rate=16000))
    request = DubRequest(footage=footage, speech=None, output=tmp_path / "out.mp4", method=method)
    info = probe(footage)
    with open_writer(request, info, open_speech(request, info), dubbed=dubbed) as writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame)
    with av.open(str(request.output)) as video:
        assert video.metadata["comment"].startswith(words)
        assert is_marked(dict(video.metadata))


@pytest.mark.parametrize(
    ("method", "dubbed", "keep_audio", "words"),
    [
        ("dubstage", True, False, "The mouth and the voice in this video are synthetic"),
        ("dubstage", False, False, "The voice in this video is synthetic"),
        ("dubstage", True, True, "The mouth in this video is synthetic"),
        ("portrait", True, False, "The mouth, the voice and the motion of the head in this video are synthetic"),
    ],
)
def test_synthetic_voice_is_named(method: str, *, dubbed: bool, keep_audio: bool, words: str) -> None:
    request = DubRequest(
        footage=Path("clip.mp4"),
        speech=Path("speech.wav"),
        output=Path("out.mp4"),
        method=method,
        keep_audio=keep_audio,
        voice=VoiceFacts(program="espeak-ng"),
    )
    assert what_is_synthetic(request, dubbed=dubbed) == words


def test_a_digest_is_taken_of_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file").startswith("ba7816bf")
    with pytest.raises(MediaUnsupportedError, match="is a folder"):
        sha256_of(tmp_path)


@pytest.mark.parametrize(("method", "still"), [("dubstage", False), ("portrait", False), ("portrait", True)])
def test_own_timeline_mxf(tmp_path: Path, method: str, *, still: bool) -> None:
    """A video with its own timeline can be an MXF."""
    footage, speech = tmp_path / "footage.png", make_sound(tmp_path / "speech.wav", tone(16000, 1600), 16000)
    if still:
        assert cv2.imwrite(str(footage), np.full((120, 100, 3), 90, np.uint8))
    else:
        footage = make_clip(tmp_path / "clip.mp4")
    request = DubRequest(
        footage=footage, speech=speech, output=tmp_path / "out.mxf", method=method, fit="retime" if method == "dubstage" else "cut"
    )
    info = probe(footage)
    check_output(request, info, open_speech(request, info))


def test_own_timeline_mxf_rate(tmp_path: Path) -> None:
    """A video with its own timeline is no MXF at a rate that MXF lacks."""
    footage = make_clip(tmp_path / "clip.mp4", Clip(pts=range(0, 12 * 800, 800), sound_rate=16000))
    request = DubRequest(footage=footage, speech=None, output=tmp_path / "out.mxf", method="dubstage", fit="retime")
    info = probe(footage)
    with pytest.raises(MediaUnsupportedError, match="mpeg2video cannot run at 16 frames a second"):
        check_output(request, info, open_speech(request, info))


def test_names_outside_utf8_stay_apart() -> None:
    """Files whose names differ in bytes that are no text have names of their own in a spec, with their endings."""
    paths = [Path(os.fsdecode(name)) for name in (b"day/caf\xe9.mp4", b"day/caf\xe8.mp4", "day/caf\ufffd.mp4".encode())]
    files = LocalFiles()
    names = [str(files.name(path)) for path in paths]
    assert [files.source(name, "footage_uri") for name in names] == paths
    assert [files.name(path) for path in paths] == names
    assert {Path(name).suffix for name in names} == {".mp4"}


@pytest.mark.parametrize(
    ("field", "what"), [("reference", "the reference itself"), ("mix", "the music and effects"), ("lines", "the speech itself")]
)
def test_output_is_no_input(tmp_path: Path, field: str, what: str) -> None:
    """No option lets the output replace a file that the dub reads."""
    footage, output = (
        make_clip(tmp_path / "clip.mp4", Clip(sound_rate=16000)),
        make_clip(tmp_path / "out.mp4", Clip(sound_rate=16000)),
    )
    plain = DubRequest(footage=footage, speech=None, output=output, method="hetero", overwrite=True)
    line = DubLine(name=Field("lines[0]"), start=parse_time("0"), dub=replace(plain, speech=output))
    given = {"reference": output, "mix": SoundMix(file=output), "lines": (line,)}[field]
    request = replace(plain, **{field: given})  # type: ignore[arg-type]
    info = probe(footage)
    (tmp_path / "linked").symlink_to(tmp_path)
    asked = replace(request, output=tmp_path / "linked" / "out.mp4")
    for check in (check_dub, lambda request: check_output(request, info, open_speech(request, info))):
        for one in (request, asked):
            with pytest.raises(InvalidRequestError, match=f"out.mp4 is {what}; give another name to the output"):
                check(one)


def test_all_files_of_spec_are_inputs() -> None:
    """Every field that names a file to read is known to the check that no frame of a sequence replaces such a file."""
    names = {field.name for field in DubSpec.DESCRIPTOR.fields if field.name.endswith("_uri")} - {"footage_uri", "output_uri"}
    spec = DubSpec(**{name: name for name in names}, lines=[LineSpec(speech_uri="said", consent_uri="signed")])  # type: ignore[arg-type]
    assert {str(file) for file in files_read(spec, LocalFiles())} == {*names, "said", "signed"}


@pytest.mark.parametrize(
    ("method", "fit", "expression", "kept"),
    [
        ("dubstage", "cut", None, True),
        ("hetero", "cut", "keep", True),
        ("dubstage", "cut", "neutral", False),
        ("dubstage", "loop", None, False),
        ("portrait", "cut", None, False),
        ("portrait+dubstage", "cut", None, False),
    ],
)
def test_same_frames_keep_expression(method: str, fit: Fit, expression: Expression | None, kept: bool) -> None:
    """Videos with the frames of the footage keep its expression."""
    video = Path("video.mp4")
    request = DubRequest(footage=video, speech=None, output=video, method=method, fit=fit, expression=expression)
    assert request.keeps_expression is kept


@pytest.mark.parametrize(("method", "fit"), [("portrait", "cut"), ("dubstage", "pad")])
def test_own_timeline_cannot_keep_expression(method: str, fit: Fit) -> None:
    """A video with its own timeline cannot keep the expression."""
    check_timeline(method_named(method), fit=fit, keep_audio=False, expression="neutral")
    with pytest.raises(InvalidRequestError, match="timeline") as caught:
        check_timeline(method_named(method), fit=fit, keep_audio=False, expression="keep")
    assert caught.value.field == "expression"


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("fit", {"fit": "slow"}),
        ("fit", {"fit": "retime"}),
        ("keep_audio", {"keep_audio": True}),
        ("footage_uri", {"footage": "a.%04d.exr", "output": "b.%04d.exr"}),
        ("preview", {"lines": [{"start": 0, "speech": "a.wav", "face": 0}]}),
    ],
)
def test_preview_refuses_field(field: str, row: dict[str, object]) -> None:
    """A preview refuses what needs the whole video, and names the field."""
    spec = spec_from({"footage": "a.mp4", "output": "b.mp4", "preview": True, **row})
    assert field in [found for found, _ in problems(spec, lambda _: "dubstage")]
    spec.preview = False
    assert field not in [found for found, _ in problems(spec, lambda _: "dubstage")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"preview_at": 2}, "preview_at is given without preview"),
        ({"preview_at": 0}, "preview_at is given without preview"),
        ({"preview": True, "preview_at": "soon"}, "'soon' is no time: give seconds"),
        ({"preview": True, "preview_at": "-1"}, "'-1' is no time"),
    ],
)
def test_unusable_preview_time_is_refused(row: dict[str, object], said: str) -> None:
    """A time without a preview is refused, and a text that is no time."""
    spec = spec_from({"footage": "a.mp4", "output": "b.mp4", **row})
    ((field, error),) = problems(spec, lambda _: "dubstage")
    assert field == "preview_at"
    assert said in str(error)
    with pytest.raises(InvalidRequestError, match=said):
        request_from(spec, LocalFiles(), threads=1)


@pytest.mark.parametrize(("fit", "begins", "length"), [("cut", "0.2", "0.480"), ("loop", "1.3", "2.000")])
def test_preview_ends_with_video(tmp_path: Path, fit: Fit, begins: str, length: str) -> None:
    """A preview begins within the video: the footage, or, with a timeline of its own, a video as long as the speech."""
    info = probe(make_clip(tmp_path / "clip.mp4"))
    speech = make_sound(tmp_path / "speech.wav", tone(16000, 32000), 16000)

    def shown(at: str) -> VideoInfo:
        row = {"footage": str(info.path), "output": str(tmp_path / "out.mp4"), "speech": str(speech), "fit": fit}
        request = request_from(spec_from({**row, "preview": True, "preview_at": at}), LocalFiles(), threads=1)
        sound = open_speech(request, info)
        check_output(request, info, sound)
        return shown_video(request, info, sound)

    assert float(shown(begins).begin) == pytest.approx(float(begins), abs=0.04)
    assert float(shown(begins).end) == float(length)
    with pytest.raises(InvalidRequestError, match=rf"^preview_at: {length} s is after the end of the video \({length} s") as caught:
        shown(length)
    assert caught.value.field == "preview_at"


def test_preview_with_report_keeps_size() -> None:
    """A preview is half as large, but not beside the footage in a report. A dub has the footage's size."""
    preview, dub = (
        request_from(spec_from({"footage": "a.mp4", "output": "b.mp4", "preview": preview}), LocalFiles(), threads=1)
        for preview in (True, None)
    )
    assert (preview.half_size, preview.for_report().half_size, dub.half_size) == (True, False, False)
    assert preview.for_report().preview


def test_unknown_expression_lists_values() -> None:
    """An unknown expression is refused with those there are."""
    assert tuple(names_of(dub_pb2.Expression.DESCRIPTOR).values()) == ("", *EXPRESSIONS)
    with pytest.raises(InvalidRequestError, match="keep, neutral") as caught:
        spec_from({"expression": "smile"})
    assert caught.value.field == "expression"


def test_unknown_finish_lists_values() -> None:
    """An unknown finish is refused with those there are, as a word and as a number."""
    assert tuple(names_of(dub_pb2.Finish.DESCRIPTOR).values()) == ("", *Finish)
    with pytest.raises(InvalidRequestError, match="bank, renderer") as caught:
        spec_from({"finish": "paint"})
    assert caught.value.field == "finish"
    made = dub_pb2.DubSpec(footage_uri="a.mp4", output_uri="b.mp4", finish=7)  # type: ignore[arg-type]  # a number of no name
    assert [field for field, _ in problems(made, lambda _: "dubstage")] == ["finish"]


def test_method_decides_finish() -> None:
    """A spec without a finish shows that of its method, and of the method that takes the method's place."""
    for method, own in (("dubstage", Finish.BANK), ("everybody", Finish.RENDERER), ("everybody+dubstage", Finish.BANK)):
        found = {
            finish: request_from(
                spec_from({"footage": "a.mp4", "output": "b.mp4", "method": method, "finish": finish}), LocalFiles(), threads=1
            )
            for finish in (None, *Finish)
        }
        assert [request.shown_finish for request in found.values()] == [own, Finish.BANK, Finish.RENDERER]
        assert replace(found[None], method="hetero").shown_finish is Finish.RENDERER


def test_look_ahead_range_in_contracts() -> None:
    """The contracts allow the look-aheads of the table."""
    for message in (gateway_pb2.LiveConfig, motion_pb2.PredictMotionConfig):
        bounds = declared(message.DESCRIPTOR.fields_by_name["look_ahead_frames"])
        assert bounds is not None
        assert (bounds.min, bounds.max) == (min(LIVE_LOOK_AHEAD_CHOICES), max(LIVE_LOOK_AHEAD_CHOICES))


def test_expressiveness_range_in_contracts() -> None:
    """The contracts declare the same range of the expressiveness."""
    for message in (
        dub_pb2.DubSpec,
        dub_pb2.LineSpec,
        dub_pb2.ShotOptions,
        gateway_pb2.LiveConfig,
        motion_pb2.PredictMotionConfig,
    ):
        bounds = declared(message.DESCRIPTOR.fields_by_name["expressiveness"])
        assert bounds is not None
        assert (bounds.min, bounds.max, bounds.zero_ok) == (LEAST_EXPRESSIVENESS, MOST_EXPRESSIVENESS, False)


def test_mouth_options_are_in_contracts() -> None:
    """Every option of mouths is a field of the messages that it is read from and sent in, and can be left out of them."""
    for message in (dub_pb2.DubSpec, dub_pb2.LineSpec, gateway_pb2.LiveConfig, motion_pb2.PredictMotionConfig):
        assert mouth_from_proto(message(), MouthOptions()) == MouthOptions()


def test_channel_of_the_voice(tmp_path: Path) -> None:
    """The user is told which channels are the voice, unless the user chooses one."""
    wave = tone(16000, 16000)
    sound = make_sound(tmp_path / "speech.wav", np.concatenate([wave, -wave], axis=1), 16000)
    footage = make_clip(tmp_path / "clip.mp4", Clip(sound_rate=16000))
    request, info = DubRequest(footage=footage, speech=sound, output=tmp_path / "out.mp4", method="dubstage"), probe(footage)
    (said,) = about_channels(request, info)
    assert "channel 1 is taken as the voice, and the video keeps all channels" in said
    chosen = replace(request, audio_channel=2)
    assert open_speech(chosen, info).channels == 1
    assert about_channels(chosen, info) == []
    assert about_channels(replace(request, speech=None), info) == []
    with pytest.raises(InvalidRequestError, match="has channel 1 only, and channel 2 was asked for"):
        open_speech(replace(chosen, speech=None), info)


def test_speech_of_video_begins_with_picture(tmp_path: Path) -> None:
    """Speech from a video whose sound begins later than its picture begins with silence."""
    clip = Clip(codec="libx264", pts=tuple(range(0, 50 * 512, 512)), sound_rate=16000, sound_start_s=Fraction(1, 2))
    video = make_clip(tmp_path / "speech.mkv", clip)
    request = DubRequest(footage=video, speech=video, output=tmp_path / "out.mp4", method="dubstage")
    samples = np.concatenate(list(open_speech(request, probe(video)).chunks))
    assert np.abs(samples[:7000]).max() < 1e-3
    assert np.abs(samples[9000:12000]).max() > 0.4


def test_other_video_tracks_are_named(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mkv", Clip()))
    assert about_pictures(info) == []
    several = replace(info, others=(OtherStream(3, "video", "h264", {}), OtherStream(4, COVER, "mjpeg", {})))
    (said,) = about_pictures(several)
    assert said.startswith("the footage has 2 video tracks (streams 0, 3 of the file): stream 0 is dubbed")
