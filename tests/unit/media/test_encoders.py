"""Tests of the encoders of each container, and of the errors for impossible choices."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.media.choices import QUALITIES
from gateway.media.encoders import (
    WriteSettings,
    check_graded,
    check_target,
    choose_encoder,
    container_format,
    crf_of,
    encoder_options,
)
from gateway.media.muxer import VideoMuxer
from gateway.media.pixels import ColourTags
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.types import FieldOrder, VideoInfo
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from tests.refusals import raised
from tests.unit.media.made_footage import Clip, copied, field_orders, make_clip, rewritten
from tests.written_pictures import write_pictures

BT709 = (1, 1, 1, 1)
FULL_RANGE = (1, 2, 1, 1)
BT2020_PQ = (9, 1, 9, 16)
PAL = (5, 1, 5, 6)


@pytest.mark.parametrize(("output", "codec"), [("a.mp4", None), ("a.MOV", "prores"), ("a.mxf", "mpeg2video"), ("a.nut", "ffv1")])
def test_targets_that_footage_can_go_to_pass(output: str, codec: str | None) -> None:
    check_target(Path(output), codec)


@pytest.mark.parametrize(
    ("output", "codec", "field", "words"),
    [
        ("a.gif", None, "output", r"a\.gif: .* \.mp4 \.m4v \.mov \.mkv \.nut \.mxf"),
        ("a", "h264", "output", r"\.mp4 \.m4v"),
        ("a.mp4", "divx", "codec", "divx; .* h264, hevc, ffv1, prores, mpeg2video, dnxhr, av1"),
        ("a.mp4", "dnxhr", "codec", r"\.mp4 does not hold dnxhr; .* another ending \(\.mov \.mxf\)"),
        ("a.mp4", "prores", "codec", r"\.mp4 does not hold prores; .* another ending \(\.mov \.mkv \.mxf\)"),
        ("a.mov", "ffv1", "codec", r"\.mov does not hold ffv1; .* another ending \(\.mp4 \.m4v \.mkv \.nut\)"),
    ],
)
def test_impossible_targets_refused_without_footage(output: str, codec: str | None, field: str, words: str) -> None:
    """Targets that no footage can go to are refused without any."""
    with raised(InvalidRequestError, match=words, field=field):
        check_target(Path(output), codec)


def test_the_muxer_is_that_of_the_ending() -> None:
    assert [container_format(Path(f"a{suffix}")) for suffix in (".m4v", ".mov", ".MKV")] == ["mp4", "mov", "matroska"]


def test_qualities() -> None:
    """Names and numbers are a crf, and the default is the quality of videos without the option."""
    assert crf_of("") is None
    assert crf_of("high") == WriteSettings().crf
    assert crf_of("visually-lossless") < crf_of("high") < crf_of("small")
    assert crf_of("0") == 0
    for wrong in ("best", "52", "-1", "1.5", "²"):
        with pytest.raises(InvalidRequestError, match="visually-lossless, high, small"):
            crf_of(wrong)


def test_codecs_with_one_quality() -> None:
    check_graded("hevc")
    with pytest.raises(InvalidRequestError, match="ffv1 has one quality"):
        check_graded("ffv1")


def test_better_qualities_are_nearer_and_larger(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", Clip(codec="ffv1"))
    info = probe(clip)
    sizes, errors = [], []
    for name, crf in QUALITIES.items():
        output = tmp_path / f"{name}.mp4"
        copied(info, output, codec="h264", crf=crf)
        sizes.append(output.stat().st_size)
        with VideoReader(info) as reader, VideoReader(probe(output)) as written:
            pairs = [(old.planes[0].astype(float), new.planes[0]) for old, new in zip(reader, written, strict=True)]
        errors.append(np.mean([np.square(old - new).mean() for old, new in pairs]))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_large_frames_have_their_own_parameters(tmp_path: Path) -> None:
    """H.264 of more than 2560 x 1600 pixels is encoded with a shorter look-ahead, whatever the processor."""
    found: dict[tuple[int, int], dict[str, str]] = {}
    footage = probe(make_clip(tmp_path / "clip.mp4", Clip())).video
    for size in ((1920, 1080), (2560, 1600), (3840, 2160)):
        width, height = size
        video = replace(footage, orientation=replace(footage.orientation, width=width, height=height))
        found[size] = choose_encoder(tmp_path / "out.mp4", video, "h264", 16).options
    assert found[1920, 1080] == found[2560, 1600] == encoder_options("h264", "yuv420p", 16)
    large = found[3840, 2160]
    assert (large["preset"], large["crf"]) == ("superfast", "16")
    assert large["x264-params"].removesuffix(":asm=avx2") == "mbtree=1:rc-lookahead=5"


def _with_alpha(path: Path, codec: str, pixel_format: str) -> Path:
    """A video of slopes in all its planes, alpha too."""
    pictures = [av.VideoFrame(96, 80, pixel_format) for _ in range(4)]
    for index, picture in enumerate(pictures):
        for number, plane in enumerate(picture.planes):
            row = np.linspace(300 + 20 * number, 700 - 10 * index, plane.line_size // 2).astype("<u2")
            np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)[:] = row
    return write_pictures(path, pictures, codec, pixel_format=pixel_format)


@pytest.mark.parametrize("suffix", [".mov", ".mxf"])
def test_prores_4444_alpha_round_trip(tmp_path: Path, suffix: str) -> None:
    """Read as 12 bits, written as 10, as ProRes encoders take it: colours within 1 %, alpha within .1 % of full scale."""
    source = _with_alpha(tmp_path / "clip.mov", "prores_ks", "yuva444p10le")
    output = tmp_path / f"out{suffix}"
    choice = rewritten(source, output)
    before, after = probe(source), probe(output)
    assert (choice.codec, choice.pixel_format) == ("prores", "yuva444p10le")
    assert before.video.pixel.name == after.video.pixel.name == "yuva444p12le"
    with VideoReader(before) as old, VideoReader(after) as new:
        for a, b in zip(old, new, strict=True):
            errors = [int(np.abs(x.astype(int) - y).max()) for x, y in zip(a.planes, b.planes, strict=True)]
            assert max(errors[:3]) <= 41
            assert errors[3] <= 4


def test_prores_4444_lossless_12_bit(tmp_path: Path) -> None:
    """ProRes 4444 goes elsewhere without loss where a codec keeps 12 bits."""
    video = probe(_with_alpha(tmp_path / "clip.mov", "prores_ks", "yuv444p10le")).video
    choices = {suffix: choose_encoder(Path(f"a{suffix}"), video, None, 16) for suffix in (".mov", ".mp4", ".nut")}
    assert {suffix: (choice.codec, choice.pixel_format) for suffix, choice in choices.items()} == {
        ".mov": ("hevc", "yuv444p12le"),
        ".mp4": ("hevc", "yuv444p12le"),
        ".nut": ("ffv1", "yuv444p12le"),
    }


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("pixel_format", "expected"),
    [("yuv420p10le", "hevc"), ("yuv420p", "h264"), ("yuv422p10le", "h264")],
)
def test_deep_colour_plays_on_phones(tmp_path: Path, suffix: str, pixel_format: str, expected: str) -> None:
    """Pictures in 4:2:0 of 10 bits become HEVC Main 10, because phones refuse H.264 High 10."""
    video = probe(make_clip(tmp_path / "clip.mkv", Clip(pixel_format=pixel_format))).video
    assert choose_encoder(Path(f"a{suffix}"), video, None, 16).codec == expected


@pytest.mark.parametrize(("pixel_format", "expected"), [("yuv420p10le", "av1"), ("yuv420p", "h264")])
def test_deep_av1_stays_av1(tmp_path: Path, pixel_format: str, expected: str) -> None:
    clip = make_clip(tmp_path / "clip.mkv", Clip(pixel_format=pixel_format, size=(128, 96)))
    info = probe(clip)
    rewritten(clip, tmp_path / "clip.mp4", "av1")
    footage = probe(tmp_path / "clip.mp4")
    assert (footage.video.codec, footage.video.pixel.name) == ("av1", pixel_format)
    assert choose_encoder(Path("a.mp4"), footage.video, None, 16).codec == expected
    assert footage.video.pts.tolist() == info.video.pts.tolist()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may have a real-time priority")
def test_no_thread_of_an_av1_encoder_has_a_real_time_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SVT-AV1 gives itself and its caller the highest priority. Other programs would wait, also those that are started later."""
    policies = set[int]()
    encode = VideoMuxer.encode

    def seen(muxer: VideoMuxer, picture: av.VideoFrame) -> None:
        encode(muxer, picture)
        time.sleep(0.01)  # for threads that change their priority when they begin
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                policies.add(os.sched_getscheduler(int(thread)))

    monkeypatch.setattr(VideoMuxer, "encode", seen)
    rewritten(make_clip(tmp_path / "clip.mkv", Clip(size=(128, 96))), tmp_path / "a.mp4", "av1")
    assert policies == {os.SCHED_OTHER}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_av1_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", Clip(size=(128, 96)))
    written = []
    for name in ("one.mp4", "two.mp4"):
        rewritten(clip, tmp_path / name, "av1")
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("pixel_format", "suffix"), [("yuv422p10le", ".mov"), ("yuv422p10le", ".mxf"), ("yuv422p", ".mov"), ("yuv444p10le", ".mov")]
)
def test_dnxhr_stays_dnxhr(tmp_path: Path, pixel_format: str, suffix: str) -> None:
    """DNxHR goes from hand to hand with its depth and chroma; samples change by at most 3 % of full scale."""
    first = make_clip(tmp_path / "clip.mkv", Clip(pixel_format=pixel_format, size=(256, 144), colour=BT709))
    rewritten(first, tmp_path / "clip.mov", "dnxhr")
    choice = rewritten(tmp_path / "clip.mov", tmp_path / f"out{suffix}")
    before, after = probe(tmp_path / "clip.mov"), probe(tmp_path / f"out{suffix}")
    assert (choice.codec, after.video.pixel.name) == ("dnxhr", pixel_format)
    top = (1 << before.video.pixel.bits) - 1
    with VideoReader(before) as old, VideoReader(after) as new:
        for a, b in zip(old, new, strict=True):
            assert max(int(np.abs(x.astype(int) - y).max()) for x, y in zip(a.planes, b.planes, strict=True)) <= 0.03 * top


