"""Reads the contents of a media file: one pass over the packets, and no more than the first frame is decoded."""

from __future__ import annotations

import ctypes
import gc
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.dictionary import Dictionary
from av.sidedata.sidedata import Type
from av.video.stream import VideoStream

from gateway.media.crops import stated_crop
from gateway.media.mp4 import EditPart
from gateway.media.opening import (
    MAX_FRAME_S,
    MAX_FRAMES,
    MAX_RATE,
    MAX_SIDE,
    MAX_STILL_PIXELS,
    MAX_STILL_SIDE,
    MAX_VIDEO_S,
    MIN_SIDE,
    broken_at,
    codec_name,
    is_cover,
    is_decodable,
    open_input,
    parts_of,
    reason_of,
    video_stream,
)
from gateway.media.pictures import PictureFacts, picture_facts, read_picture
from gateway.media.pixels import ColourTags, PixelFormat, filter_graph, pixel_format, planar_name
from gateway.media.types import COVER, PICTURE, AudioInfo, FieldOrder, HdrMetadata, MediaInfo, OtherStream, VideoInfo, orientation
from services.common.array_types import Int64
from services.common.errors import MediaUnsupportedError

_ONE: Final = 1 << 16
_QUARTER_TURNS: Final[tuple[tuple[int, ...] | None, ...]] = (
    None,
    (0, -_ONE, 0, _ONE, 0, 0, 0, 0, 1 << 30),
    (-_ONE, 0, 0, 0, -_ONE, 0, 0, 0, 1 << 30),
    (0, _ONE, 0, -_ONE, 0, 0, 0, 0, 1 << 30),
)
"""Display matrices by quarter turns, counter-clockwise."""
_MASTERING_SCALES: Final = (*(50_000,) * 8, *(10_000,) * 2)
_MOST_IN_SEI: Final = (*(50_000,) * 8, *(2**32 - 1,) * 2)
_MOST_LIGHT: Final = 2**16 - 1
_UNKEPT: Final = {
    Type.DOVI_METADATA: "the metadata of Dolby Vision",
    Type.DOVI_RPU_BUFFER: "the metadata of Dolby Vision",
    Type.DYNAMIC_HDR_PLUS: "the metadata of HDR10+",
    Type.DYNAMIC_HDR_VIVID: "the metadata of HDR Vivid",
    Type.AFD: "the active format description",
    Type.STEREO3D: "the arrangement of the two pictures of stereo 3D",
    Type.SPHERICAL: "the projection of the spherical picture",
}
_PICTURE_TICK: Final = Fraction(1, 25)
"""Time that the frame of a picture file is shown, seconds."""
_MOST_ROUNDING_S: Final = Fraction(1, 100)
"""Most seconds by which the frames of a part of an edit list are moved, so that they follow at once on the part before. Rounded
lengths of parts add up."""
_SHORTFALL_S = Fraction(1, 2)
"""A stream that ends this many seconds before the end that its header promises was cut short."""
_LONGEST_FRAME_S = 10
"""A last frame that would be shown for more seconds is an artefact of an edit list."""


def side_data(picture: av.VideoFrame, kind: Type) -> bytes | None:
    """Return the side data of a kind; None: the picture has none.

    Call this for single frames only. PyAV ties a frame whose side data was read into a reference cycle, so the frame's memory stays
    until the garbage collector runs.
    """
    # Kinds are compared by number: looking a kind up raises for frames that carry kinds unknown to the library's table.
    items = cast(Any, picture.side_data)
    _leave_metadata_to_the_frame(items)
    for number in range(len(items)):
        if items[number].type == kind:
            return bytes(items[number])
    return None


def _leave_metadata_to_the_frame(items: Any) -> None:
    """Keep PyAV 18 from freeing metadata of side data, such as the name of a colour profile. The frame frees the metadata too, and
    the second time crashes.

    The wrapper of each such metadata takes a few bytes until the process ends.
    """
    for number in range(len(items)):
        for metadata in gc.get_referents(items[number]):
            if isinstance(metadata, Dictionary) and len(metadata):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(metadata))


