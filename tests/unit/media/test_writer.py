"""Tests of the writer of videos: times, samples, metadata and other streams are kept, segments are one video, and whatever goes
wrong gives a clear error and leaves nothing of the video.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from av.sidedata.sidedata import Type

from gateway.media.encoders import WriteSettings
from gateway.media.inspection import inspect_video
from gateway.media.muxer import EncodedSegment
from gateway.media.opening import open_input
from gateway.media.probe import probe, side_data
from gateway.media.reader import VideoReader
from gateway.media.sound import SoundReader, Speech
from gateway.media.types import HdrMetadata, MediaInfo, Plane
from gateway.media.writer import VideoWriter
from services.common.errors import ContractBrokenError, InvalidRequestError, MediaUnsupportedError
from tests.unit.media.made_footage import (
    VARIABLE_PTS,
    Clip,
    make_captioned_clip,
    make_clip,
    make_clip_with_messages,
    tone,
    with_edits,
    with_unknown_sound,
)

VARIABLE = Clip(pts=VARIABLE_PTS, time_base=Fraction(1, 15360), last_duration=700)
VIDEO_RATE = Clip(pts=tuple(range(0, 12012, 1001)), time_base=Fraction(1, 24000), rate=Fraction(24000, 1001), last_duration=1001)
HDR10 = HdrMetadata((34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450, 50, 10_000_000), (1000, 400))
LONG = Clip(pts=tuple(range(0, 60 * 512, 512)))
LATE = Clip(pts=tuple(range(46_219 * 12800 + 6400, 46_219 * 12800 + 6400 + 12 * 512, 512)), sound_rate=48000)
EARLY = Clip(pts=tuple(range(-6 * 512, 6 * 512, 512)), sound_rate=48000)
ACTIVE_FORMAT = b"\xb5\x00\x31DTG1\x41\xf8"
HDR10_PLUS = b"\xb5\x00\x3c\x00\x01\x04\x01\x40" + b"\x00" * 24
HALF_A_SECOND = Speech(16000, 1, [tone(16000, 8000)])


def _inverted(planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
    """Other planes of the same shapes: the luma's lower half upside down."""
    changed = planes[0].copy()
    half = len(changed) // 2
    changed[half:] = changed[half:][::-1]
    return (changed, *(plane.copy() for plane in planes[1:]))


def _write(info: MediaInfo, output: Path, speech: Speech | None = None, **settings: object) -> VideoWriter:
    with VideoWriter(output, info, speech=speech, settings=WriteSettings(**settings)) as writer, VideoReader(info) as reader:  # type: ignore[arg-type]
        for frame in reader:
            writer.write(frame, _inverted(frame.planes) if frame.index % 3 == 1 else None)
    return writer