@pytest.mark.parametrize(("suffix", "expected"), [(".mxf", "prores"), (".mov", "h264"), (".mkv", "h264")])
def test_jpeg_2000_is_read(tmp_path: Path, suffix: str, expected: str) -> None:
    """Masters come as JPEG 2000 in MXF, as the pictures of IMF packages do. No container gets JPEG 2000 back."""
    source = probe(make_clip(tmp_path / "master.mxf", Clip(pixel_format="yuv422p10le", codec="jpeg2000")))
    assert (source.video.codec, source.video.pixel.name) == ("jpeg2000", "yuv422p10le")
    with VideoReader(source) as frames:
        assert sum(1 for _ in frames) == source.video.num_frames
    choice = choose_encoder(tmp_path / f"dub{suffix}", source.video, None, 16)
    assert (choice.codec, choice.pixel_format) == (expected, "yuv422p10le")


def test_small_dnxhr_refused_with_the_codecs_that_do(tmp_path: Path) -> None:
    video = probe(make_clip(tmp_path / "clip.mkv", Clip(pixel_format="yuv422p", colour=BT709))).video
    with pytest.raises(MediaUnsupportedError, match=r"dnxhr .* 96 x 80 .* yuv422p; .*: h264"):
        choose_encoder(tmp_path / "a.mov", video, "dnxhr", 16)