def display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """Return the nine numbers of the container's display matrix for a picture; None: there is none.

    PyAV 18 cannot list the side data of a picture with a kind that PyAV does not know, such as a photograph's EXIF. Then only the
    angle is known, and a mirrored picture is taken for a turned one.
    """
    try:
        matrix = side_data(picture, Type.DISPLAYMATRIX)
    except ValueError:
        return _QUARTER_TURNS[round(picture.rotation / 90) % 4]
    return None if matrix is None else tuple(int(value) for value in np.frombuffer(matrix, "<i4"))


def hdr_metadata(picture: av.VideoFrame) -> HdrMetadata:
    """Return the HDR metadata of a picture. What is damaged or stated in part only is left out."""
    try:
        display, light = (side_data(picture, kind) for kind in (Type.MASTERING_DISPLAY_METADATA, Type.CONTENT_LIGHT_LEVEL))
    except ValueError:
        return HdrMetadata()
    return HdrMetadata(None if display is None else _mastering(display), None if light is None else _light(light))


def _unkept(picture: av.VideoFrame) -> tuple[str, ...]:
    """Return the metadata of a picture that no encoder gets, in words."""
    try:
        unkept = [words for kind, words in _UNKEPT.items() if side_data(picture, kind) is not None]
    except ValueError:
        return ()
    return tuple(dict.fromkeys(unkept))


def _cropped(container: InputContainer, stream: VideoStream, path: Path) -> tuple[str, ...]:
    """Return the crop of the container, in words: none, or one text."""
    size = stated_crop(container, stream, path)
    if size is None:
        return ()
    return (f"the crop of the container, by which some players show {size[0]} x {size[1]} pixels: the video has the whole picture",)


def _mastering(data: bytes) -> tuple[int, ...] | None:
    """Return the numbers of FFmpeg's AVMasteringDisplayMetadata: ten fractions, and two flags that say which of them are stated."""
    numbers = np.frombuffer(data[:88], "<i4").tolist()
    if len(numbers) < 22 or not all(numbers[20:]) or not all(numbers[1:20:2]):
        return None
    fractions = (Fraction(above, below) for above, below in zip(numbers[:20:2], numbers[1:20:2], strict=True))
    mastering = tuple(round(value * scale) for value, scale in zip(fractions, _MASTERING_SCALES, strict=True))
    return mastering if all(0 <= value <= most for value, most in zip(mastering, _MOST_IN_SEI, strict=True)) else None


def _light(data: bytes) -> tuple[int, ...] | None:
    """Return MaxCLL and MaxFALL of FFmpeg's AVContentLightMetadata."""
    levels = tuple(np.frombuffer(data[:8], "<u4").tolist())
    return levels if len(levels) == 2 and any(levels) and max(levels) <= _MOST_LIGHT else None


@dataclass(frozen=True, slots=True)
class _Packets:
    """Times of the video's shown packets.

    Attributes:
        pts: sorted presentation times, ticks; None: the container lacks some of them.
        last_duration: duration of the last packet, ticks.
        count: number of packets, shown or not.
        has_hidden: whether an edit list hides packets.
        lacks_order: whether every packet is shown when it is decoded, by the container.
        is_counted: whether the order of the packets gave the times.
        end: end of the last packet, ticks.
        file_end: end of the last packet of any stream, seconds.
    """

    pts: list[int] | None
    last_duration: int
    count: int
    has_hidden: bool
    lacks_order: bool
    is_counted: bool
    end: int
    file_end: Fraction


