from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.sidedata.sidedata import Type
from av.stream import Disposition

from gateway.media.inspection import inspect_video
from gateway.media.muxer import can_be_copied
from gateway.media.probe import hdr_metadata, probe
from gateway.media.reader import VideoReader
from gateway.media.sound import SoundReader
from gateway.media.types import HdrMetadata
from services.common.errors import MediaUnsupportedError
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip, make_sound, tone, with_edits, with_unknown_sound
from tests.written_pictures import write_pictures

EDITS = {
    "tail": ([(1.6, 0.0)], [*range(40)]),
    "head": ([(1.6, 0.8)], [*range(20, 60)]),
    "middle": ([(0.8, 0.0), (0.8, 1.6)], [*range(20), *range(40, 60)]),
    "repeated": ([(0.8, 0.4), (0.8, 0.4)], [*range(10, 30)] * 2),
    "swapped": ([(0.8, 1.6), (0.8, 0.0)], [*range(40, 60), *range(20)]),
    "beginning later": ([(0.4, None), (1.6, 0.8)], [*range(20, 60)]),
}
"""Edit lists of 60 frames, and the frames that players show."""
PRIMARIES = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)
DISPLAY = [*(number for value in PRIMARIES for number in (value, 50_000)), 50, 10_000, 1000, 1, 1, 1]
"""FFmpeg's AVMasteringDisplayMetadata: ten fractions, and whether primaries and luminance are stated."""


@pytest.mark.parametrize(
    ("name", "bits", "kind", "step"),
    [
        ("yuv420p", 8, "yuv", (2, 2)),
        ("yuv422p", 8, "yuv", (2, 1)),
        ("yuv444p", 8, "yuv", (1, 1)),
        ("yuv420p10le", 10, "yuv", (2, 2)),
        ("yuv422p10le", 10, "yuv", (2, 1)),
        ("gray", 8, "grey", (1, 1)),
        ("gbrp10le", 10, "rgb", (1, 1)),
    ],
)
def test_the_pixel_format_is_described(tmp_path: Path, name: str, bits: int, kind: str, step: tuple[int, int]) -> None:
    pixel = probe(make_clip(tmp_path / "clip.mkv", Clip(pixel_format=name))).video.pixel
    assert (pixel.name, pixel.bits, pixel.kind, pixel.chroma_step) == (name, bits, kind, step)


def test_packed_formats_by_planes(tmp_path: Path) -> None:
    """Packed formats are described by the planes that hold them."""
    picture = av.VideoFrame.from_ndarray(np.zeros((16, 32, 3), np.uint8), "bgr24")
    video = probe(write_pictures(tmp_path / "packed.nut", [picture], "rawvideo", pixel_format="bgr24")).video
    assert (video.stored_format, video.pixel.name) == ("bgr24", "gbrp")


def test_frame_times_before_decoding(tmp_path: Path) -> None:
    """Every frame time is known before a frame is decoded."""
    clip = Clip(pts=VARIABLE_PTS, time_base=Fraction(1, 15360), last_duration=700, codec="libx264")
    video = probe(make_clip(tmp_path / "clip.mp4", clip)).video
    assert video.pts.tolist() == list(VARIABLE_PTS)
    assert (video.time_base, video.num_frames, video.last_duration) == (Fraction(1, 15360), 12, 700)
    assert video.start == Fraction(507, 15360)
    assert video.duration == Fraction(VARIABLE_PTS[-1] + 700 - 507, 15360)
    assert video.constant_rate is None


def test_dropped_frame_is_no_rounding(tmp_path: Path) -> None:
    """Where a tick is as long as a frame, a frame of two ticks makes the rate variable."""
    clip = Clip(pts=(*range(10), *range(11, 20)), time_base=Fraction(1, 25), last_duration=1)
    video = probe(make_clip(tmp_path / "clip.avi", clip)).video
    assert (video.time_base, video.num_frames) == (Fraction(1, 25), 19)
    assert video.constant_rate is None


def test_span_has_seconds_from_frame(tmp_path: Path) -> None:
    """A span has the frames that begin in its seconds, and knows the frames before; a shorter video stays whole."""
    clip = Clip(pts=tuple(range(0, 40040, 1001)), time_base=1 / Fraction(24000), rate=Fraction(24000, 1001), last_duration=1001)
    video = probe(make_clip(tmp_path / "clip.mkv", clip)).video
    head, later, end = video.span(0, 1), video.span(10, 1), video.span(30, 1)
    assert (head.num_frames, head.duration, head.begin) == (24, video.pts[24] * video.time_base, 0)
    assert video.span(0, 2) is video
    assert later.pts.tolist() == video.pts[10:34].tolist()
    assert (later.begin, later.end) == (video.pts[10] * video.time_base, video.pts[34] * video.time_base)
    assert (end.num_frames, end.end) == (10, video.duration)