def _png_video(path: Path, pixel_format: str) -> VideoInfo:
    pictures = [av.VideoFrame(64, 48, pixel_format) for _ in range(3)]
    for index, picture in enumerate(pictures):
        np.frombuffer(picture.planes[0], np.uint8)[:] = 40 * index
    return probe(write_pictures(path, pictures, "png", pixel_format=pixel_format)).video


def test_missing_pixel_format_lists_codecs(tmp_path: Path) -> None:
    """A pixel format that a codec lacks is named with the codecs that keep it."""
    video = _png_video(tmp_path / "clip.mov", "rgb24")
    with pytest.raises(MediaUnsupportedError, match=r"h264 does not keep .* gbrp; these do: hevc in \.mp4 \.m4v \.mov \.mkv \.nut"):
        choose_encoder(tmp_path / "a.mp4", video, "h264", 16)


def test_unsupported_pixel_format_suggests_conversion(tmp_path: Path) -> None:
    """A pixel format that no codec keeps comes with a conversion that helps."""
    video = _png_video(tmp_path / "clip.mov", "rgba")
    words = r"no codec of \.mov keeps .* gbrap \(with transparency\), and no other does; .*-c:v ffv1 -pix_fmt gbrap10le .* OUT\.mkv"
    with pytest.raises(MediaUnsupportedError, match=words):
        choose_encoder(tmp_path / "a.mov", video, None, 16)
    converted = make_clip(tmp_path / "converted.mkv", Clip(codec="ffv1", pixel_format="gbrap10le"))
    assert rewritten(converted, tmp_path / "out.mkv").pixel_format == "gbrap10le"