def probe(path: Path | str) -> MediaInfo:
    """Return the streams of a video and the time of every frame.

    The whole file is read once (packets, not pictures), so that the number of frames and their times are known before a frame is
    decoded. If the container does not store times, the file is decoded once instead.

    Files from outside go through gateway.media.inspection, which runs this function with bounds on memory and time.

    Raises:
        MediaUnsupportedError: the file is missing, a folder, unreadable or not a video, has no video stream or no frame, is cut
            short, has times that run backwards or a pixel format without planes, or is beyond the bounds of gateway.media.opening.
    """
    path = Path(path)
    facts = picture_facts(path)
    if facts is not None:
        return _picture_info(path, facts)
    with open_input(path) as container:
        stream = video_stream(container, path)
        _refuse_size(path, stream.codec_context.width, stream.codec_context.height)
        parts = parts_of(container, stream, path)
        first = _first_of_file(path, stream.index) if parts else _first_frame(container, stream, path)
        metadata, container_name = dict(container.metadata), container.format.name
        audio = tuple(_audio(item) for item in container.streams.audio if is_decodable(item))
        described = {stream.index, *(item.index for item in audio)}
        others = tuple(
            OtherStream(item.index, COVER if is_cover(item) else item.type, codec_name(item) or "", dict(item.metadata))
            for item in container.streams
            if item.index not in described
        )
        indexed = container.format.name.startswith("mov,")  # AVI declares a number too, which may differ from its frames
        declared = _indexed_packets(stream, parts) if indexed else _edit_units(container, stream)
        index, codec = stream.index, stream.codec_context.codec.canonical_name
        time_base, stream_metadata = stream.time_base or Fraction(1, 1000), dict(stream.metadata)
        promised = _promised_end(container)
        guessed = stream.guessed_rate or stream.average_rate
        reordered = bool(stream.codec_context.has_b_frames)
        aspect, cropped = stream.sample_aspect_ratio, _cropped(container, stream, path)
        # MP4 sums the durations of its frames; with B-frames that of the packet shown last is another frame's.
        whole, samples = stream.duration if indexed and not parts else None, stream.frames
    packets = _scan(path, index, counted=_counts_frames(container_name, codec, reordered), follow_edits=not parts)
    counted = packets.is_counted or (reordered and packets.lacks_order and "mxf" in container_name)
    _refuse_cut_short(path, packets, declared, promised, time_base)
    if counted and packets.pts is not None:
        # The clock of an AVI may be finer than its frames, and a packet then says one tick.
        pts, last_duration = packets.pts, 0
    elif packets.pts is None or first.pts is None:
        pts, last_duration = _decode_times(path, index)
    else:
        # Footage that was cut inside a group of pictures starts with packets that refer to pictures before the cut. These packets
        # cannot be shown.
        pts, last_duration = [value for value in packets.pts if value >= first.pts], packets.last_duration
    times, sources = np.array(pts, np.int64), np.empty(0, np.int64)
    if parts and len(times):
        times, sources, last_duration = _shown(path, times, last_duration, parts, time_base)
    if len(times) == 0:
        raise MediaUnsupportedError(f"{path} has a video stream but not one frame in it", field="video")
    _refuse_equal_times(path, times)
    if whole is not None:
        # The length of what an edit list cuts out of a track includes the time before the first frame.
        trimmed = packets.has_hidden or declared != samples
        shown = whole - int(times[-1]) + (0 if trimmed else int(times[0]))
        last_duration = shown if 0 < shown < _LONGEST_FRAME_S / time_base else last_duration
    if last_duration <= 0:
        last_duration = int(times[-1] - times[-2]) if len(times) > 1 else round(1 / (guessed or Fraction(25)) / time_base)
    span = (int(times[-1]) + last_duration - int(times[0])) * time_base
    _refuse_length(path, times, last_duration, time_base)
    if len(times) > 1 and max(first.width, first.height) > MAX_SIDE:
        raise _too_large(path, first.width, first.height, MAX_SIDE)
    times.setflags(write=False)
    video = VideoInfo(
        index=index,
        codec=codec,
        stored_format=first.format.name,
        pixel=_pixel_format(path, first.format.name),
        orientation=orientation(first.width, first.height, aspect, display_matrix(first)),
        colour=ColourTags(int(first.colorspace), int(first.color_range), int(first.color_primaries), int(first.color_trc)),
        time_base=time_base,
        average_rate=Fraction(len(times)) / span if span > 0 else Fraction(25),
        pts=times,
        last_duration=last_duration,
        field_order=_field_order(first),
        metadata=stream_metadata,
        hdr=hdr_metadata(first),
        unkept=(*_unkept(first), *cropped),
        sources=sources,
        counted=counted,
    )
    return MediaInfo(path, container_name, video, audio, others, metadata)


def _picture_info(path: Path, facts: PictureFacts) -> MediaInfo:
    """Return the description of a picture file: a video of one frame of planar RGB. The picture is decoded, to see whether it is
    whole.
    """
    _refuse_size(path, facts.width, facts.height)
    height, width = read_picture(path).shape[:2]
    pts = np.zeros(1, np.int64)
    pts.setflags(write=False)
    video = VideoInfo(
        index=0,
        codec=facts.codec,
        stored_format="gbrap" if facts.alpha else "gbrp",
        pixel=pixel_format("gbrap" if facts.alpha else "gbrp"),
        orientation=orientation(width, height, None, None),
        colour=ColourTags(matrix=0, color_range=2, primaries=1, transfer=13),
        time_base=_PICTURE_TICK,
        average_rate=1 / _PICTURE_TICK,
        pts=pts,
        last_duration=1,
        field_order="progressive",
        metadata={},
    )
    return MediaInfo(path, PICTURE, video, (), (), {})