@pytest.mark.parametrize(
    ("name", "clip", "codec"),
    [
        ("clip.mp4", Clip(), "h264"),
        ("clip.mkv", Clip(codec="mjpeg", pixel_format="yuvj420p", time_base=Fraction(1, 25), pts=range(6)), "ffv1"),
        ("clip.mov", Clip(pixel_format="yuv444p10le", codec="prores_ks"), "prores"),
    ],
)
def test_planes_that_are_changed_in_place(tmp_path: Path, name: str, clip: Clip, codec: str) -> None:
    """Changed copies of the writer give the same file as planes of the caller, and the decoded frames do not change. The caller may
    also write other planes than the copy.
    """
    info = probe(make_clip(tmp_path / name, clip))
    output = tmp_path / f"out{'.mov' if codec == 'prores' else '.mkv'}"
    _write(info, output, codec=codec)
    expected = output.read_bytes()
    with VideoWriter(output, info, settings=WriteSettings(codec=codec, overwrite=True)) as writer, VideoReader(info) as reader:
        for frame in reader:
            planes = None
            if frame.index % 3 == 1:
                before = [plane.copy() for plane in frame.planes]
                planes = writer.writable(frame)
                for plane, changed in zip(planes, _inverted(frame.planes), strict=True):
                    plane[:] = changed
                if frame.index == 4:
                    planes = tuple(plane.copy() for plane in planes)
                    writer.writable(frame)
                for plane, old in zip(frame.planes, before, strict=True):
                    np.testing.assert_array_equal(plane, old)
            writer.write(frame, planes)
    assert output.read_bytes() == expected


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize(("metadata", "segmented"), [(HDR10, False), (HDR10, True), (HdrMetadata(light=(800, 200)), False)])
def test_hdr_metadata_are_kept(tmp_path: Path, codec: str, metadata: HdrMetadata, segmented: bool) -> None:
    """The video states the display and the light that the footage states. AV1 has fractions of 1/65536 and 1/256."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(pixel_format="yuv420p10le")))
    info, output = replace(info, video=replace(info.video, hdr=metadata)), tmp_path / "out.mp4"
    settings = WriteSettings(codec=codec)
    with VideoWriter(output, info, settings=settings, segmented=segmented) as writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame)
            if writer.segmented and frame.index in (2, info.video.num_frames - 1):
                writer.end_segment()
    found = inspect_video(output).video.hdr
    assert found.light == metadata.light
    if metadata.mastering is None:
        assert found.mastering is None
    else:
        assert found.mastering == pytest.approx(metadata.mastering, abs=2, rel=0.01)


def _exact_times(info: MediaInfo) -> list[Fraction]:
    """Times of the frames from the first frame."""
    return [int(pts) * info.video.time_base for pts in info.video.pts - info.video.pts[0]]


@pytest.mark.parametrize("clip", [VARIABLE, VIDEO_RATE, LONG, Clip(pts=(3, 4, 9, 1000, 90001), time_base=Fraction(1, 90000))])
@pytest.mark.parametrize(("name", "codec"), [("out.mp4", "h264"), ("out.mov", "hevc")])
def test_segments_are_one_video(tmp_path: Path, clip: Clip, name: str, codec: str) -> None:
    """Segments of 1 to 25 frames make one video with exact times, and the same bytes if an earlier writer has encoded some."""
    info = probe(make_clip(tmp_path / "clip.mp4", clip))
    ends = {0, 4, 5, 30, 55, info.video.num_frames - 1}

    def write(output: Path, known: Sequence[EncodedSegment]) -> list[EncodedSegment]:
        settings = WriteSettings(codec=codec)
        segments: list[EncodedSegment] = []
        with VideoWriter(output, info, settings=settings, segmented=True) as writer, VideoReader(info) as reader:
            assert writer.segmented
            for frame in reader:
                if len(segments) < len(known):
                    if frame.index in ends:
                        segments.append(known[len(segments)])
                        writer.take(segments[-1])
                    continue
                writer.write(frame, _inverted(frame.planes) if frame.index % 3 == 1 else None)
                if frame.index in ends:
                    segments.append(writer.end_segment())
        return segments

    segments = write(tmp_path / name, [])
    write(tmp_path / f"again{Path(name).suffix}", segments[:3])
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again{Path(name).suffix}").read_bytes()
    found = probe(tmp_path / name)
    assert (found.video.start, _exact_times(found)) == (0, _exact_times(info))
    if codec == "h264":  # the last packet of HEVC may be of another frame than the last one, whose duration is lost
        assert found.video.duration == info.video.duration
    with VideoReader(found) as reader:
        assert [frame.index for frame in reader] == list(range(info.video.num_frames))


@pytest.mark.parametrize(("name", "codec"), [("out.mkv", "h264"), ("out.mp4", "ffv1"), ("out.mov", "prores")])
def test_other_outputs_have_no_segments(tmp_path: Path, name: str, codec: str) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(pixel_format="yuv422p10le")))
    assert not VideoWriter(tmp_path / name, info, settings=WriteSettings(codec=codec), segmented=True).segmented


@pytest.mark.parametrize("clip", [VARIABLE, VIDEO_RATE, Clip(pts=(3, 4, 9, 1000, 90001), time_base=Fraction(1, 90000))])
@pytest.mark.parametrize(("name", "codec"), [("out.mp4", "h264"), ("out.mp4", "ffv1"), ("out.mov", "h264"), ("out.nut", "ffv1")])
def test_every_frame_keeps_its_exact_time(tmp_path: Path, clip: Clip, name: str, codec: str) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", clip))
    _write(info, tmp_path / name, codec=codec)
    assert (probe(tmp_path / name).video.start, _exact_times(probe(tmp_path / name))) == (0, _exact_times(info))
    if not name.endswith("nut"):  # NUT stores no durations
        assert probe(tmp_path / name).video.duration == info.video.duration


@pytest.mark.parametrize("clip", [LATE, EARLY])
@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.nut"])
@pytest.mark.parametrize("keep_audio", [False, True])
def test_output_clock_begins_at_first_frame(tmp_path: Path, clip: Clip, name: str, keep_audio: bool) -> None:
    """Footage whose clock begins before or long after 0 has all its frames, and its sound beside them, from 0 on."""
    clip = replace(clip, sound_start_s=clip.pts[0] * clip.time_base + Fraction(1, 5))
    info = probe(make_clip(tmp_path / "clip.mkv", clip))
    assert info.video.start == clip.pts[0] * clip.time_base
    speech = None if keep_audio else SoundReader(info.path, origin=info.video.start).speech()
    _write(info, tmp_path / name, keep_audio=keep_audio, speech=speech)
    with av.open(str(tmp_path / name)) as written:
        times = [frame.pts * frame.time_base for frame in written.decode(video=0)]
    assert [round(float(time), 3) for time in times] == [round(0.04 * number, 3) for number in range(12)]
    found = probe(tmp_path / name)
    assert (found.video.num_frames, found.video.start) == (12, 0)
    read = np.concatenate([chunk.samples for chunk in SoundReader(found.path, origin=found.video.start)])[:, 0]
    assert np.abs(read[: int(0.17 * 48000)]).max() < 1e-3
    assert np.abs(read[int(0.25 * 48000) : int(0.4 * 48000)]).max() > 0.4
    stated = found.video.metadata.get("timecode") or found.metadata.get("timecode") or found.metadata.get("TIMECODE")
    if clip.pts[0] > 0:
        assert "12:50:19:12" in {stated, found.video.metadata.get("TIMECODE")}
    else:
        assert stated is None


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("late", [0, 1001 * 24])
def test_constant_rate_is_stated(tmp_path: Path, codec: str, late: int) -> None:
    """Pictures of a constant rate state the rate themselves."""
    pts = tuple(late + pts for pts in VIDEO_RATE.pts)
    info = probe(make_clip(tmp_path / "clip.mp4", replace(VIDEO_RATE, pts=pts)))
    _write(info, tmp_path / "out.mp4", codec=codec)
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert video.streams.video[0].codec_context.framerate == Fraction(24000, 1001)
        assert all(packet.duration == 1001 for packet in video.demux(video=0) if packet.size)
    assert _exact_times(probe(tmp_path / "out.mp4")) == _exact_times(info)


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "yuv422p10le", "yuv422p", "yuv444p", "gray", "yuva420p"])
@pytest.mark.parametrize("output", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("size", [(50, 38), (51, 39)])
def test_a_lossless_video_holds_exactly_the_samples_given(tmp_path: Path, name: str, output: str, size: tuple[int, int]) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(pixel_format=name, size=size)))
    assert _write(info, tmp_path / output, codec="ffv1").choice.pixel_format == name
    with VideoReader(info) as before, VideoReader(probe(tmp_path / output)) as after:
        for old, new in zip(before, after, strict=True):
            given = _inverted(old.planes) if old.index % 3 == 1 else old.planes
            assert all(np.array_equal(a, b) for a, b in zip(given, new.planes, strict=True))


@pytest.mark.parametrize(("name", "codec"), [("yuv420p10le", "hevc"), ("yuv422p10le", "h264"), ("yuv444p", "h264")])
def test_depth_and_chroma_are_kept_by_default(tmp_path: Path, name: str, codec: str) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(pixel_format=name)))
    choice = _write(info, tmp_path / "out.mp4").choice
    assert (choice.codec, probe(tmp_path / "out.mp4").video.pixel.name) == (codec, name)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_footage_with_alpha_is_written_without_loss(tmp_path: Path, suffix: str) -> None:
    info = probe(make_clip(tmp_path / "alpha.nut", Clip("yuva420p", "ffv1", pts=(0, 512, 1024))))
    choice = _write(info, tmp_path / f"out{suffix}").choice
    assert (choice.codec, choice.pixel_format) == ("ffv1", "yuva420p")
    assert probe(tmp_path / f"out{suffix}").video.pixel.alpha


def test_prores_footage_stays_prores_in_mov(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mov", Clip(pixel_format="yuv422p10le", codec="prores_ks")))
    assert _write(info, tmp_path / "out.mov").choice.codec == "prores"
    assert _write(info, tmp_path / "out.mp4").choice.codec == "h264"


def test_mxf_rate_and_sound(tmp_path: Path) -> None:
    """MXF is written at its constant rate with sound."""
    clip = Clip(pixel_format="yuv422p", sound_rate=44100, timecode="10:00:00:00")
    info = probe(make_clip(tmp_path / "clip.mp4", clip))
    choice = _write(info, tmp_path / "out.mxf", speech=Speech(16000, 1, [tone(16000, 4000)])).choice
    written = probe(tmp_path / "out.mxf")
    assert (choice.codec, written.video.pixel.name, written.video.constant_rate) == ("mpeg2video", "yuv422p", 25)
    assert [(track.codec, track.sample_rate_hz) for track in written.audio] == [("pcm_s16le", 48000)]
    assert _exact_times(written) == _exact_times(info)


def test_rotation_aspect_colour_and_tags_are_carried_over(tmp_path: Path) -> None:
    clip = Clip(
        rotation=90, sample_aspect=Fraction(16, 15), colour=(9, 2, 9, 16), codec="libx264", comment="take 3",
        timecode="01:02:03:04", sound_rate=48000,
    )  # fmt: skip
    info = probe(make_clip(tmp_path / "clip.mp4", clip))
    for codec in ("h264", "ffv1"):
        _write(info, tmp_path / "out.mp4", codec=codec, overwrite=True, marking="Synthetic speech and mouth (dubstage).")
        written = probe(tmp_path / "out.mp4")
        assert written.video.orientation == info.video.orientation
        assert written.video.colour == info.video.colour
        assert written.metadata["comment"] == "Synthetic speech and mouth (dubstage). | take 3"
        assert written.video.metadata["timecode"] == "01:02:03:04"


@pytest.mark.parametrize(
    ("rate", "whole", "own"),
    [
        (Fraction(25), "23:59:59:20", "00:00:00:10"),
        (Fraction(30000, 1001), "00:00:59;20", "00:01:00;07"),
        (Fraction(30000, 1001), "00:09:59;20", "00:10:00;05"),
        (Fraction(60000, 1001), "00:00:59;55", "00:01:00;14"),
        (Fraction(25), "", "00:00:00:15"),
    ],
)
def test_span_states_its_own_timecode(tmp_path: Path, rate: Fraction, whole: str, own: str) -> None:
    """A span has the timecode of its first frame; without a timecode in the footage, nothing within the first second."""
    ticks = int(60000 / rate)
    times = {"time_base": Fraction(1, 60000), "pts": tuple(range(0, 40 * ticks, ticks)), "last_duration": ticks}
    info = probe(make_clip(tmp_path / "clip.mov", Clip(codec="libx264", rate=rate, timecode=whole, **times)))  # type: ignore[arg-type]
    _write(replace(info, video=info.video.span(15, 1)), tmp_path / "out.mov", carry=False)
    written = probe(tmp_path / "out.mov").video
    assert written.metadata.get("timecode") == (own if whole else None)
    assert written.pts.tolist() == [index * ticks for index in range(written.num_frames)]


@pytest.mark.parametrize(("start_s", "first", "label"), [(0, 50, None), (46219, 15, "12:50:19:15"), (46219, 59, "12:50:21:09")])
def test_span_of_late_clock_states_its_time(tmp_path: Path, start_s: int, first: int, label: str | None) -> None:
    """A span of footage whose clock begins late states the time of its own first frame, and no other span states one."""
    times = {"time_base": Fraction(1, 25), "pts": tuple(range(25 * start_s, 25 * start_s + 60)), "last_duration": 1}
    info = probe(make_clip(tmp_path / "clip.mkv", Clip(codec="libx264", **times)))  # type: ignore[arg-type]
    _write(replace(info, video=info.video.span(first, 1)), tmp_path / "out.mov", carry=False)
    assert probe(tmp_path / "out.mov").video.metadata.get("timecode") == label


def test_full_range_footage_stays_full_range(tmp_path: Path) -> None:
    clip = Clip(codec="mjpeg", pixel_format="yuvj420p", colour=(5, 2, 2, 2), time_base=Fraction(1, 25), pts=range(6))
    info = probe(make_clip(tmp_path / "clip.avi", clip))
    assert info.video.pixel.name == "yuvj420p"
    for codec in ("h264", "ffv1"):
        _write(info, tmp_path / "out.mp4", codec=codec, overwrite=True)
        written = probe(tmp_path / "out.mp4")
        assert written.video.colour_model.full_range
    with VideoReader(info) as before, VideoReader(written) as after:
        np.testing.assert_array_equal(next(iter(before)).planes[1], next(iter(after)).planes[1])


def test_other_streams_are_carried_over_packet_by_packet(tmp_path: Path) -> None:
    clip = Clip(sound_rate=44100, sound_tracks=2, subtitles=True, chapters=True)
    info = probe(make_clip(tmp_path / "clip.mp4", clip))
    report = _write(info, tmp_path / "out.mp4", speech=HALF_A_SECOND).report
    assert report.carried == ("audio stream 2 (aac)", "subtitle stream 3 (mov_text)")

    def packets(path: Path, kind: str, number: int) -> list[tuple[Fraction, bytes]]:
        with av.open(str(path)) as container:
            stream = [item for item in container.streams if item.type == kind][number]
            return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size]

    for kind, number in (("audio", 1), ("subtitle", 0)):
        assert packets(tmp_path / "out.mp4", kind, number) == packets(info.path, kind, number)
    assert packets(tmp_path / "out.mp4", "audio", 0) != packets(info.path, "audio", 0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["Opening"]


def test_further_video_track_is_whole(tmp_path: Path) -> None:
    """A further video track with B-frames is copied from its first picture on."""
    with av.open(str(tmp_path / "clip.mkv"), "w") as output:
        streams = [output.add_stream("libx264", rate=25, options={"bf": "2"}) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(30):
            for stream, level in zip(streams, (90, 120), strict=True):
                picture = av.VideoFrame.from_ndarray(np.full((72, 64), level + 2 * index, np.uint8), "yuv420p")
                picture.pts, picture.time_base = index, Fraction(1, 25)
                output.mux(stream.encode(picture))
        for stream in streams:
            output.mux(stream.encode(None))
    for name in ("out.mkv", "out.mp4"):
        report = _write(probe(tmp_path / "clip.mkv"), tmp_path / name).report
        assert report.carried == ("video stream 1 (h264)",)
        with av.open(str(tmp_path / name)) as written:
            levels = [int(frame.to_ndarray()[0, 0]) for frame in written.decode(video=1)]
        assert levels == pytest.approx([120 + 2 * index for index in range(30)], abs=2)


def test_footage_closed_during_pictures(tmp_path: Path) -> None:
    """The index of long footage takes memory for as long as the file is open."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(sound_rate=44100, sound_tracks=2, chapters=True)))
    with VideoWriter(tmp_path / "out.mp4", info, speech=HALF_A_SECOND) as writer:
        assert str(info.path) not in {file.path for file in psutil.Process().open_files()}
        with VideoReader(info) as reader:
            for frame in reader:
                writer.write(frame)
        assert str(info.path) not in {file.path for file in psutil.Process().open_files()}
    assert writer.report.carried == ("audio stream 2 (aac)",)