@pytest.mark.parametrize(("size", "crop"), [((64, 48), ""), ((63, 49), " -vf crop=62:48:0:0")])
def test_gif_suggests_conversion(tmp_path: Path, size: tuple[int, int], crop: str) -> None:
    """A GIF is named, and the error has the command that makes a video of it."""
    pictures = [np.full((size[1], size[0], 3), 60 * index, np.uint8) for index in range(3)]
    frames = [av.VideoFrame.from_ndarray(picture).reformat(format="rgb8") for picture in pictures]
    path = write_pictures(tmp_path / "clip.gif", frames, "gif", pixel_format="rgb8")
    with pytest.raises(MediaUnsupportedError, match="a GIF") as caught:
        choose_encoder(tmp_path / "a.mp4", probe(path).video, None, 16)
    assert f"(ffmpeg -i IN{crop} -c:v libx264 -crf 12 -pix_fmt yuv420p -c:a copy OUT.mkv)" in caught.value.message


def test_unsupported_transparency_may_be_dropped(tmp_path: Path) -> None:
    """Transparency that a container does not hold may be left out."""
    video = probe(_with_alpha(tmp_path / "clip.mov", "prores_ks", "yuva444p10le")).video
    with pytest.raises(MediaUnsupportedError, match=r"with transparency.*without its transparency"):
        choose_encoder(tmp_path / "a.mp4", video, "h264", 16)


def test_decoder_drops_no_transparency_silently(tmp_path: Path) -> None:
    """Transparency that the decoder leaves out is never lost in silence."""
    video = probe(make_clip(tmp_path / "clip.mkv", Clip(codec="libvpx-vp9"))).video
    choose_encoder(tmp_path / "a.mp4", video, None, 16)
    clear = replace(video, metadata={**video.metadata, "alpha_mode": "1"})
    with pytest.raises(MediaUnsupportedError, match=r"vp9 .*ffmpeg -c:v libvpx-vp9 -i IN -c:v ffv1 -pix_fmt yuva420p"):
        choose_encoder(tmp_path / "a.mp4", clear, None, 16)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("yuv420p", (99, 79), {".mp4": "ffv1", ".mkv": "ffv1", ".nut": "ffv1", ".mxf": "mpeg2video"}),
        ("yuv422p", (98, 79), {".mp4": "h264", ".mov": "h264"}),
        ("yuv422p10le", (99, 80), {".mp4": "ffv1"}),
        ("yuv444p", (99, 79), {".mp4": "h264"}),
    ],
)
def test_odd_size_finds_codec(tmp_path: Path, name: str, size: tuple[int, int], expected: dict[str, str]) -> None:
    """Footage of an odd size goes to a codec that holds the size."""
    source = make_clip(tmp_path / "clip.mkv", Clip(pixel_format=name, size=size))
    for suffix, codec in expected.items():
        choice = rewritten(source, tmp_path / f"out{suffix}")
        written = probe(tmp_path / f"out{suffix}").video
        assert (choice.codec, written.width, written.height) == (codec, *size)