def _field_order(first: av.VideoFrame) -> FieldOrder:
    """Return the order of the fields of a frame. The frame says the order more reliably than the stream, but not to PyAV."""
    if not first.interlaced_frame:
        return "progressive"
    chosen = "eq(interlace_type\\,TOPFIRST)"
    graph = filter_graph("select", chosen, (first.width, first.height), first.format, Fraction(1, 25))
    graph.push(first)
    try:
        graph.pull()
    except av.BlockingIOError:
        return "bottom"
    return "top"


def _pixel_format(path: Path, stored: str) -> PixelFormat:
    try:
        return pixel_format(planar_name(stored))
    except MediaUnsupportedError as problem:
        raise MediaUnsupportedError(f"{path}: {problem.message}", field="video") from problem


def _refuse_size(path: Path, width: int, height: int) -> None:
    if max(width, height) > MAX_STILL_SIDE or width * height > MAX_STILL_PIXELS:
        raise _too_large(path, width, height, MAX_STILL_SIDE)
    if 0 < min(width, height) < MIN_SIDE:
        raise MediaUnsupportedError(
            f"{path}: a picture of {width} x {height} pixels is too small, its sides must be at least {MIN_SIDE}", field="video"
        )


def _too_large(path: Path, width: int, height: int, side: int) -> MediaUnsupportedError:
    return MediaUnsupportedError(
        f"{path}: a picture of {width} x {height} pixels is too large, its sides may be {side} at most; "
        "make it smaller (ffmpeg -i IN -vf scale=1920:-2 OUT)",
        field="video",
    )


def _refuse_equal_times(path: Path, times: Int64) -> None:
    if np.any(np.diff(times) <= 0):
        frame = int(np.argmax(np.diff(times) <= 0)) + 1
        raise MediaUnsupportedError(
            f"{path}: frame {frame} has the same time as the one before; write its times anew "
            "(ffmpeg -i IN -vf setpts=N/FRAME_RATE/TB OUT)",
            field="video",
        )


def _refuse_length(path: Path, times: Int64, last_duration: int, time_base: Fraction) -> None:
    """Refuse videos that are too long. A jump in the times would make a video of years, and data per frame or second would fill the
    disk.
    """
    steps = np.append(np.diff(times), last_duration)
    longest = int(np.argmax(steps))
    if int(steps[longest]) * time_base > MAX_FRAME_S:
        raise MediaUnsupportedError(
            f"{path}: frame {longest} is shown for {float(int(steps[longest]) * time_base):.6g} s, at most {MAX_FRAME_S} s are "
            "accepted; write its times anew (ffmpeg -i IN -vf setpts=N/FRAME_RATE/TB OUT)",
            field="video",
        )
    seconds = (int(times[-1]) + last_duration - int(times[0])) * time_base
    if seconds > MAX_VIDEO_S:
        raise MediaUnsupportedError(
            f"{path} is {float(seconds) / 3600:.4g} h long, at most {MAX_VIDEO_S // 3600} h are accepted; cut it into parts",
            field="video",
        )
    if len(times) > MAX_RATE and len(times) > MAX_RATE * seconds:
        raise MediaUnsupportedError(
            f"{path} has {len(times)} frames in {float(seconds):.6g} s, at most {MAX_RATE} frames/s are accepted; "
            "write its times anew (ffmpeg -i IN -vf setpts=N/FRAME_RATE/TB OUT)",
            field="video",
        )


def _nothing_shown(path: Path, frames: int) -> MediaUnsupportedError:
    return MediaUnsupportedError(
        f"{path}: its edit list shows none of its {frames} frames; save it without the list "
        "(ffmpeg -ignore_editlist 1 -i IN -c copy OUT)",
        field="video",
    )