def test_unsupported_streams_are_named(tmp_path: Path) -> None:
    """Streams that the container does not hold are named."""
    info = probe(make_clip(tmp_path / "clip.mkv", Clip(subtitles=True, attachment=True)))
    assert _write(info, tmp_path / "out.mkv").report.dropped == ()
    assert "attachment" in {stream.kind for stream in probe(tmp_path / "out.mkv").others}
    dropped = " ".join(_write(info, tmp_path / "out.mp4").report.dropped)
    assert "srt" in dropped
    assert "attachment" in dropped


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_unknown_sound_is_named(tmp_path: Path, suffix: str) -> None:
    """A sound track in a codec that FFmpeg does not know, as the spatial audio of phones, does not stop the dub."""
    made = make_clip(tmp_path / f"made{suffix}", Clip(codec="libx264", sound_rate=44100, sound_tracks=2)).read_bytes()
    (tmp_path / f"clip{suffix}").write_bytes(with_unknown_sound(made))
    report = _write(probe(tmp_path / f"clip{suffix}"), tmp_path / f"out{suffix}", speech=HALF_A_SECOND).report
    assert report.dropped == ("audio stream 2 (of an unknown codec) of the footage is not carried over",)
    assert [track.codec for track in probe(tmp_path / f"out{suffix}").audio] == ["aac"]