def test_constant_rate_is_exact(tmp_path: Path) -> None:
    """A constant rate is exact even where the container rounds."""
    rate = Fraction(24000, 1001)
    clip = Clip(pts=tuple(range(0, 40040, 1001)), time_base=1 / Fraction(24000), rate=rate, last_duration=1001)
    for name in ("clip.mp4", "clip.mkv"):
        assert probe(make_clip(tmp_path / name, clip)).video.constant_rate == rate


def test_rotation_aspect_and_colour_tags_are_read(tmp_path: Path) -> None:
    clip = Clip(rotation=-90, sample_aspect=Fraction(16, 15), colour=(1, 2, 9, 16), codec="libx264")
    video = probe(make_clip(tmp_path / "clip.mp4", clip)).video
    assert video.orientation.quarter_turns == 3
    assert video.orientation.upright_size == (80, 96)
    assert video.orientation.sample_aspect == Fraction(16, 15)
    assert (video.colour.matrix, video.colour.color_range, video.colour.primaries, video.colour.transfer) == (1, 2, 9, 16)
    assert video.colour_model.full_range


def test_sound_and_other_streams_are_listed(tmp_path: Path) -> None:
    clip = Clip(sound_rate=44100, sound_tracks=2, subtitles=True, timecode="01:00:00:00", comment="take 3")
    info = probe(make_clip(tmp_path / "clip.mp4", clip))
    assert [(track.codec, track.sample_rate_hz, track.channels) for track in info.audio] == [("aac", 44100, 1)] * 2
    assert {stream.kind for stream in info.others} == {"subtitle", "data"}
    assert info.metadata["comment"] == "take 3"
    assert info.video.metadata["timecode"] == "01:00:00:00"


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_non_video_refused_with_remedy(tmp_path: Path) -> None:
    """A file that is not a video is refused by name with a remedy."""
    sound = make_sound(tmp_path / "sound.wav", tone(16000, 1600), 16000)
    refused = {
        tmp_path / "missing.mp4": "does not exist",
        tmp_path: "is a folder",
        _written(tmp_path / "empty.mp4", b""): "is empty",
        _written(tmp_path / "text.mp4", b"this is no video\n" * 50): "not a media file",
        _written(tmp_path / "noise.mp4", np.random.default_rng(0).bytes(5000)): "not a media file",
        sound: "no video stream",
    }
    for path, words in refused.items():
        with pytest.raises(MediaUnsupportedError, match=words) as caught:
            probe(path)
        assert str(path) in str(caught.value)
        assert caught.value.field == "video"


@pytest.mark.parametrize("address", ["s3://films/a.mp4", "https://example.org/a.mp4", "file:///films/a.mp4"])
def test_address_is_refused_as_such(address: str) -> None:
    with pytest.raises(MediaUnsupportedError, match="is an address, and a file was expected") as caught:
        probe(Path(address))
    assert address.replace(":///", "://") in str(caught.value)


def test_a_video_without_a_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        output.start_encoding()
    with pytest.raises(MediaUnsupportedError, match=r"not one frame|no video stream|not a media file"):
        probe(path)


