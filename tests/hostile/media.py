"""Files that are hostile as footage or as speech: mutated media, playlists, lying headers, special files, odd names."""

import contextlib
import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

from tests.hostile.shelf import MediaShelf
from tests.unit.media.made_footage import Clip, make_clip

BOTH = ("clip.mp4", "clip.mkv", "clip.mov", "clip.avi", "clip.ts", "speech.wav", "speech.flac", "speech.mka")
"""Files that are mutated byte by byte."""
SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".wav", ".png", ".txt", ".m3u8", ".sdp", ".ffconcat", "")

Recipe = Callable[[MediaShelf, Path, Random], Path]
"""Makes a hostile file in a folder."""
PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.2,\n{name}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{name}'\nduration 0.2\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={name}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 15004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{name}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{name}</Id></CompositionPlaylist>',
    "vobsub": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n# {name}\n",
    "webpage": '<html><img src="{name}"></html>',
    "ffmetadata": ";FFMETADATA1\ntitle={name}\n",
    "m3u": "{name}\n",
    "tedcaptions": '{{"captions":[{{"content":"{name}","startTime":0}}]}}',
}
PIXELS = {
    "ffv1": ("yuva444p12le", "gray16le", "rgb48le", "yuv410p", "gbrp16le", "yuv440p", "gray", "bgra", "yuva420p"),
    "png": ("rgba", "ya8", "rgba64be"),
    "prores_ks": ("yuva444p10le",),
    "mjpeg": ("yuvj420p",),
    "rawvideo": ("pal8", "monob", "uyvy422", "rgb565le", "nv12", "xyz12le"),
}
"""Pixel formats by codec."""
SIZES = ((1, 1), (2, 2), (16, 2), (3, 5), (16384, 2), (2, 4096), (64, 1))
SOUNDS: dict[str, dict[str, float]] = {
    "nan": {"fill": float("nan")},
    "inf": {"fill": float("inf")},
    "loud": {"fill": 3e38},
    "24 channels": {"channels": 24},
    "200 channels": {"channels": 200},
    "0 channels": {"channels": 0},
    "1 Hz": {"rate": 1, "samples": 3},
    "0 Hz": {"rate": 0},
    "768 kHz": {"rate": 768_000},
    "4 GHz": {"rate": 4_000_000_000},
    "no sample": {"samples": 0},
    "one sample": {"samples": 1},
    "4 GB claimed": {"claimed": 0xFFFFFFF0},
    "8 bits": {"bits": 8},
}  # type: ignore[dict-item]
NAMES = (
    "x" * 251 + ".mp4", "file:colon.mp4", "http:x.mp4", "concat:a|b.mp4", "pipe:0.mp4", "data:x.mp4", "cache:x.mp4", "-dash.mp4",
    "--help", "new\nline.mp4", "%03d.mp4", "%s.mp4", "[bold]x[red].mp4", "[x].mp4", "[red]", "a b.mp4", "ü\u202e.mp4", "~",
    "it's.mp4", 'a"b.mp4', "*.mp4", "a?.mp4", "trailing.mp4 ", ".mp4", "..mp4", "nosuffix", "UPPER.MP4", "a\\b.mp4", "$HOME.mp4",
    "a\x1b[31m.mp4", "a#b?c=d.mp4",
)  # fmt: skip
"""Strange names of files."""


