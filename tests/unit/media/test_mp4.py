"""Tests of MP4 files: views without sound or without pictures, and padding for a manifest behind the first box."""

from __future__ import annotations

import errno
import io
import os
import struct
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.media import mp4
from gateway.media.mp4 import Gap, Only, PaddedFile, boxes_of, copy_with_padding, moved_index, padding_box, track_view
from gateway.media.opening import open_input
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from services.common.errors import MediaUnsupportedError
from tests.unit.media.made_footage import Clip, make_clip
from tests.unit.media.made_pictures import box

PADDING = 5000
VIDEO = Clip(codec="libx264", sound_rate=16000, sound_tracks=2, subtitles=True)


def packets(video: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(video)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux() if packet.size]


def with_padding(footage: Path, video: Path, padding: int) -> None:
    """Write the packets of some footage to a video with padding."""
    handle = os.open(video, os.O_RDWR | os.O_CREAT)
    target = PaddedFile(handle, padding)
    with av.open(str(footage)) as source, av.open(target, "w", format="mp4", container_options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    target.settle()
    os.close(handle)


def test_padding_keeps_packets(carphone: Path, tmp_path: Path) -> None:
    """A video with padding has the packets of the video without."""
    video = tmp_path / "video.mp4"
    with_padding(carphone, video, PADDING)
    with video.open("rb") as file:
        kinds = [(found.kind, found.end - found.start) for found in boxes_of(file)]
        padding = padding_box(file)
    assert kinds[0][0] == b"ftyp"
    assert kinds[1] == (b"free", PADDING)
    assert padding is not None
    assert [data for _, data in packets(video)] == [data for _, data in packets(carphone)]


@pytest.mark.parametrize("padding", [100, 70_000])
def test_a_video_is_copied_with_other_padding(padding: int, carphone: Path, tmp_path: Path) -> None:
    video, copy, plain = tmp_path / "video.mp4", tmp_path / "copy.mp4", tmp_path / "plain.mp4"
    with_padding(carphone, video, PADDING)
    with video.open("rb") as old, copy.open("w+b") as new:
        copy_with_padding(old, new, padding)
        found = padding_box(new)
    assert found is not None
    assert found.end - found.start == padding
    assert packets(copy) == packets(video)
    with_padding(carphone, plain, padding)
    assert copy.read_bytes() == plain.read_bytes()


def test_other_file_gets_no_padding(tmp_path: Path) -> None:
    """A file that is no video gets no padding."""
    (tmp_path / "text").write_bytes(b"no video")
    with (tmp_path / "text").open("rb") as old, (tmp_path / "new").open("w+b") as new, pytest.raises(ValueError, match="ftyp"):
        copy_with_padding(old, new, 100)


def test_64_bit_offsets_are_errors() -> None:
    """Places that do not fit into 32 bits are an error."""

    def index(*places: int) -> bytes:
        table = struct.pack(">II", 0, len(places)) + b"".join(struct.pack(">I", place) for place in places)
        return box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", box(b"stco", table))))))

    def moved(before: bytes) -> bytes:
        file = io.BytesIO(before)
        (whole,) = boxes_of(file)
        return b"".join(moved_index(file, whole, [Gap(20, 100)]))

    assert moved(index(10, 2**32 - 101)) == index(10, 2**32 - 1)
    with pytest.raises(OverflowError, match="32 bits"):
        moved(index(10, 2**32 - 100))


def test_long_index_moved_in_pieces() -> None:
    """An index of many samples is moved in pieces."""

    def index(tables: list[np.ndarray]) -> bytes:
        return box(b"moov", b"".join(box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", stored(t))))) for t in tables))

    def stored(table: np.ndarray) -> bytes:
        kind = b"stco" if table.dtype.itemsize == 4 else b"co64"
        return box(kind, struct.pack(">II", 0, len(table)) + table.tobytes()) + box(b"stsz", bytes(3_000_001))

    short, long = np.arange(400_000, dtype=">u4"), np.arange(2**33, 2**33 + 300_000, dtype=">u8")
    file = io.BytesIO(index([short, long]))
    (whole,) = boxes_of(file)
    pieces = list(moved_index(file, whole, [Gap(1000, 64)]))
    short[1000:] += 64
    long += 64
    assert b"".join(pieces) == index([short, long])
    assert max(map(len, pieces)) <= 1 << 20


@pytest.fixture
def _every_index_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4, "_LONG_INDEX", 0)


def kinds_of(path: Path, only: Only | None) -> list[str]:
    with open_input(path, only=only) as container:
        return [stream.type for stream in container.streams]


def planes_of(path: Path) -> list[np.ndarray]:
    with VideoReader(probe(path)) as reader:
        return [plane for frame in reader for plane in frame.planes]


def samples_of(path: Path, track: int) -> np.ndarray:
    with open_input(path, only="sound") as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(container.streams.audio[track])], axis=1)


