"""Small clips that the tests encode themselves: any pixel format, times, rotation, and streams beside the picture."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from gateway.media.encoders import EncoderChoice, WriteSettings
from gateway.media.pixels import filter_graph, pixel_format
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.sound import Speech
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter
from tests.unit.media.made_pictures import box

VARIABLE_PTS = (507, 1531, 2043, 2555, 3579, 4603, 24603, 25115, 25627, 26651, 27163, 28187)
"""Frame times as a screen recorder writes them: 33 and 67 ms steps, a pause, and a start that is not 0; ticks of 1/15360 s."""


@dataclass(frozen=True)
class Clip:
    """Settings of the drawn and encoded footage."""

    pixel_format: str = "yuv420p"
    codec: str = "ffv1"
    size: tuple[int, int] = (96, 80)
    pts: Sequence[int] = tuple(range(0, 12 * 512, 512))
    time_base: Fraction = Fraction(1, 12800)
    rate: Fraction = Fraction(25)
    last_duration: int = 512
    rotation: int = 0
    sample_aspect: Fraction | None = None
    colour: tuple[int, int, int, int] | None = None
    sound_rate: int = 0
    sound_tracks: int = 1
    sound_codec: str = "aac"
    sound_start_s: Fraction = Fraction(0)
    subtitles: bool = False
    attachment: bool = False
    chapters: bool = False
    timecode: str = ""
    comment: str = ""
    fields: str = ""
    """Order of the fields of interlaced footage: tff or bff."""


def drawn_planes(clip: Clip, index: int) -> list[npt.NDArray[np.generic]]:
    """Planes of frame `index`: slopes with noise, over most of the range."""
    pixel = pixel_format(clip.pixel_format)
    rng = np.random.default_rng(index)
    planes: list[npt.NDArray[np.generic]] = []
    for number in range(pixel.num_colour_planes):
        rows, columns = pixel.plane_shape(number, *clip.size)
        slope = np.add.outer(np.linspace(0.1, 0.5, rows), np.linspace(0.05, 0.35, columns)) + 0.01 * (index % 5)
        planes.append(((slope + rng.uniform(0, 0.02, (rows, columns))) * (1 << pixel.bits)).astype(pixel.dtype))
    return planes


def tone(rate: int, samples: int, start: int = 0) -> npt.NDArray[np.float32]:
    """A 440 Hz tone from sample `start` on, float32 [samples, 1]."""
    return (0.5 * np.sin(2 * np.pi * 440 * (start + np.arange(samples)) / rate)).astype(np.float32)[:, None]


def make_clip(path: Path, clip: Clip | None = None) -> Path:
    """Writes a clip's file. Each clip is encoded once for a kind of file."""
    path.write_bytes(_encoded(path.suffix, clip or Clip()))
    return path


@lru_cache(maxsize=64)
def _encoded(suffix: str, clip: Clip) -> bytes:
    with TemporaryDirectory(prefix="dubstage-clip-") as folder:
        path = Path(folder, f"clip{suffix}")
        _encode(path, clip)
        return path.read_bytes()


def _encode(path: Path, clip: Clip) -> None:
    options = {}
    if path.suffix in (".mp4", ".mov"):
        options = {"movie_timescale": str(clip.time_base.denominator), "video_track_timescale": str(clip.time_base.denominator)}
    if clip.pts[0] < 0:
        options["avoid_negative_ts"] = "disabled"
    with av.open(str(path), "w", container_options=options) as output:
        video = output.add_stream(clip.codec, rate=clip.rate, options={"crf": "10"} if clip.codec == "libx264" else {})
        video.width, video.height = clip.size
        video.pix_fmt = clip.pixel_format
        video.codec_context.time_base = clip.time_base
        video.codec_context.flags |= av.codec.context.Flags.frame_duration
        if clip.colour:
            context = video.codec_context
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = clip.colour
        if clip.rotation:
            video.set_display_rotation(clip.rotation)
        if clip.sample_aspect:
            video.codec_context.sample_aspect_ratio = clip.sample_aspect
        if clip.timecode:
            video.metadata["timecode"] = clip.timecode
        if clip.comment:
            output.metadata["comment"] = clip.comment
        if clip.fields:
            video.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        sounds = [_sound_stream(output, clip) for _ in range(clip.sound_tracks if clip.sound_rate else 0)]
        subtitles = output.add_mux_stream("mov_text" if path.suffix == ".mp4" else "subrip") if clip.subtitles else None
        if subtitles is not None:
            subtitles.time_base = Fraction(1, 1000)
        if clip.attachment:
            output.add_attachment("notes.txt", "text/plain", b"shot 12, take 3")
        if clip.chapters:
            tenth = int(1 / clip.time_base / 10)
            chapter = {"id": 1, "start": 0, "end": tenth, "time_base": clip.time_base, "metadata": {"title": "Opening"}}
            output.set_chapters([chapter])
        _encode_video(output, video, clip)
        for number, sound in enumerate(sounds):
            _encode_sound(output, sound, clip, number)
        if subtitles is not None:
            text = b"Hello"
            packet = av.Packet((len(text).to_bytes(2, "big") if path.suffix == ".mp4" else b"") + text)
            packet.pts = packet.dts = 100
            packet.duration, packet.time_base, packet.stream = 200, Fraction(1, 1000), subtitles
            output.mux(packet)