@pytest.mark.parametrize(
    ("output", "codec", "words"),
    [
        ("a.mp4", "h264", r"h264 .* 99 x 79 .* yuv420p; .*: ffv1 in \.mp4 \.m4v \.mkv \.nut"),
        ("a.mp4", "hevc", "hevc .* 99 x 79 .* yuv420p; .*: ffv1"),
        ("a.mov", None, r"no codec of \.mov .* 99 x 79 .* yuv420p; .*: ffv1"),
    ],
)
def test_odd_size_lists_codecs(tmp_path: Path, output: str, codec: str | None, words: str) -> None:
    """An odd size that a codec lacks is named with the codecs that keep it."""
    video = probe(make_clip(tmp_path / "clip.mkv", Clip(size=(99, 79)))).video
    with raised(MediaUnsupportedError, match=words, field="codec"):
        choose_encoder(tmp_path / output, video, codec, 16)


def test_h264_interlaced_chroma_size(tmp_path: Path) -> None:
    """H.264 takes interlaced footage only if each field has whole chroma samples."""
    video = probe(make_clip(tmp_path / "clip.mkv", Clip(size=(96, 82)))).video
    orders: tuple[FieldOrder, ...] = ("progressive", "top")
    choices = [choose_encoder(tmp_path / "a.mp4", replace(video, field_order=order), None, 16) for order in orders]
    assert [choice.codec for choice in choices] == ["h264", "ffv1"]


@pytest.mark.parametrize(
    ("clip", "output", "codec", "words"),
    [
        (Clip(rotation=90, codec="libx264"), "a.mxf", None, r"mpeg2video in \.mxf .* 90 degrees"),
        (Clip(rotation=180, codec="libx264"), "a.nut", "h264", r"h264 in \.nut .* 180 degrees"),
        (Clip(sample_aspect=Fraction(64, 45), codec="libx264"), "a.mkv", "ffv1", r"ffv1 in \.mkv .* pixel aspect 64:45"),
        (Clip(sample_aspect=Fraction(16, 15), codec="libx264"), "a.mxf", "mpeg2video", "pixel aspect 16:15"),
        (Clip(colour=FULL_RANGE), "a.mxf", "mpeg2video", "mpeg2video .* full range"),
        (Clip(pixel_format="yuv422p10le", colour=FULL_RANGE), "a.mov", "prores", "prores .* full range"),
        (Clip(pixel_format="yuv422p10le", size=(256, 144), colour=BT2020_PQ), "a.mov", "dnxhr", r"dnxhr .* BT\.709"),
        (Clip(codec="libx264", fields="tff"), "a.mp4", "hevc", r"hevc in \.mp4 .* interlaced"),
        (Clip(colour=BT709), "a.nut", None, r"ffv1 in \.nut .* colour tags"),
    ],
)
def test_what_no_player_would_know_is_refused(tmp_path: Path, clip: Clip, output: str, codec: str | None, words: str) -> None:
    """A video that players would show turned, stretched or in other colours is refused, with what would do."""
    video = probe(make_clip(tmp_path / ("clip.mp4" if clip.codec == "libx264" else "clip.mkv"), clip)).video
    with pytest.raises(MediaUnsupportedError, match=f"{words}; these can: h264 in .mp4"):
        choose_encoder(Path(output), video, codec, 16)