def bytes_changed(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """A file with flipped bits, a hole, a missing end or middle, or something before its start."""
    name = rng.choice(BOTH)
    data = bytearray((shelf.folder / name).read_bytes())
    kind = rng.choice(("bits", "bits", "cut", "hole", "gone", "junk", "swap", "head"))
    at = rng.randrange(len(data))
    match kind:
        case "bits":
            for _ in range(rng.choice((1, 4, 40))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "cut":
            del data[at:]
        case "hole":
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        case "gone":
            del data[at : at + 300]
        case "junk":
            data[:0] = rng.randbytes(rng.choice((1, 100, 5000)))
        case "swap":
            data = data[at:] + data[:at]
        case _:
            for _ in range(4):
                data[rng.randrange(min(300, len(data)))] = rng.randrange(256)
    path = folder / f"{kind}-{name}"
    path.write_bytes(data)
    return path


def playlist(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """A text that FFmpeg would take for a list of other files, under any suffix."""
    secret = shelf.copy("clip.mp4", folder, "secret.mp4")
    text = rng.choice(tuple(PLAYLISTS.values())).format(
        name=rng.choice((secret.name, str(secret), f"file:{secret}", "http://127.0.0.1:9/x"))
    )
    path = folder / f"list{rng.choice(SUFFIXES)}"
    path.write_text(text)
    return path


def lying_header(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """An mp4 whose index claims numbers that the file does not have."""
    data = bytearray(shelf.copy("clip.mp4", folder, "lie.mp4").read_bytes())
    kind = rng.choice(tuple(LIES))
    LIES[kind](data, rng)
    path = folder / f"lie-{kind}.mp4"
    path.write_bytes(data)
    (folder / "lie.mp4").unlink()
    return path


def _box(data: bytearray, name: bytes) -> int:
    """Return the offset of a box's content, behind its name."""
    at = data.find(name)
    assert at >= 0, name
    return at + 4


def claim_samples(data: bytearray, count: int) -> None:
    """Let the first track claim so many samples of one byte."""
    sizes, times = _box(data, b"stsz"), _box(data, b"stts")
    struct.pack_into(">II", data, sizes + 4, 1, count)
    struct.pack_into(">III", data, times + 4, 1, count, 512)


def _random_field(name: bytes) -> Callable[[bytearray, Random], None]:
    def lie(data: bytearray, rng: Random) -> None:
        at = _box(data, name)
        value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 80_000_000, 2**31))
        struct.pack_into(">I", data, at + rng.choice((0, 4, 8, 12, 16)), value)

    return lie


LIES: dict[str, Callable[[bytearray, Random], None]] = {
    "samples": lambda data, _: claim_samples(data, 80_000_000),
    **{
        name.decode(): _random_field(name)
        for name in (b"stsz", b"stts", b"stco", b"stsc", b"mdhd", b"mvhd", b"tkhd", b"elst", b"avc1", b"dref")
    },
}


def external_data(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """A mov whose pictures lie in another file by its data reference."""
    secret = shelf.copy("clip.mov", folder, "secret.mov")
    data = bytearray(secret.read_bytes())
    at = _box(data, b"dref") + 8
    entry = data[at + 4 : at + 8]
    data[at + 4 : at + 8] = rng.choice((b"alis", b"rsrc", b"url "))
    data[at + 8 : at + 12] = b"\0\0\0\0"
    path = folder / f"external-{entry.decode('latin-1').strip()}.mov"
    path.write_bytes(data)
    return path


def jumping_times(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """A video of five frames, the last of them centuries later."""
    path = folder / f"jump{rng.choice(('.mkv', '.mp4', '.mov', '.nut'))}"
    jump = rng.choice((25_000_000_000, 4_000_000_000, 100_000_000, 86_400, -100))
    codec, pts = "ffv1" if path.suffix != ".mp4" else "libx264", (0, 1, 2, 3, max(4, jump))
    clip = Clip(codec=codec, pts=pts, time_base=Fraction(1), last_duration=1)
    # Not every container can hold such times: what is on the disk by then is hostile, too.
    with contextlib.suppress(av.FFmpegError, ValueError):
        make_clip(path, clip)
    if not path.exists():
        path.touch()
    return path


def odd_picture(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """Unusual pixel formats and sizes."""
    codec, pixel = rng.choice([(codec, pixel) for codec, pixels in PIXELS.items() for pixel in pixels])
    width, height = rng.choice((*SIZES, (64, 48), (64, 48), (64, 48)))
    suffix = ".mov" if codec == "prores_ks" else rng.choice((".mkv", ".nut", ".avi"))
    path = folder / f"{pixel}-{width}x{height}{suffix}"
    try:
        with av.open(str(path), "w") as output:
            stream = output.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, pixel
            for index in range(rng.choice((0, 1, 3))):
                picture = av.VideoFrame(width, height, "rgb24").reformat(format=pixel)
                picture.pts = index
                output.mux(stream.encode(picture))
            output.mux(stream.encode(None))
    except (av.FFmpegError, ValueError):
        # Not every codec and container takes every format and size: what is on the disk by then is hostile, too.
        path.touch()
    return path


def odd_sound(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """Sound with strange rates, channels, sizes and numbers: a WAV written by hand."""
    kind = rng.choice(tuple(SOUNDS))
    path = folder / f"{kind}.wav"
    path.write_bytes(wav(**SOUNDS[kind]))
    return path


def wav(
    *, samples: int = 4000, rate: int = 16000, channels: int = 1, fill: float = 0.1, bits: int = 32, claimed: int | None = None
) -> bytes:
    """A WAV of float32 (32 bits) or integers, with sizes as claimed."""
    kind = "<f4" if bits == 32 else {8: "u1", 16: "<i2"}[bits]
    data = np.full(samples * channels, fill if bits == 32 else 3, kind).tobytes()
    size = len(data) if claimed is None else claimed
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 3 if bits == 32 else 1, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    parts = (b"RIFF", struct.pack("<I", size + 36 & 0xFFFFFFFF), b"WAVEfmt \x10\0\0\0", form, b"data", struct.pack("<I", size))
    return b"".join((*parts, data))


def special_file(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """A FIFO, a folder, a device, links that lead nowhere or round in circles."""
    kind = rng.choice(("fifo", "folder", "null", "zero", "full", "loop", "dangling", "empty", "proc", "tty"))
    path = folder / f"{kind}.mp4"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "null" | "zero" | "full" | "tty":
            path.symlink_to(f"/dev/{kind}")
        case "loop":
            path.symlink_to(path.name)
        case "dangling":
            path.symlink_to("nowhere.mp4")
        case "proc":
            path.symlink_to("/proc/self/mem")
        case _:
            path.touch()
    return path


def odd_name(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """Good footage under a strange name, some of them no UTF-8."""
    name = os.fsdecode(b"\xff\xfe.mp4") if rng.random() < 0.05 else rng.choice(NAMES)
    return shelf.copy("clip.mp4", folder, name)


RECIPES: dict[Recipe, float] = {
    bytes_changed: 6.0,
    playlist: 2.0,
    lying_header: 2.0,
    external_data: 0.3,
    jumping_times: 0.7,
    odd_picture: 2.0,
    odd_sound: 1.5,
    special_file: 1.5,
    odd_name: 1.5,
}
"""Kinds of files that are made, with their weights."""


def hostile_file(shelf: MediaShelf, folder: Path, rng: Random) -> Path:
    """A hostile file by one of the recipes."""
    return rng.choices(tuple(RECIPES), tuple(RECIPES.values()))[0](shelf, folder, rng)
