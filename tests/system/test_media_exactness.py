"""Real footage through decoder, compositing and encoder: every frame at its time, every sample outside the mask as it was."""

import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gateway.compositing.planes import composite
from gateway.media.encoders import EncoderChoice, WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import DecodedFrame, MediaInfo, Plane
from gateway.media.writer import VideoWriter
from services.common.array_types import Bool
from tests.plane_masks import plane_masks
from tests.system.dubbing import first_seconds

FRAMES_COMPARED = 24

WRITE = """
import re, resource, signal, sys, time
from pathlib import Path
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.encoders import EncoderChoice, WriteSettings
from gateway.media.writer import VideoWriter
from services.common.errors import StorageFullError
source, output, limit, hang_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
info = probe(source)
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with VideoWriter(output, info, settings=WriteSettings(codec="ffv1", overwrite=True)) as writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame, [plane.copy() for plane in frame.planes] if frame.index % 2 else None)
            if frame.index == hang_at:
                print("half", flush=True)
                time.sleep(600)
except StorageFullError as problem:
    print("StorageFullError", problem)
# Not ru_maxrss, which begins at the size of the process that forked.
print("peak", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
LOSSLESS = [
    pytest.param("video/vr_face5.mp4", "yuv420p", marks=pytest.mark.long),  # as vr_face1, at a constant rate
    ("derived/d01_rotation_metadata_portrait.mp4", "yuv420p"),
    ("derived/d02_hevc10bit_23976.mp4", "yuv420p10le"),
    ("derived/d03_prores422lt_2997.mov", "yuv422p10le"),
    ("derived/d04_mpeg2_422_720p25.mxf", "yuv422p"),
    ("video/vr_face1.mp4", "yuv420p"),
]
DEFAULTS = [
    ("derived/d02_hevc10bit_23976.mp4", ".mp4", "hevc", "yuv420p10le"),
    ("derived/d03_prores422lt_2997.mov", ".mov", "prores", "yuv422p10le"),
    ("derived/d04_mpeg2_422_720p25.mxf", ".mxf", "mpeg2video", "yuv422p"),
    ("video/vr_face1.mp4", ".mp4", "h264", "yuv420p"),
    ("video/fr_short_hamilton_clip.mp4", ".mp4", "h264", "yuv420p"),
]


def _part(clips: Any, folder: Path, name: str) -> Path:
    """The beginning of a clip as it is coded: more frames than are compared."""
    source = clips.path(name)
    return first_seconds(source, folder / source.name, 1.4)


def _times(info: MediaInfo) -> list[Fraction]:
    return [int(pts) * info.video.time_base for pts in info.video.pts - info.video.pts[0]]


def _dubbed(frame: DecodedFrame) -> tuple[tuple[Plane, ...], list[Bool]]:
    """A frame with a moving, tilted disc of noise in the middle of the upright picture, a third of its height wide, and the samples
    of each plane that the disc may change.
    """
    video = frame.video
    width, height = video.orientation.upright_size
    scale, angle = height / 480, 0.02 * frame.index
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.array([width / 2 + 3 * np.sin(frame.index), height / 2]) - linear @ [79.5, 79.5]
    turned = video.orientation.coded_from_upright
    coded_from_box = np.column_stack([turned[:, :2] @ linear, turned[:, :2] @ offset + turned[:, 2]])
    rows, columns = np.mgrid[:160, :160]
    mask = np.clip((70 - np.hypot(columns - 79.5, rows - 79.5)) / 12, 0, 1).astype(np.float32)
    box = np.random.default_rng(frame.index).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    result = composite(frame.planes, video.pixel, video.colour_model, coded_from_box, box, mask)
    return result.planes, plane_masks(video.pixel, (video.height, video.width), coded_from_box, mask)


def _dub(info: MediaInfo, output: Path, **settings: Any) -> EncoderChoice:
    """Write a video of which three in four of the first FRAMES_COMPARED frames are composited. All others are copied."""
    speech = SoundReader(info.path, origin=info.video.start).speech() if info.audio else None
    with VideoWriter(output, info, speech=speech, settings=WriteSettings(**settings)) as writer, VideoReader(info) as reader:
        for frame in reader:
            changed = frame.index < FRAMES_COMPARED and frame.index % 4 != 0
            writer.write(frame, _dubbed(frame)[0] if changed else None)
    return writer.choice


@pytest.mark.parametrize(("name", "pixel_format"), LOSSLESS)
def test_samples_outside_mask_bit_equal(clips: Any, tmp_path: Path, name: str, pixel_format: str) -> None:
    """Samples outside the mask are bit equal and times exact."""
    info = probe(_part(clips, tmp_path, name))
    assert info.video.num_frames > FRAMES_COMPARED
    choice = _dub(info, tmp_path / "out.mp4", codec="ffv1")
    written = probe(tmp_path / "out.mp4")
    assert choice.pixel_format == written.video.pixel.name == pixel_format
    assert _times(written) == _times(info)
    assert written.video.orientation == info.video.orientation
    with VideoReader(info) as before, VideoReader(written) as after:
        for old, new in zip(before.frames(0, FRAMES_COMPARED), after.frames(0, FRAMES_COMPARED), strict=True):
            expected = _dubbed(old) if old.index % 4 else None
            for number, (a, b) in enumerate(zip(old.planes, new.planes, strict=True)):
                mask = expected[1][number] if expected else np.zeros(a.shape, np.bool_)
                np.testing.assert_array_equal(a[~mask], b[~mask])
                if expected:
                    np.testing.assert_array_equal(expected[0][number], b)
                    assert (a != b)[mask].mean() > 0.5


@pytest.mark.parametrize(("name", "suffix", "codec", "pixel_format"), DEFAULTS)
def test_default_codec_times_and_depth(clips: Any, tmp_path: Path, name: str, suffix: str, codec: str, pixel_format: str) -> None:
    """The default codec keeps times depth and a good picture."""
    info = probe(_part(clips, tmp_path, name))
    choice = _dub(info, tmp_path / f"out{suffix}", marking="Synthetic.")
    written = probe(tmp_path / f"out{suffix}")
    assert (choice.codec, written.video.pixel.name) == (codec, pixel_format)
    assert _times(written) == _times(info)
    assert written.video.duration == info.video.duration
    top = (1 << info.video.pixel.bits) - 1
    with VideoReader(info) as before, VideoReader(written) as after:
        for old, new in zip(before.frames(0, 9), after.frames(0, 9), strict=True):
            if old.index % 4 == 0:
                error = np.mean((old.planes[0].astype(float) - new.planes[0]) ** 2) / top**2
                assert -10 * np.log10(max(error, 1e-12)) > 40


def test_sound_starts_with_picture(clips: Any, tmp_path: Path) -> None:
    """This clip's picture starts at .852 s and its sound at .008 s; the copy must be heard at the same frames."""
    info = probe(clips.path("video/fr_short_hamilton_clip.mp4"))
    _dub(info, tmp_path / "out.mp4", codec="ffv1")  # lossless sound
    written = probe(tmp_path / "out.mp4")
    readers = (SoundReader(item.path, origin=item.video.start) for item in (info, written))
    own, copy = (np.concatenate([chunk.samples for chunk in reader]) for reader in readers)
    length = min(len(own), len(copy))
    assert length / 44100 > 8.3
    np.testing.assert_allclose(copy[:length], np.clip(own[:length], -1, 1), atol=1e-4)