def _moov_first(path: Path, clip: Clip) -> Path:
    """The clip remuxed with its index in front, as files for the web are."""
    made = make_clip(path.with_name("made.mp4"), clip)
    with av.open(str(made)) as source, av.open(str(path), "w", container_options={"movflags": "+faststart"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return path


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_truncated_video_shows_time(tmp_path: Path, codec: str) -> None:
    """A video cut short is refused with the time where it breaks."""
    whole = _moov_first(tmp_path / "whole.mp4", Clip(codec=codec, pts=tuple(range(0, 100 * 512, 512)))).read_bytes()
    cut = _written(tmp_path / "cut.mp4", whole[: len(whole) * 6 // 10])
    with pytest.raises(MediaUnsupportedError, match=r"breaks after [12]\.\d+ s"):
        probe(cut)
    with pytest.raises(MediaUnsupportedError, match="cut short"):
        probe(_written(tmp_path / "headless.mp4", make_clip(tmp_path / "made.mp4").read_bytes()[:-400]))


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_video_cut_before_first_frame_refused(tmp_path: Path, suffix: str) -> None:
    """The error says that the file is cut short, and blames no edit list."""
    whole = _moov_first(tmp_path / "whole.mp4", Clip(codec="libx264", pts=tuple(range(0, 60 * 512, 512))))
    content = (whole if suffix == ".mp4" else _as_avi(whole)).read_bytes()
    begin = content.index({".mp4": b"mdat", ".avi": b"movi"}[suffix]) + 4
    with pytest.raises(MediaUnsupportedError, match=r"cut short, 0 of \d+ frames"):
        probe(_written(tmp_path / f"cut{suffix}", content[:begin]))


@pytest.mark.parametrize(
    ("suffix", "clip", "words"),
    [
        (".mkv", Clip(pts=tuple(range(0, 100 * 512, 512)), sound_rate=48000), ""),
        (".mxf", Clip("yuv420p", "mpeg2video", (352, 288), tuple(range(50)), Fraction(1, 25), last_duration=1), "of 50 frames"),
    ],
)
def test_other_videos_cut_short_are_refused(tmp_path: Path, suffix: str, clip: Clip, words: str) -> None:
    whole = make_clip(tmp_path / f"whole{suffix}", clip).read_bytes()
    with pytest.raises(MediaUnsupportedError, match=rf"breaks after \d\.\d+ s.*{words}"):
        probe(_written(tmp_path / f"cut{suffix}", whole[: len(whole) * 6 // 10]))


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_edit_list_shows_its_frames(tmp_path: Path, edits: str, codec: str) -> None:
    """Footage that was trimmed on a phone or in QuickTime has the frames that players show, each at its time."""
    listed, shown = EDITS[edits]
    clip = Clip(codec=codec, pts=tuple(range(0, 60 * 512, 512)), sound_rate=44100)
    whole = make_clip(tmp_path / "whole.mp4", clip)
    edited = inspect_video(_written(tmp_path / "edited.mp4", with_edits(whole.read_bytes(), listed)))
    assert edited.video.num_frames == len(shown)
    assert set(np.diff(edited.video.pts).tolist()) == {512}
    assert edited.video.duration == Fraction(len(shown), 25)
    with VideoReader(probe(whole)) as reader:
        planes = [frame.planes[0].copy() for frame in reader]
    with VideoReader(edited) as reader:
        for frame, number in zip(reader, shown, strict=True):
            np.testing.assert_array_equal(frame.planes[0], planes[number])
        (sought,) = reader.frames_from(30, 31)
        np.testing.assert_array_equal(sought.planes[0], planes[shown[30]])


def _reordered_sweep(path: Path) -> bytes:
    """A video of 60 frames in groups of 24 with three B-frames in a row, and 2.4 s of a tone that rises all the time."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"bf": "3", "g": "24", "x264-params": "scenecut=0:b-adapt=0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream("aac", rate=44100, layout="mono")
        for index in range(60):
            output.mux(video.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 40 + 2 * index, np.uint8), "yuv420p")))
        output.mux(video.encode(None))
        seconds = np.arange(int(2.4 * 44100)) / 44100
        sweep = av.AudioFrame.from_ndarray(
            0.5 * np.sin(2 * np.pi * (200 + 400 * seconds) * seconds).astype(np.float32)[None], "fltp", "mono"
        )
        sweep.sample_rate = 44100
        output.mux(sound.encode(sweep))
        output.mux(sound.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(
    "parts",
    [
        [(0.28, 0.0), (0.32, 0.12)],
        [(0.24, 0.08), (0.36, 0.0), (0.2, 1.32)],
        [(0.44, 0.2), (0.48, 1.2)],
        [(0.0, 0.6)],
    ],
    ids=["back", "repeated", "inside groups", "no length"],
)
def test_cuts_inside_groups_are_exact(tmp_path: Path, parts: list[tuple[float, float]]) -> None:
    """Parts that begin and end among reordered frames show their frames at an even rate, and their sound to the sample. A part
    without a length goes to the end.
    """
    whole = _reordered_sweep(tmp_path / "whole.mp4")
    edited = inspect_video(_written(tmp_path / "edited.mp4", with_edits(whole, parts)))
    spans = [(round(25 * begin), round(25 * (begin + length)) if length else 60) for length, begin in parts]
    shown = [frame for first, stop in spans for frame in range(first, stop)]
    with VideoReader(edited) as reader:
        levels = [(int(frame.planes[0].mean()) - 40) / 2 for frame in reader]
        (sought,) = reader.frames_from(8, 9)
        (of_span,) = VideoReader(replace(edited, video=edited.video.span(8, 1))).frames(0, 1)
    np.testing.assert_allclose(levels, shown, atol=0.5)
    assert [(int(frame.planes[0].mean()) - 40) / 2 for frame in (sought, of_span)] == [levels[8]] * 2
    assert (edited.video.constant_rate, edited.video.duration) == (25, Fraction(len(shown), 25))
    before, after = (
        np.concatenate([chunk.samples[:, 0] for chunk in SoundReader(path, origin=probe(path).video.start)])
        for path in (tmp_path / "whole.mp4", edited.path)
    )
    expected = np.concatenate([before[first * 1764 : stop * 1764] for first, stop in spans])
    assert abs(len(after) - len(expected)) < 2048  # the encoder fills its last packets
    np.testing.assert_allclose(after[: len(expected)], expected[: len(after)], atol=0.02)
    assert not can_be_copied(edited.path, edited.audio[0].index, "mp4")


@pytest.mark.parametrize(
    ("edits", "speed", "words"),
    [
        ([(0.8, 0.0), (0.4, None), (0.8, 1.6)], 1.0, "the picture has a gap"),
        ([(0.8, 0.0), (0.4, None)], 1.0, "the picture has a gap"),
        ([(0.8, 0.0)], 2.0, "the picture has a part at 2 times the speed"),
        ([(0.8, 0.0)], 0.0, "the picture stands still"),
        ([(0.8, 9.0)], 1.0, "its edit list shows none of its 60 frames"),
    ],
)
def test_edit_list_without_match_refused(tmp_path: Path, edits: list[tuple[float, float | None]], speed: float, words: str) -> None:
    """Gaps and speeds of an edit list, which FFmpeg does not follow, are refused by name."""
    whole = make_clip(tmp_path / "whole.mp4", Clip(codec="libx264", pts=tuple(range(0, 60 * 512, 512)), sound_rate=44100))
    edited = _written(tmp_path / "edited.mp4", with_edits(whole.read_bytes(), edits, speed=speed))
    with pytest.raises(MediaUnsupportedError, match=words):
        probe(edited)


def _as_avi(mp4: Path) -> Path:
    """A video in H.264 with frames that are decoded in another order than they are shown in, copied from MP4 to AVI."""
    path = mp4.with_suffix(".avi")
    with av.open(str(mp4)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        assert source.streams.video[0].codec_context.has_b_frames
        with_start_codes = BitStreamFilterContext("h264_mp4toannexb", source.streams.video[0], stream)
        for packet in source.demux(video=0):
            for changed in with_start_codes.filter(packet if packet.size else None):
                output.mux(changed)
    return path


def test_reordered_frames_of_avi_read(tmp_path: Path) -> None:
    """H.264 in AVI has no times of frames that are decoded in another order than they are shown in. Frames come in order."""
    whole = make_clip(tmp_path / "whole.mp4", Clip(codec="libx264", pts=tuple(range(0, 60 * 512, 512))))
    info = probe(_as_avi(whole))
    with VideoReader(probe(whole)) as reader:
        planes = [frame.planes[0].copy() for frame in reader]
    with VideoReader(info) as reader:
        for frame, expected in zip(reader, planes, strict=True):
            np.testing.assert_array_equal(frame.planes[0], expected)
        (sought,) = reader.frames_from(50, 51)
        np.testing.assert_array_equal(sought.planes[0], planes[50])
    assert info.video.constant_rate == 25


@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 0), ("libx264", 2), ("mpeg4", 0), ("mpeg4", 2), ("mpeg2video", 2)])
def test_first_frame_of_avi_on_time(codec: str, b_frames: int, tmp_path: Path) -> None:
    """The first frame of an AVI file comes at 0, with and without B-frames: the sound would be a frame early otherwise."""
    with av.open(str(tmp_path / "clip.avi"), "w") as output:
        stream = output.add_stream(codec, rate=25, options={"bf": str(b_frames)})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(30):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 40 + index, np.uint8), "yuv420p")))
        output.mux(stream.encode(None))
    video = probe(tmp_path / "clip.avi").video
    assert (video.num_frames, int(video.pts[0]), video.constant_rate) == (30, 0, 25)


def _packed(path: Path) -> Path:
    """A video in MPEG-4 whose B-frames lie in the chunk of the frame before, as DivX and Xvid pack them for AVI."""
    coded: list[tuple[bytes, bool]] = []
    chunks: list[tuple[bytes, bool]] = []
    with av.open(str(path.with_name("made.avi")), "w") as made:
        stream = made.add_stream("mpeg4", rate=25, options={"bf": "1", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pictures = [av.VideoFrame.from_ndarray(np.full((72, 64), 40 + 4 * index, np.uint8), "yuv420p") for index in range(40)]
        for packet in [packet for picture in [*pictures, None] for packet in stream.encode(picture)]:
            coded.append((bytes(packet), packet.is_keyframe))
            made.mux(packet)
    for content, is_key in coded:
        if content[content.index(b"\0\0\1\xb6") + 4] >> 6 == 2:  # a B-frame
            chunks[-1] = (chunks[-1][0] + content, chunks[-1][1])
            chunks.append((b"\0\0\1\xb6\x7f", False))
        else:
            chunks.append((content, is_key))
    begin = chunks[0][0].index(b"\0\0\1\xb6")
    chunks[0] = (chunks[0][0][:begin] + b"\0\0\1\xb2DivX503b1393p" + chunks[0][0][begin:], True)
    with av.open(str(path.with_name("made.avi"))) as source, av.open(str(path), "w") as output:
        copied = output.add_stream_from_template(source.streams.video[0])
        for number, (content, is_key) in enumerate(chunks):
            packet = av.Packet(content)
            packet.pts = packet.dts = number
            packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, 25), is_key, copied
            output.mux(packet)
    return path


def test_packed_frames_of_avi_read(tmp_path: Path) -> None:
    """Two frames in one chunk of AVI, followed by a chunk that only says that nothing follows, are two frames."""
    info = probe(_packed(tmp_path / "clip.avi"))
    with VideoReader(info) as reader:
        levels = [(int(frame.planes[0].mean()) - 40) / 4 for frame in reader]
    np.testing.assert_allclose(levels, np.arange(40), atol=0.5)
    assert (int(info.video.pts[0]), info.video.constant_rate) == (0, 25)


def test_reordered_frames_of_mxf_read(tmp_path: Path) -> None:
    """MXF whose index says nothing of the order of frames, as of long groups in H.264, shows the frames in their order."""
    with av.open(str(tmp_path / "clip.mxf"), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"bf": "2", "x264-params": "scenecut=0:b-adapt=0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(30):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 40 + 4 * index, np.uint8), "yuv420p")))
        output.mux(stream.encode(None))
    info = inspect_video(tmp_path / "clip.mxf")
    with VideoReader(info) as reader:
        levels = [(int(frame.planes[0].mean()) - 40) / 4 for frame in reader]
        (sought,) = reader.frames_from(28, 29)
    np.testing.assert_allclose(levels, np.arange(30), atol=0.5)
    assert (int(sought.planes[0].mean()) - 40) / 4 == levels[28]
    assert (int(info.video.pts[0]), info.video.constant_rate) == (0, 25)


def test_damaged_frame_of_avi_named(tmp_path: Path) -> None:
    """A damaged frame of an AVI file whose frames are counted is not left out: the error says where it is."""
    path = _as_avi(make_clip(tmp_path / "whole.mp4", Clip(codec="libx264", pts=tuple(range(0, 60 * 512, 512)))))
    content = bytearray(path.read_bytes())
    chunk = [match.start() for match in re.finditer(rb"00dc(?!\0\0\0\0)", bytes(content))][40]
    size = struct.unpack_from("<I", content, chunk + 4)[0]
    content[chunk + 8 : chunk + 8 + size] = b"\xff" * size
    info = probe(_written(path, bytes(content)))
    with VideoReader(info) as reader, pytest.raises(MediaUnsupportedError, match=r"breaks after 1\.\d+ s"):
        list(reader)


def test_avi_beginning_inside_group_read(tmp_path: Path) -> None:
    """An AVI file without B-frames whose first key frame is missing begins with the first frame that can be shown."""
    options = {"bf": "0", "g": "24", "x264-params": "scenecut=0"}
    with av.open(str(tmp_path / "clip.avi"), "w") as output:
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(60):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 40 + index, np.uint8), "yuv420p")))
        output.mux(stream.encode(None))
    content = (tmp_path / "clip.avi").read_bytes()
    chunk = content.index(b"00dc", content.index(b"movi"))
    info = probe(_written(tmp_path / "cut.avi", content[:chunk] + b"JUNK" + content[chunk + 4 :]))
    with VideoReader(info) as reader:
        levels = [int(frame.planes[0].mean()) for frame in reader]
    assert info.video.num_frames == len(levels) == 36
    assert levels[0] == 64


def test_edited_video_cut_short_refused(tmp_path: Path) -> None:
    whole = _moov_first(tmp_path / "whole.mp4", Clip(codec="libx264", pts=tuple(range(0, 100 * 512, 512)))).read_bytes()
    # A free box takes the place of the edit list's further bytes, so that the samples stay in their places.
    place = whole.index(b"elst") - 4
    shown = struct.pack(">III", 1, 3 * 1000, struct.unpack_from(">I", whole, place + 20)[0])
    assert struct.unpack_from(">I", whole, place + 12)[0] == 1
    edited = whole[: place + 12] + shown + whole[place + 24 :]
    assert probe(_written(tmp_path / "edited.mp4", edited)).video.num_frames == 75
    with pytest.raises(MediaUnsupportedError, match=r"breaks after [012]\.\d+ s"):
        probe(_written(tmp_path / "cut.mp4", edited[: len(edited) * 4 // 10]))


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_unknown_sound_is_no_obstacle(tmp_path: Path, suffix: str) -> None:
    """A sound track in a codec that FFmpeg does not know, as the spatial audio of phones, is listed and not read."""
    made = make_clip(tmp_path / f"made{suffix}", Clip(codec="libx264", sound_rate=44100, sound_tracks=2)).read_bytes()
    info = inspect_video(_written(tmp_path / f"clip{suffix}", with_unknown_sound(made)))
    assert [track.index for track in info.audio] == [1]
    assert [(stream.index, stream.kind, stream.codec) for stream in info.others] == [(2, "audio", "")]
    assert sum(len(chunk.samples) for chunk in SoundReader(info.path)) > 0


def test_default_video_track_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream, level in zip(streams, (128, 30), strict=True):
            stream.width, stream.height, stream.pix_fmt = 32, 32, "gray"
            stream.disposition = Disposition.default if level == 30 else Disposition(0)
        for stream, level in zip(streams, (128, 30), strict=True):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32), level, np.uint8), "gray")))
            output.mux(stream.encode(None))
    info = probe(path)
    assert (info.video.index, [stream.kind for stream in info.others]) == (1, ["video"])
    with VideoReader(info) as reader:
        assert next(iter(reader)).planes[0].max() == 30


def test_containers_without_times_are_timed_by_decoding(tmp_path: Path) -> None:
    clip = Clip(codec="libx264", pts=tuple(range(12)), time_base=Fraction(1, 25), last_duration=1)
    video = probe(make_clip(tmp_path / "clip.avi", clip)).video
    assert video.num_frames == 12
    assert set(np.diff(video.pts).tolist()) == {1}


def test_colour_profile_read_repeatedly(astronaut: Path) -> None:
    """In a process of its own: the library once freed the profile's name twice, which ended the process."""
    code = "import gc\nfrom gateway.media.probe import probe\nfor _ in range(5):\n    probe(PATH)\n    gc.collect()\n"
    command = [sys.executable, "-c", code.replace("PATH", repr(str(astronaut)))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("display", "light", "expected"),
    [
        (DISPLAY, [1000, 400], HdrMetadata((*PRIMARIES, 50, 10_000_000), (1000, 400))),
        ([*DISPLAY[:-1], 0], [0, 0], HdrMetadata()),
        ([*DISPLAY[:1], 0, *DISPLAY[2:]], [70_000, 1], HdrMetadata()),
        ([-1, *DISPLAY[1:]], [5], HdrMetadata()),
        (DISPLAY[:20], [1, 0], HdrMetadata(light=(1, 0))),
        (None, None, HdrMetadata()),
    ],
)
def test_damaged_hdr_metadata_are_left_out(
    monkeypatch: pytest.MonkeyPatch, display: list[int] | None, light: list[int] | None, expected: HdrMetadata
) -> None:
    """Numbers that no display has, fractions without a denominator, and metadata that are stated in part count as not stated."""
    found = {
        Type.MASTERING_DISPLAY_METADATA: None if display is None else np.array(display, "<i4").tobytes(),
        Type.CONTENT_LIGHT_LEVEL: None if light is None else np.array(light, "<u4").tobytes(),
    }
    monkeypatch.setattr("gateway.media.probe.side_data", lambda _, kind: found[kind])
    assert hdr_metadata(av.VideoFrame(16, 16)) == expected
