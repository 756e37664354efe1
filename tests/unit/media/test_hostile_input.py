"""Files that were made to do harm, and names that look like something else."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gateway.media import opening
from gateway.media.inspection import inspect_sound, inspect_video
from gateway.media.probe import probe
from gateway.media.sound import SoundReader
from gateway.safe_paths import confine
from services.common.errors import MediaUnsupportedError
from tests.refusals import raised
from tests.unit.media.made_footage import Clip, copied, make_clip, tone
from tests.written_pictures import write_pictures

CLIP = "clip.mp4"

PLAYLISTS = {
    "playlist": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{CLIP}\n#EXT-X-ENDLIST\n",
    "list of files": f"ffconcat version 1.0\nfile {CLIP}\n",
    "list of files (ffconcat)": f"file '{CLIP}'\nfile '{CLIP}'\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "manifest": f'<?xml version="1.0"?>\n<MPD type="static"><Period><BaseURL>{CLIP}</BaseURL></Period></MPD>\n',
}
NAMES = [
    "file:colon.mp4",
    "http:x.mp4",
    "-dash.mp4",
    "take%03d.mp4",
    "[1] {a,b}*?.mp4",
    "two\nlines.mp4",
    "concat:a|b.mp4",
    "pipe:0.mp4",
]


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".wav"])
def test_files_that_only_name_other_files_are_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    make_clip(tmp_path / CLIP, Clip(sound_rate=16000))
    (tmp_path / f"list{suffix}").write_text(PLAYLISTS[kind])
    for read in (probe, SoundReader):
        with pytest.raises(MediaUnsupportedError, match=kind.split(" (", maxsplit=1)[0]) as caught:
            read(tmp_path / f"list{suffix}")
        assert "give the media file itself" in str(caught.value)


def test_formats_that_are_no_footage_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n\n")
    with pytest.raises(MediaUnsupportedError, match=r"words\.srt is in a format that is not read here; convert it"):
        probe(tmp_path / "words.srt")


def _with_reference(video: bytes, target: bytes) -> bytes:
    """A MOV file whose index comes last, with its first track's samples in another file."""
    entry = struct.pack(">I4sI", 12 + len(target), b"url ", 0) + target
    place = video.index(b"dref") - 4
    grown = 8 + 8 + len(entry) - struct.unpack_from(">I", video, place)[0]
    result = bytearray(video)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = video.index(box) - 4
        struct.pack_into(">I", result, at, struct.unpack_from(">I", video, at)[0] + grown)
    old_end = place + struct.unpack_from(">I", video, place)[0]
    return bytes(result[: place + 16]) + entry + video[old_end:]


def test_external_picture_refused(tmp_path: Path) -> None:
    """A video whose picture is in another file is refused."""
    video = make_clip(tmp_path / "clip.mov", Clip(codec="libx264")).read_bytes()
    (tmp_path / "outside.mov").write_bytes(_with_reference(video, b"file:///etc/passwd\0"))
    with pytest.raises(MediaUnsupportedError, match=r"outside\.mov has its picture or sound in another file.*self-contained"):
        probe(tmp_path / "outside.mov")
    assert probe(tmp_path / "clip.mov").video.num_frames == 12


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_just_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(make_clip(tmp_path / CLIP, Clip(sound_rate=16000)), tmp_path / name)
    info = probe(Path(name))
    copied(info, Path(f"{name}.out.mp4"), keep_audio=True)
    assert probe(tmp_path / f"{name}.out.mp4").video.num_frames == 12
    assert SoundReader(Path(name)).info.sample_rate_hz == 16000