def second_track(path: Path) -> npt.NDArray[np.float32]:
    """The samples of the second sound track, each at its time."""
    sound = np.zeros(5 * 44100, np.float32)
    end = 0
    with open_input(path) as container:
        for frame in container.decode(container.streams.audio[1]):
            begin = round(frame.time * 44100)
            samples = frame.to_ndarray()[0, max(0, -begin) :]
            end = max(begin, 0) + len(samples)
            sound[max(begin, 0) : end] = samples
    return sound[:end]


def test_carried_sound_follows_edit_list(tmp_path: Path) -> None:
    """A further sound track is copied as the edit list plays the track."""
    clip = Clip(codec="libx264", pts=tuple(range(0, 60 * 512, 512)), sound_rate=44100, sound_tracks=2)
    made = make_clip(tmp_path / "made.mp4", clip).read_bytes()
    (tmp_path / "clip.mp4").write_bytes(with_edits(made, [(0.8, 1.6), (0.8, 0.2)]))
    info = probe(tmp_path / "clip.mp4")
    report = _write(info, tmp_path / "out.mp4", speech=HALF_A_SECOND).report
    assert report.carried == ("audio stream 2 (aac)",)
    assert [words for words in report.dropped if "audio stream 2 (aac) is cut between packets" in words]
    own, copied = map(second_track, (info.path, tmp_path / "out.mp4"))
    assert abs(len(own) - len(copied)) <= 2048
    for begin in (4410, 22050, 44100):
        np.testing.assert_allclose(own[begin : begin + 4410], copied[begin : begin + 4410], atol=0.02)