def _encode_video(output: av.container.OutputContainer, video: av.VideoStream, clip: Clip) -> None:
    pixel = pixel_format(clip.pixel_format)
    fields = (
        filter_graph("setfield", clip.fields, clip.size, av.VideoFormat(clip.pixel_format), clip.time_base) if clip.fields else None
    )
    for index, pts in enumerate(clip.pts):
        picture = av.VideoFrame(*clip.size, clip.pixel_format)
        if clip.colour:
            picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc = clip.colour
        for plane, drawn in zip(picture.planes, drawn_planes(clip, index), strict=False):
            rows, columns = drawn.shape
            view = np.frombuffer(plane, pixel.dtype).reshape(-1, plane.line_size // pixel.dtype.itemsize)
            view[:rows, :columns] = drawn
        picture.pts, picture.time_base = pts, clip.time_base
        following = [*clip.pts[1:], clip.pts[-1] + clip.last_duration]
        picture.duration = following[index] - pts
        if fields is not None:
            fields.push(picture)
        output.mux(video.encode(picture if fields is None else fields.pull()))
    output.mux(video.encode(None))


def copied(info: MediaInfo, output: Path, *, speech: Speech | None = None, **settings: Any) -> None:
    """Write the frames of a video as they are."""
    with VideoWriter(output, info, speech=speech, settings=WriteSettings(**settings)) as writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame)


def rewritten(source: Path, output: Path, codec: str | None = None) -> EncoderChoice:
    """Write a video again. Every second frame gets new planes with the same samples."""
    info = probe(source)
    with VideoWriter(output, info, settings=WriteSettings(codec=codec)) as writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame, [plane.copy() for plane in frame.planes] if frame.index % 2 else None)
    return writer.choice


def field_orders(path: Path) -> set[str]:
    """Orders of the fields that the frames of a file state: tff, bff, or progressive."""
    found = set()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            found.add("progressive" if not frame.interlaced_frame else _order(frame))
    return found


def _order(frame: av.VideoFrame) -> str:
    for order, name in (("tff", "TOPFIRST"), ("bff", "BOTTOMFIRST")):
        chosen = f"eq(interlace_type\\,{name})"
        graph = filter_graph("select", chosen, (frame.width, frame.height), frame.format, Fraction(1, 25))
        graph.push(frame)
        try:
            graph.pull()
        except av.BlockingIOError:
            continue
        return order
    return "unknown"


def _sound_stream(output: av.container.OutputContainer, clip: Clip) -> av.AudioStream:
    sound = output.add_stream(clip.sound_codec, rate=clip.sound_rate)
    sound.layout = "mono"
    sound.format = {"aac": "fltp", "flac": "s32"}.get(clip.sound_codec, "s16")
    sound.codec_context.time_base = Fraction(1, clip.sound_rate)
    return sound


def _encode_sound(output: av.container.OutputContainer, sound: av.AudioStream, clip: Clip, number: int) -> None:
    span = (clip.pts[-1] + clip.last_duration) * clip.time_base - clip.sound_start_s
    wave = tone(clip.sound_rate, int(span * clip.sound_rate)) / (number + 1)
    resampler = av.AudioResampler(format=sound.format, layout="mono", rate=clip.sound_rate)
    position = round(clip.sound_start_s * clip.sound_rate)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), "flt", "mono")
    frame.sample_rate = clip.sound_rate
    for ready in [*resampler.resample(frame), *resampler.resample(None)]:
        ready.pts, ready.time_base = position, Fraction(1, clip.sound_rate)
        position += ready.samples
        output.mux(sound.encode(ready))
    output.mux(sound.encode(None))


def make_sound(
    path: Path, samples: npt.NDArray[np.float32], rate: int, codec: str = "pcm_s16le", layout: str | None = None
) -> Path:
    """Encodes a sound file of float32 [samples, channels]."""
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[samples.shape[1]]
    with av.open(str(path), "w") as output:
        sound = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    return path