def _too_many_frames(path: Path) -> MediaUnsupportedError:
    return MediaUnsupportedError(f"{path} has more than {MAX_FRAMES} frames; cut it into parts", field="video")


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> av.VideoFrame:
    """Return the first decoded frame. Packets before it that cannot be decoded are skipped: a recording may start in the middle of
    a stream.
    """
    problem: BaseException | None = None
    shown = hidden = 0
    try:
        for packet in container.demux(stream):
            if packet.size and packet.is_discard:
                hidden += 1
            elif packet.size:
                shown += 1
            try:
                for frame in packet.decode():
                    return frame
            except av.FFmpegError as failed:
                problem = failed
    except av.FFmpegError as failed:
        problem = failed
    if problem is not None:
        raise broken_at(path, None, reason_of(problem)) from problem
    if stream.frames and not shown and container.format.name.startswith("mov,") and hidden >= _indexed_packets(stream):
        raise _nothing_shown(path, stream.frames)
    if stream.frames:
        what = "can be decoded" if shown else "are there"
        raise broken_at(path, None, f"it is cut short, 0 of {stream.frames} frames {what}")
    raise MediaUnsupportedError(f"{path} has a video stream but not one frame in it", field="video")


def _counts_frames(container_format: str, codec: str, reordered: bool) -> bool:
    """Return whether the order of packets gives the times of frames: AVI stores frames in the order of decoding, without times.

    Decoders of these codecs take the times of frames from the file, and would give wrong times to frames that are shown in another
    order.

    Args:
        reordered: whether the stream says that frames are shown in another order than they are decoded in.
    """
    return container_format == "avi" and (codec in ("h264", "hevc") or (reordered and codec in ("mpeg4", "mpeg2video")))


def _first_of_file(path: Path, index: int) -> av.VideoFrame:
    """Return the first decoded frame of the file, which the edit list may not show."""
    with open_input(path, follow_edits=False) as container:
        return _first_frame(container, cast(VideoStream, container.streams[index]), path)


class _Shown(NamedTuple):
    """The frames that an edit list shows.

    Attributes:
        pts: int64 [frames], times at which the frames are shown, ticks.
        sources: int64 [frames], times of the frames in the file, ticks.
        last_duration: time that the last frame is shown, ticks.
    """

    pts: Int64
    sources: Int64
    last_duration: int