def test_the_upright_picture_of_turned_footage_is_portrait(clips: Any) -> None:
    info = probe(clips.path("derived/d01_rotation_metadata_portrait.mp4"))
    with VideoReader(info) as reader:
        assert to_rgb(next(iter(reader))).shape == (960, 540, 3)


@pytest.mark.long
def test_every_encoding_read_completely(clips: Any) -> None:
    """The shortest of all clips with the same container, codec, pixel format, rate and tick is read."""
    shortest: dict[tuple[object, ...], MediaInfo] = {}
    for row in [*clips.rows(under="video"), *clips.rows(under="derived")]:
        info = probe(row.path)
        video = info.video
        key = (row.path.suffix, video.codec, video.pixel.name, video.average_rate, video.time_base)
        shortest[key] = min(shortest.get(key, info), info, key=lambda one: one.video.num_frames)
    assert len(shortest) > 8
    for info in shortest.values():
        with VideoReader(info) as reader:
            assert sum(1 for _ in reader) == info.video.num_frames, info.path


def _run(source: Path, output: Path, limit: int = 0, hang_at: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, str(source), str(output), str(limit), str(hang_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("limit", [1000, 500_000])
def test_video_size_limit_storage_full(carphone: Path, tmp_path: Path, limit: int) -> None:
    with _run(carphone, tmp_path / "out.mp4", limit=limit) as job:
        assert job.communicate(timeout=300)[0].startswith("StorageFullError no space left")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_job_left_is_taken_over(carphone: Path, tmp_path: Path) -> None:
    with _run(carphone, tmp_path / "out.mp4", hang_at=60) as job:
        assert job.stdout.readline() == "half\n"
        job.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out.mp4").exists()
    with _run(carphone, tmp_path / "out.mp4") as job:
        assert job.communicate(timeout=300)[0].startswith("peak")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert probe(tmp_path / "out.mp4").video.num_frames == 120


def _repeated(source: Path, output: Path, times: int) -> Path:
    """The same clip several times over, packets copied."""
    with av.open(str(source)) as first, av.open(str(output), "w") as long:
        stream = long.add_stream_from_template(first.streams.video[0], opaque=True)
        span = first.streams.video[0].duration
        for turn in range(times):
            first.seek(0)
            for packet in first.demux(video=0):
                if packet.size:
                    packet.pts, packet.dts, packet.stream = packet.pts + turn * span, packet.dts + turn * span, stream
                    long.mux(packet)
    return output


def test_memory_independent_of_video_length(carphone: Path, tmp_path: Path) -> None:
    def peak_kib(times: int) -> int:
        with _run(_repeated(carphone, tmp_path / f"{times}.mp4", times), tmp_path / "out.mp4") as job:
            return int(job.communicate(timeout=300)[0].split()[-1])

    # The samples of the 1080 further frames are 40 000 KiB.
    assert peak_kib(12) < peak_kib(3) + 10_000