@pytest.mark.parametrize(
    ("codec", "payload", "words"),
    [("libx264", ACTIVE_FORMAT, "the active format description"), ("libx265", HDR10_PLUS, "the metadata of HDR10+")],
)
def test_metadata_that_no_encoder_takes_are_named(tmp_path: Path, codec: str, payload: bytes, words: str) -> None:
    info = inspect_video(make_clip_with_messages(tmp_path / "clip.ts", codec, [payload] * 12))
    assert info.video.unkept == (words,)
    assert _write(info, tmp_path / "out.mp4").report.dropped == (words,)
    assert probe(tmp_path / "out.mp4").video.unkept == ()


def test_the_footages_own_sound_is_copied_on_request(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(sound_rate=44100, sound_start_s=Fraction(1, 10))))
    _write(info, tmp_path / "out.mp4", speech=HALF_A_SECOND, keep_audio=True)
    own, copied = (
        np.concatenate([c.samples for c in SoundReader(path, origin=Fraction(0))]) for path in (info.path, tmp_path / "out.mp4")
    )
    np.testing.assert_array_equal(own, copied)


@pytest.mark.parametrize(
    ("channels", "codec"), [(2, "pcm_s16le"), (3, "pcm_s16le"), (4, "pcm_s16le"), (7, "pcm_s16le"), (9, "aac")]
)
def test_sound_without_layout_is_carried(tmp_path: Path, channels: int, codec: str) -> None:
    """PCM of Matroska states no layout of its channels, and MP4 takes none without: the writer states the usual one. Sound of as
    many channels as no layout has is encoded anew.
    """
    silent = make_clip(tmp_path / "clip.mp4", Clip())
    with av.open(str(silent)) as source, av.open(str(tmp_path / "pcm.mkv"), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0])
        sound = output.add_stream("pcm_s16le", rate=48000, layout=f"{channels} channels")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                output.mux(packet)
        samples = np.arange(4800 * channels, dtype=np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, "s16", f"{channels} channels")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux(sound.encode(frame))
    assert _write(probe(tmp_path / "pcm.mkv"), tmp_path / "out.mp4", keep_audio=True).report.dropped == ()
    assert [track.codec for track in probe(tmp_path / "out.mp4").audio] == [codec]
    if codec == "pcm_s16le":
        (chunk,) = SoundReader(tmp_path / "out.mp4")
        np.testing.assert_array_equal(chunk.samples * 32768, samples.reshape(-1, channels))