def _shown(path: Path, times: Int64, last_duration: int, parts: tuple[EditPart, ...], time_base: Fraction) -> _Shown:
    """Return the frames that an edit list shows: the frames that begin in each part.

    Lengths of parts are stored in coarser ticks than times of frames, so a part may end a little before or behind the end of a
    frame. Then the first frame of the next part follows without a gap, and a frame shorter than such a tick is left out.

    Args:
        times: int64 [frames of the file], ascending times of the frames, ticks.
        last_duration: time that the last of them is shown, ticks.
    """
    ends = np.append(times[1:], times[-1] + last_duration)
    frame = int(np.median(ends - times))
    sources, pts, follows = [], [], 0
    for number, part in enumerate(parts):
        slack = max(1, min(math.ceil(part.precision / time_base), frame // 2))
        begins = round(part.shown_at / time_base)
        rounding = max(slack, min(slack * (number + 1) // 2, int(_MOST_ROUNDING_S / time_base)))
        begins = follows if abs(follows - begins) <= rounding else begins
        length = int(ends[-1]) - part.begin if part.length is None else round(part.length / time_base)
        first = int(np.searchsorted(times, part.begin))
        stop = int(np.searchsorted(times, part.begin + length - slack, side="right"))
        if first >= stop:
            continue
        sources.append(times[first:stop])
        pts.append(begins + times[first:stop] - part.begin)
        whole = int(ends[stop - 1]) - part.begin
        follows = begins + (whole if whole <= length + slack else length)
        if sum(map(len, sources)) > MAX_FRAMES:
            raise _too_many_frames(path)
    if not sources:
        raise _nothing_shown(path, len(times))
    shown = np.concatenate(pts)
    return _Shown(shown, np.concatenate(sources), follows - int(shown[-1]))


def _scan(path: Path, index: int, *, counted: bool, follow_edits: bool) -> _Packets:
    """Read the packets of a file.

    Args:
        index: index of the video stream.
        counted: whether the order of the video's packets gives their times.
        follow_edits: whether FFmpeg follows the edit list.
    """
    pts: list[int] | None = []
    last = (-(2**62), 0)
    count, has_hidden, end, file_end = 0, False, -(2**62), Fraction(0)
    keys: list[bool] = []
    lacks_order = True
    with open_input(path, follow_edits=follow_edits) as container:
        time_base = container.streams[index].time_base or Fraction(1)
        try:
            for packet in container.demux():
                if packet.size == 0:
                    continue
                if packet.pts is not None:
                    file_end = max(file_end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream_index != index:
                    continue
                count += 1
                time = packet.dts if counted else packet.pts
                lacks_order &= packet.pts == packet.dts
                if count > MAX_FRAMES:
                    raise _too_many_frames(path)
                if packet.is_discard:
                    has_hidden = True
                    continue
                if time is None:
                    pts = None
                elif pts is not None:
                    pts.append(time)
                    keys.append(bool(packet.is_keyframe))
                    last = max(last, (time, packet.duration or 0))
                    end = max(end, time + (packet.duration or 0))
        except av.FFmpegError as problem:
            raise broken_at(path, max(pts) * time_base if pts else None, reason_of(problem)) from problem
    # Where the order gives the times, packets before the first key frame refer to pictures that are not there.
    begin = keys.index(True) if counted and True in keys else 0
    shown = None if pts is None else sorted(pts[begin:])
    return _Packets(shown, last[1], count, has_hidden, lacks_order, counted, end, file_end)


def _indexed_packets(stream: VideoStream, parts: tuple[EditPart, ...] = ()) -> int:
    """Return the number of packets in the index of an MP4 file, 0: there is no index, as in fragmented files.

    FFmpeg's index follows the edit list. So the index leaves samples out that the edit list does not show, and repeats samples that
    the edit list shows twice. The sample tables still have all samples (`stream.frames`), which are read if the list is followed
    here.
    """
    return len(stream.index_entries) if stream.frames and not parts else stream.frames


def _edit_units(container: InputContainer, stream: VideoStream) -> int:
    """Return the number of frames that the header of MXF promises, if its edit units are frames; otherwise 0."""
    frames = "mxf" in container.format.name and stream.time_base and stream.time_base * (stream.average_rate or 0) == 1
    return (stream.duration or 0) if frames else 0


def _promised_end(container: InputContainer) -> Fraction | None:
    """Return the end of the file according to its header, seconds; None: the header does not say.

    Only Matroska needs this function. MP4 has an index of every frame, and FFmpeg estimates the length of MPEG and AVI files.
    """
    return Fraction(container.duration, 1_000_000) if "matroska" in container.format.name and container.duration else None


def _refuse_cut_short(path: Path, packets: _Packets, declared: int, promised: Fraction | None, time_base: Fraction) -> None:
    if declared and packets.count < declared:
        seconds = packets.end * time_base if packets.pts else None
        raise broken_at(path, seconds, f"it is cut short, {packets.count} of {declared} frames are there")
    if promised is not None and packets.file_end < promised - _SHORTFALL_S:
        raise broken_at(path, packets.file_end, f"it is cut short, its header promises {float(promised):.3f} s")


def _decode_times(path: Path, index: int) -> tuple[list[int], int]:
    """Return the times of all frames, as the decoder gives them, of a container that stores no times, and the last frame's
    duration.
    """
    pts: list[int] = []
    duration = 0
    with open_input(path) as container:
        stream = container.streams.video[0] if index == 0 else container.streams[index]
        assert isinstance(stream, VideoStream)
        try:
            for frame in container.decode(stream):
                duration = frame.duration or duration
                if len(pts) == MAX_FRAMES:
                    raise _too_many_frames(path)
                pts.append(frame.pts if frame.pts is not None else (pts[-1] + duration if pts else 0))
        except av.FFmpegError as problem:
            raise broken_at(path, pts[-1] * (stream.time_base or Fraction(1)) if pts else None, reason_of(problem)) from problem
    return pts, duration


def _audio(stream: av.AudioStream) -> AudioInfo:
    start = Fraction(0) if stream.start_time is None else stream.start_time * (stream.time_base or Fraction(1))
    context = stream.codec_context
    return AudioInfo(
        stream.index,
        context.name,
        context.sample_rate,
        context.layout.nb_channels,
        context.layout.name,
        start,
        dict(stream.metadata),
    )