def make_clip_with_messages(path: Path, codec: str, payloads: Sequence[bytes]) -> Path:
    """An MPEG transport stream in H.264 or HEVC with a registered SEI message (ITU-T T.35) in every frame."""
    begin = {"libx264": b"\x06", "libx265": b"\x4e\x01"}[codec]
    messages = iter([b"\x00\x00\x00\x01" + begin + bytes([4, len(payload)]) + payload + b"\x80" for payload in payloads])
    with av.open(str(path), "w", format="mpegts") as output:
        video = output.add_stream(codec, rate=25, options={"bf": "0", "tune": "zerolatency", "x265-params": "log-level=error"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for index in range(len(payloads)):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 40 + index, np.uint8), "yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            for packet in [*video.encode(picture), *(video.encode(None) if index == len(payloads) - 1 else [])]:
                told = av.Packet(_before_slices(bytes(packet), next(messages), codec))
                told.pts, told.dts, told.time_base = packet.pts, packet.dts, packet.time_base
                told.is_keyframe, told.stream = packet.is_keyframe, video
                output.mux(told)
    return path


def _before_slices(access_unit: bytes, message: bytes, codec: str) -> bytes:
    """Put a message before the first slice: HEVC allows none before the parameter sets."""
    if codec == "libx264":
        return message + access_unit
    start = 0
    while (at := access_unit.find(b"\x00\x00\x01", start)) >= 0:
        if access_unit[at + 3] >> 1 < 32:
            zero = at - 1 if at and access_unit[at - 1] == 0 else at
            return access_unit[:zero] + message + access_unit[zero:]
        start = at + 3
    return access_unit


def make_captioned_clip(path: Path, texts: Sequence[bytes]) -> Path:
    """An MPEG transport stream in H.264 with closed captions (CEA-608, two bytes a frame) in every frame's SEI message."""
    captions = [b"\xb5\x00\x31GA94\x03" + bytes([0x41, 0xFF, 0xFC]) + text + b"\xff" for text in texts]
    return make_clip_with_messages(path, "libx264", captions)


def with_edits(video: bytes, edits: Sequence[tuple[float, float | None]], *, speed: float = 1.0) -> bytes:
    """An MP4 file whose index comes last, with an edit list in every track: seconds that are shown, and the second of the track at
    which they begin; None: nothing is shown. `speed`: of the last entry.
    """
    (moov,) = (found for found in _boxes(video) if found[0] == b"moov")
    start, stop = moov[1:]
    (header,) = (found for found in _boxes(video, start + 8, stop) if found[0] == b"mvhd")
    scale = struct.unpack_from(">I", video, header[1] + 20)[0]
    content = b"".join(
        _edited_track(video, begin, end, scale, edits, speed) if kind == b"trak" else video[begin:end]
        for kind, begin, end in _boxes(video, start + 8, stop)
    )
    return video[:start] + box(b"moov", content) + video[stop:]


def _edited_track(
    video: bytes, start: int, stop: int, scale: int, edits: Sequence[tuple[float, float | None]], speed: float
) -> bytes:
    boxes = {kind: (begin, end) for kind, begin, end in _boxes(video, start + 8, stop)}
    media, old = boxes[b"mdia"], boxes.pop(b"edts")
    first = struct.unpack_from(">i", video, old[0] + 28)[0]  # pictures that are reordered do not begin at 0
    (header,) = (found for found in _boxes(video, media[0] + 8, media[1]) if found[0] == b"mdhd")
    ticks = struct.unpack_from(">I", video, header[1] + 20)[0]
    rows = [(round(shown * scale), -1 if begin is None else first + round(begin * ticks), 1 << 16) for shown, begin in edits]
    rows[-1] = (*rows[-1][:2], round(speed * (1 << 16)))
    listed = box(b"elst", struct.pack(">II", 0, len(rows)) + b"".join(struct.pack(">IiI", *row) for row in rows))
    tkhd, *others = (video[begin:end] for begin, end in boxes.values())
    return box(b"trak", tkhd + box(b"edts", listed) + b"".join(others))


def _boxes(video: bytes, start: int = 0, stop: int | None = None) -> list[tuple[bytes, int, int]]:
    """Kind, begin and end of the boxes in a part of an MP4 file."""
    found, end = [], len(video) if stop is None else stop
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", video, start)
        found.append((kind, start, start + length))
        start += length
    return found


def with_unknown_sound(video: bytes) -> bytes:
    """A video of MOV or Matroska with two sound tracks in AAC, of which the second is in a codec that FFmpeg does not know."""
    if b"stsd" in video:
        place = video.rindex(b"stsd") + 16
        return video[:place] + b"apac" + video[place + 4 :].replace(b"wave", b"free", 1)
    place = video.rindex(b"A_AAC")
    return video[:place] + b"A_XYZ" + video[place + 5 :]