@pytest.mark.parametrize(
    ("clip", "suffix", "expected"),
    [
        (Clip(colour=FULL_RANGE), ".mxf", "h264"),
        (Clip(pixel_format="yuv422p10le", colour=FULL_RANGE), ".mxf", "h264"),
        (Clip(sample_aspect=Fraction(16, 15), codec="libx264"), ".mxf", "h264"),
        (Clip(sample_aspect=Fraction(64, 45), size=(720, 576), codec="libx264"), ".mxf", "mpeg2video"),
        (Clip(pixel_format="yuva444p10le", codec="prores_ks", sample_aspect=Fraction(4, 3)), ".mp4", "ffv1"),
    ],
)
def test_a_codec_that_keeps_the_look_is_chosen(tmp_path: Path, clip: Clip, suffix: str, expected: str) -> None:
    path = make_clip(tmp_path / ("clip.mkv" if clip.codec == "ffv1" else "clip.mov"), clip)
    video = probe(path).video
    assert rewritten(path, tmp_path / f"out{suffix}").codec == expected
    after = probe(tmp_path / f"out{suffix}").video
    assert after.orientation.sample_aspect == video.orientation.sample_aspect
    assert after.colour_model.full_range == video.colour_model.full_range


@pytest.mark.parametrize("fields", ["tff", "bff"])
@pytest.mark.parametrize(
    ("pixel_format", "source", "output", "codec"),
    [
        ("yuv420p", "libx264", "out.mp4", "h264"),
        ("yuv420p", "libx264", "out.mkv", "ffv1"),
        ("yuv422p10le", "prores_ks", "out.mov", "prores"),
        ("yuv422p10le", "prores_ks", "out.mxf", "prores"),
        ("yuv422p", "mpeg2video", "out.mxf", "mpeg2video"),
    ],
)
def test_interlaced_footage_keeps_its_fields(
    tmp_path: Path, fields: str, pixel_format: str, source: str, output: str, codec: str
) -> None:
    """Every frame says that it is interlaced, and which field is first: copied frames, and those with new planes."""
    suffix = {"libx264": ".mp4", "prores_ks": ".mov", "mpeg2video": ".mxf"}[source]
    pts, tick = (tuple(range(12)), Fraction(1, 25)) if suffix == ".mxf" else (Clip.pts, Clip.time_base)
    last = 1 if suffix == ".mxf" else 512
    clip = Clip(
        pixel_format=pixel_format, codec=source, size=(256, 128), fields=fields, pts=pts, time_base=tick, last_duration=last
    )
    path = make_clip(tmp_path / f"clip{suffix}", clip)
    assert field_orders(path) == {fields}
    assert rewritten(path, tmp_path / output, codec if codec == "ffv1" else None).codec == codec
    assert field_orders(tmp_path / output) == {fields}
    before, after = probe(path).video, probe(tmp_path / output).video
    assert (before.field_order, after.field_order) == ({"tff": "top", "bff": "bottom"}[fields],) * 2
    assert [(int(pts) - int(after.pts[0])) * after.time_base for pts in after.pts] == [
        (int(pts) - int(before.pts[0])) * before.time_base for pts in before.pts
    ]


@pytest.mark.parametrize(("colour", "written"), [(PAL, (6, 1, 5, 1)), (BT709, BT709), (BT2020_PQ, BT2020_PQ)])
def test_prores_names_equal_curves(tmp_path: Path, colour: tuple[int, int, int, int], written: tuple[int, int, int, int]) -> None:
    """ProRes has one name for equal matrices and curves. A number that ProRes does not have would be read as RGB."""
    clip = make_clip(tmp_path / "clip.mkv", Clip(pixel_format="yuv422p10le", colour=colour))
    rewritten(clip, tmp_path / "out.mov", "prores")
    assert probe(tmp_path / "out.mov").video.colour == ColourTags(*written)