def test_pattern_name_is_one_picture(tmp_path: Path) -> None:
    """A picture whose name is a pattern is one picture."""
    for name in ("face%03d.png", "face001.png", "face002.png"):
        assert cv2.imwrite(str(tmp_path / name), np.zeros((64, 64, 3), np.uint8))
    assert probe(tmp_path / "face%03d.png").video.num_frames == 1


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "a named pipe"),
        (_socket, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (Path.mkdir, "a folder"),
    ],
)
def test_irregular_file_refused_at_once(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """A path that is no regular file is refused without waiting."""
    make(tmp_path / "x.mp4")
    for read in (probe, SoundReader, inspect_video):
        with pytest.raises(MediaUnsupportedError, match=rf"x\.mp4 is {words}"):
            read(tmp_path / "x.mp4")


def _claiming(path: Path, samples: int) -> Path:
    """A small MP4 file whose index claims a number of samples of one byte each."""
    video = bytearray(make_clip(path).read_bytes())
    struct.pack_into(">II", video, video.index(b"stsz") + 8, 1, samples)
    struct.pack_into(">II", video, video.index(b"stts") + 12, samples, 512)
    struct.pack_into(">III", video, video.index(b"stsc") + 12, 1, samples, 1)
    path.write_bytes(video)
    return path


def test_claimed_frame_count_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that claims more frames than a video has is refused."""
    monkeypatch.setattr("gateway.media.opening.MAX_SAMPLES", 20_000)
    path = _claiming(tmp_path / "claims.mp4", 21_000)
    path.write_bytes(path.read_bytes() + bytes(21_000))
    for read in (probe, SoundReader):
        with pytest.raises(MediaUnsupportedError, match=r"claims\.mp4 claims 21000 frames .* at most 20000 are read"):
            read(path)


def test_claimed_piece_count_refused(tmp_path: Path) -> None:
    """A file that claims more pieces than it has bytes is refused."""
    path = _claiming(tmp_path / "claims.mp4", 1_000_000)
    for read in (probe, SoundReader):
        with pytest.raises(MediaUnsupportedError, match=rf"claims 1000000 .* {path.stat().st_size} bytes"):
            read(path)


def test_uncompressed_sound_of_any_length_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QuickTime counts each sample of uncompressed sound as a piece: seven minutes at 48 kHz are over the bound of an index."""
    monkeypatch.setattr("gateway.media.opening.MAX_SAMPLES", 20_000)
    path = tmp_path / "take.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.ones((1, 48_000), np.int16), format="s16", layout="mono")
        frame.rate, frame.pts = 48_000, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert sum(len(chunk.samples) for chunk in SoundReader(path)) == 48_000


@pytest.mark.parametrize(
    ("pts", "words"),
    [
        ((0, 512, 1024, int(25e9 * 12800)), r"frame 2 is shown for 2\.5e\+10 s, at most 600 s"),
        (tuple(range(0, 12800 * 599 * 80, 12800 * 599)), r"is 13\.\d+ h long, at most 12 h"),
        (tuple(range(1200)), r"1200 frames in .* at most 1000 frames/s"),
    ],
)
def test_videos_beyond_the_bounds_are_refused(tmp_path: Path, pts: tuple[int, ...], words: str) -> None:
    path = make_clip(tmp_path / "clip.nut", Clip(codec="libx264", pts=pts, last_duration=1, size=(16, 16)))
    with pytest.raises(MediaUnsupportedError, match=rf"clip\.nut:? .*{words}|clip\.nut:? {words}"):
        probe(path)


def test_usual_picture_sizes_read(tmp_path: Path) -> None:
    """Pictures of every usual size are read and others refused."""
    assert cv2.imwrite(str(tmp_path / "large.png"), np.zeros((9504, 32), np.uint8))
    assert probe(tmp_path / "large.png").video.height == 9504
    for height, width, words in ((16400, 16, "16 x 16400 pixels is too large"), (40, 8, "8 x 40 pixels is too small")):
        assert cv2.imwrite(str(tmp_path / "odd.png"), np.zeros((height, width), np.uint8))
        with pytest.raises(MediaUnsupportedError, match=rf"odd\.png: a picture of {words}"):
            probe(tmp_path / "odd.png")


def test_unsupported_pixel_format_names_file(tmp_path: Path) -> None:
    """A pixel format that is not supported is named with its file."""
    picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint16), "rgb48be")
    path = write_pictures(tmp_path / "deep.nut", [picture], "rawvideo", pixel_format="rgb48be")
    with pytest.raises(MediaUnsupportedError, match=r"deep\.nut: .* rgb48be"):
        probe(path)


def _wav(path: Path, *, rate: int = 16000, channels: int = 1, samples: bytes = b"") -> Path:
    """A WAV file of float32 samples, written by hand: encoders refuse what these hold."""
    form = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def test_unusable_speech_tells_remedy(tmp_path: Path) -> None:
    """Speech that cannot be used is named with a remedy."""
    spoilt = tone(16000, 8000)[:, 0]
    spoilt[5000] = np.nan
    refused = {
        _wav(tmp_path / "empty.wav"): "no sound in it",
        _wav(tmp_path / "many.wav", channels=24, samples=bytes(24 * 4 * 100)): "24 channels, 1 to 16",
        _wav(tmp_path / "slow.wav", rate=1, samples=bytes(400)): "rate of 1 Hz, 8000 to 192000 Hz",
        _wav(tmp_path / "fast.wav", rate=400_000, samples=bytes(400)): "rate of 400000 Hz",
    }
    for path, words in refused.items():
        with raised(MediaUnsupportedError, match=rf"{path.name}:? .*{words}", field="audio"):
            SoundReader(path).check_sound()
    with pytest.raises(MediaUnsupportedError, match=str(tmp_path / "empty.wav")):
        inspect_sound(tmp_path / "empty.wav")
    reader = SoundReader(_wav(tmp_path / "nan.wav", samples=spoilt.astype("<f4").tobytes()))
    with pytest.raises(MediaUnsupportedError, match=r"nan\.wav: its sound at 0\.312 s is nan, which is no number"):
        list(reader)


def test_jumping_clock_fills_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound whose clock jumps is not filled with years of silence."""
    monkeypatch.setattr("gateway.media.sound.MAX_VIDEO_S", 2)
    clip = Clip(sound_rate=16000, sound_codec="pcm_s16le", sound_start_s=Fraction(3), pts=tuple(range(0, 51200, 512)))
    info = probe(make_clip(tmp_path / "clip.mkv", clip))
    with pytest.raises(MediaUnsupportedError, match=r"clip\.mkv: its sound goes on at 3 s"):
        list(SoundReader(info.path, origin=info.video.start))
    assert opening.MAX_VIDEO_S == 12 * 3600


def test_below_a_confined_folder_no_link_is_followed(tmp_path: Path) -> None:
    outside, media = tmp_path / "outside", tmp_path / "media"
    outside.mkdir()
    (media / "day").mkdir(parents=True)
    make_clip(outside / CLIP)
    shutil.copy(outside / CLIP, media / "day" / CLIP)
    confine(media)
    assert probe(media / "day" / CLIP).video.num_frames == 12
    (media / "link.mp4").symlink_to(outside / CLIP)
    (media / "linked").symlink_to(outside)
    for name in ("link.mp4", f"linked/{CLIP}", f"day/../linked/{CLIP}"):
        with pytest.raises(MediaUnsupportedError):
            probe(media / name)
    assert probe(outside / CLIP).video.num_frames == 12