@pytest.mark.parametrize("keep_audio", [False, True])
def test_sound_is_encoded_where_needed(tmp_path: Path, keep_audio: bool) -> None:
    """MXF holds no AAC. The footage's sound is encoded anew, whether its video keeps it on request or brings no new sound."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(sound_rate=48000)))
    report = _write(info, tmp_path / "out.mxf", keep_audio=keep_audio).report
    assert report.dropped == ()
    assert [track.codec for track in probe(tmp_path / "out.mxf").audio] == ["pcm_s16le"]
    own, written = (np.concatenate([c.samples for c in SoundReader(path)]) for path in (info.path, tmp_path / "out.mxf"))
    num_samples = min(len(own), len(written))
    np.testing.assert_allclose(own[:num_samples], written[:num_samples], atol=1e-4)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (44100, 2), (96000, 8), (11025, 3)])
@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_new_speech_aligned_with_video(tmp_path: Path, rate: int, channels: int, codec: str) -> None:
    """New speech sounds with the first frame and ends with the video."""
    info = probe(make_clip(tmp_path / "clip.mp4", VARIABLE))
    wave = np.repeat(tone(rate, 5 * rate), channels, 1)
    chunks = [wave[start : start + 777] for start in range(0, len(wave), 777)]
    _write(info, tmp_path / "out.mp4", speech=Speech(rate, channels, chunks), codec=codec)
    written = SoundReader(tmp_path / "out.mp4", origin=probe(tmp_path / "out.mp4").video.start)
    read = np.concatenate([chunk.samples for chunk in written])[:, 0]
    out_rate = written.info.sample_rate_hz
    assert abs(len(read) / out_rate - float(info.video.duration)) <= 1024 / out_rate
    wanted = tone(out_rate, len(read))[:, 0]
    middle = slice(len(read) // 4, len(read) // 2)
    assert np.abs(read[middle] - wanted[middle]).mean() < (0.002 if codec == "ffv1" and rate == out_rate else 0.03)


def test_short_speech_is_followed_by_silence(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))
    _write(info, tmp_path / "out.mp4", speech=Speech(16000, 1, [tone(16000, 1600)]), codec="ffv1")
    read = np.concatenate([chunk.samples for chunk in SoundReader(tmp_path / "out.mp4")])
    assert len(read) == 0.48 * 16000
    assert np.abs(read[1600:]).max() == 0.0


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "nut", "mxf"])
def test_equal_jobs_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(sound_rate=48000, codec="libx264")))
    videos = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for video in videos:
        _write(info, video, speech=HALF_A_SECOND)
    assert videos[0].read_bytes() == videos[1].read_bytes()


def test_matroska_takes_constant_rates_and_refuses_variable_ones(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", VIDEO_RATE))
    _write(info, tmp_path / "out.mkv")
    assert probe(tmp_path / "out.mkv").video.constant_rate == Fraction(24000, 1001)
    variable = probe(make_clip(tmp_path / "variable.mp4", VARIABLE))
    with pytest.raises(MediaUnsupportedError, match=r"write \.mp4"):
        VideoWriter(tmp_path / "never.mkv", variable)
    milliseconds = probe(make_clip(tmp_path / "clip.mkv", Clip(pts=(0, 33, 100, 133), time_base=Fraction(1, 1000))))
    _write(milliseconds, tmp_path / "again.mkv")
    assert _exact_times(probe(tmp_path / "again.mkv")) == _exact_times(milliseconds)


@pytest.mark.parametrize(
    ("output", "codec", "words"),
    [
        ("out.gif", None, "videos are written as"),
        ("out.mov", "ffv1", "does not hold ffv1"),
        ("out.mp4", "divx", "unknown codec divx"),
        ("out.mp4", "prores", "does not hold prores"),
        ("no/out.mp4", None, "does not exist"),
        ("clip.mp4", None, "footage itself"),
    ],
)
def test_unwritable_refused_before_work(tmp_path: Path, output: str, codec: str | None, words: str) -> None:
    """A video that cannot be written is refused before any work."""
    info = probe(make_clip(tmp_path / "clip.mp4"))
    with pytest.raises(InvalidRequestError, match=words):
        VideoWriter(tmp_path / output, info, settings=WriteSettings(codec=codec))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_frames_in_order_and_format(tmp_path: Path) -> None:
    """Frames are taken in order and in the footage's format only."""
    info = probe(make_clip(tmp_path / "clip.mp4"))
    with VideoReader(info) as reader:
        frames = iter(reader)
        first = next(frames)
        spoilt = [
            lambda writer: writer.write(next(frames)),
            lambda writer: writer.write(first, (first.planes[0],)),
            lambda writer: writer.write(first, tuple(plane.astype(np.uint16) for plane in first.planes)),
            lambda writer: writer.write(first),  # then the video ends too early
        ]
        for write in spoilt:
            with pytest.raises(ContractBrokenError), VideoWriter(tmp_path / "out.mp4", info) as writer:
                write(writer)
            assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_closed_captions_stay_with_their_frames(tmp_path: Path) -> None:
    texts = [bytes([0x80 | 65 + index, 0x80]) for index in range(6)]
    info = probe(make_captioned_clip(tmp_path / "clip.ts", texts))
    _write(info, tmp_path / "out.mp4")

    def captions(path: Path) -> list[bytes | None]:
        with VideoReader(probe(path)) as reader:
            return [side_data(frame.picture, Type.A53_CC) for frame in reader]

    assert captions(info.path) == [b"\xfc" + text for text in texts]
    assert captions(tmp_path / "out.mp4") == captions(info.path)
    assert _exact_times(probe(tmp_path / "out.mp4")) == _exact_times(info)