@pytest.mark.usefixtures("_every_index_is_long")
def test_readers_see_own_track_kind(tmp_path: Path) -> None:
    """A reader of pictures sees no sound, and a reader of sound sees no pictures."""
    video = make_clip(tmp_path / "video.mp4", VIDEO)
    assert sorted(kinds_of(video, None)) == ["audio", "audio", "subtitle", "video"]
    assert sorted(kinds_of(video, "picture")) == ["subtitle", "video"]
    assert sorted(kinds_of(video, "sound")) == ["audio", "audio", "subtitle"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_view_has_same_frames_and_samples(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames and samples are those of the whole file."""
    video = make_clip(tmp_path / f"video{suffix}", replace(VIDEO, subtitles=suffix == ".mp4"))
    pictures, sounds = planes_of(video), [samples_of(video, track) for track in (0, 1)]
    monkeypatch.setattr(mp4, "_LONG_INDEX", 0)
    for seen, wanted in zip(planes_of(video), pictures, strict=True):
        np.testing.assert_array_equal(seen, wanted)
    for track, wanted in enumerate(sounds):
        np.testing.assert_array_equal(samples_of(video, track), wanted)


@pytest.mark.usefixtures("_every_index_is_long")
def test_view_differs_in_hidden_tracks(tmp_path: Path) -> None:
    """A view differs from its file in the kinds of hidden tracks alone."""
    video = make_clip(tmp_path / "video.mp4", VIDEO)
    whole = video.read_bytes()
    with video.open("rb") as file, track_view(file.fileno(), "picture") as view:  # type: ignore[union-attr]
        seen = view.read()
        assert view.seek(-5, os.SEEK_END) == len(whole) - 5
        assert view.read(99) == whole[-5:]
        assert view.read(1) == b""
        view.seek(0)
        # Pieces of any length end within the four letters of a kind.
        assert b"".join(iter(lambda: view.read(3), b"")) == seen
    assert len(seen) == len(whole)
    assert (seen.count(b"trak"), whole.count(b"trak")) == (2, 4)
    assert seen.replace(b"free", b"trak") == whole.replace(b"free", b"trak")


@pytest.mark.usefixtures("_every_index_is_long")
def test_plain_file_read_directly(tmp_path: Path) -> None:
    """Files without something to hide are read as they are."""
    fragmented = tmp_path / "fragmented.mp4"
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(make_clip(tmp_path / "video.mp4", VIDEO))) as video, av.open(str(fragmented), "w", options=options) as output:
        pairs = {stream.index: output.add_stream_from_template(stream) for stream in (*video.streams.video, *video.streams.audio)}
        for packet in video.demux(*video.streams.video, *video.streams.audio):
            if packet.dts is not None:
                packet.stream = pairs[packet.stream_index]
                output.mux(packet)
    silent = make_clip(tmp_path / "silent.mp4", Clip(codec="libx264"))
    matroska = make_clip(tmp_path / "video.mkv", VIDEO)
    for path in (fragmented, silent, matroska):
        with path.open("rb") as file:
            assert track_view(file.fileno(), "picture") is None
    assert len(planes_of(fragmented)) == len(planes_of(make_clip(tmp_path / "video.mp4", VIDEO)))


def test_short_videos_are_read_as_they_are(tmp_path: Path) -> None:
    with make_clip(tmp_path / "video.mp4", VIDEO).open("rb") as file:
        assert track_view(file.fileno(), "picture") is None


@pytest.mark.usefixtures("_every_index_is_long")
def test_read_error_reported_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses a read is reported as a file that breaks."""
    video = make_clip(tmp_path / "video.mp4", replace(VIDEO, pts=range(0, 200 * 512, 512)))
    with VideoReader(probe(video)) as reader:
        frames = iter(reader)
        next(frames)

        def refused(descriptor: int, buffers: list[bytearray], place: int) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "preadv", refused)
        with pytest.raises(MediaUnsupportedError, match=r"video\.mp4 breaks after .*: Input/output error"):
            list(frames)


@pytest.mark.usefixtures("_every_index_is_long")
def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    video = make_clip(tmp_path / "video.mp4", VIDEO)
    planes_of(video)
    before = sorted(os.listdir("/proc/self/fd"))
    planes_of(video)
    with VideoReader(probe(video)) as reader:
        next(iter(reader))
    assert sorted(os.listdir("/proc/self/fd")) == before