@pytest.mark.parametrize(("name", "decoded"), [("yuv422p10le", "yuv422p10le"), ("yuv444p10le", "yuv444p12le")])
def test_prores_keeps_depth_and_chroma(tmp_path: Path, name: str, decoded: str) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4", Clip(pixel_format=name)))
    _write(info, tmp_path / "out.mov", codec="prores")
    written = probe(tmp_path / "out.mov")
    assert (written.video.codec, written.video.pixel.name) == ("prores", decoded)  # 4444 is decoded to 12 bits
    with VideoReader(info) as before, VideoReader(written) as after:
        old, new = next(iter(before)).planes[0] / 1023, next(iter(after)).planes[0] / ((1 << written.video.pixel.bits) - 1)
        assert np.abs(old - new).mean() < 0.004


def _write_whole(
    info: MediaInfo, output: Path, *, speech: Speech | None = None, fail_at: int = -1, overwrite: bool = False
) -> None:
    """Writes a lossless video; fails as its caller at frame `fail_at`."""
    settings = WriteSettings(codec="ffv1", overwrite=overwrite)
    with VideoWriter(output, info, speech=speech, settings=settings) as writer, VideoReader(info) as reader:
        for frame in reader:
            if frame.index == fail_at:
                raise KeyboardInterrupt
            writer.write(frame)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_callers_error_keeps_older_video(tmp_path: Path) -> None:
    """An error of the caller leaves nothing and keeps the older video."""
    info = probe(make_clip(tmp_path / "clip.mp4"))
    (tmp_path / "out.mp4").write_bytes(b"an older video")
    with pytest.raises(KeyboardInterrupt):
        _write_whole(info, tmp_path / "out.mp4", fail_at=5, overwrite=True)
    assert _names(tmp_path) == ["clip.mp4", "out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"an older video"


def test_speech_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))

    def broken() -> Iterator[np.ndarray]:
        yield tone(16000, 1600)
        raise MediaUnsupportedError("speech.mp3 breaks after 0.100 s", field="audio")

    with pytest.raises(MediaUnsupportedError, match=r"speech\.mp3"):
        _write_whole(info, tmp_path / "out.mp4", speech=Speech(16000, 1, broken()))
    assert _names(tmp_path) == ["clip.mp4"]


def test_vanished_folder_is_output_error(tmp_path: Path) -> None:
    """A folder that vanishes is an error of the output."""
    info = probe(make_clip(tmp_path / "clip.mp4"))
    folder = tmp_path / "out"
    folder.mkdir()
    writer = VideoWriter(folder / "out.mp4", info)
    folder.rmdir()
    with pytest.raises(InvalidRequestError, match="cannot be written") as caught, writer:
        pass
    assert caught.value.field == "output"


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(InvalidRequestError, match="may not be written"):
        VideoWriter(tmp_path / "out.mp4", info)


def test_an_input_output_error_is_reported_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InvalidRequestError, match="Input/output error"):
        _write_whole(info, tmp_path / "out.mp4")
    assert _names(tmp_path) == ["clip.mp4"]


def test_two_jobs_do_not_write_one_video(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))
    with VideoWriter(tmp_path / "out.mp4", info) as first:
        with pytest.raises(InvalidRequestError, match="another job"):
            _write_whole(info, tmp_path / "out.mp4")
        with VideoReader(info) as reader:
            for frame in reader:
                first.write(frame)
    assert probe(tmp_path / "out.mp4").video.num_frames == 12
