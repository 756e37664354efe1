"""The open output: encodes pictures and new speech, and muxes them with the streams that are carried over, in the order of time.

The pictures are encoded while the video is dubbed, and wait in temporary files (`PacketSpool`): FFmpeg's muxer of MP4 holds 64
bytes of memory for each packet until the video's end, 35 MB for the picture and the sound of two hours. The video is muxed in the
end, when the memory that the dub took is free again.

The footage's other streams are copied packet by packet: subtitles, data, more sound, cover picture, attachments.
"""

from __future__ import annotations

import io
import math
import re
import struct
import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags as CodecFlags
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from gateway.media.encoders import EncoderChoice, WriteSettings, colour_for, usual_priority
from gateway.media.mp4 import BUFFER_BYTES, PaddedFile
from gateway.media.opening import codec_name, open_input, parts_of
from gateway.media.pixels import filter_graph
from gateway.media.sound import SoundReader, Speech
from gateway.media.types import MediaInfo, VideoInfo
from gateway.media.voice import with_usual_channels
from services.common.array_types import Bool, Float32, Int64, UInt8
from services.common.errors import ContractBrokenError, InvalidRequestError

if TYPE_CHECKING:
    from av.container.core import Chapter

SOURCE_TYPE_TAG: Final = "DIGITAL_SOURCE_TYPE"
"""Tag with the digital source type of a video, an address of a term of IPTC."""
_TECHNICAL: Final = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id", "duration", "number_of_frames",
    "number_of_bytes", "bps", "operational_pattern_ul", "uid", "generation_uid", "product_uid", "product_version",
    "product_version_num", "toolkit_version_num", "application_platform", "company_name", "product_name",
    "material_package_umid", "file_package_umid", "reel_umid", "modification_date",
}  # fmt: skip
"""Names of tags that describe the old file, and not the video."""
_MOST_UNTIMED: Final = 16
"""Most pictures of a stream that are decoded before the first one is shown (H.264, HEVC)."""
_HEAD: Final = struct.Struct("<qqqIII?")
_LARGEST_FILE: Final = 1 << 30
_LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_LAYOUTS_OF_MP4: Final = {**_LAYOUTS, 3: "2.1", 4: "4.0", 5: "5.0", 7: "6.1"}
"""Layouts that players assume of sound without a layout, by the number of channels. MP4 takes no sound without a layout."""
_AAC_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_BIT_RATE_PER_CHANNEL: Final = 128_000
_PIECE: Final = 4096
_MOST_TICKS: Final = 1 << 31
_QSCALE_2: Final = 2 * 118
"""FFmpeg's quality number for quantiser 2, MPEG-2 at its best useful quality."""


def carried_tags(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags of a file or stream that belong to the video, without tags that a muxer wrote about its own file."""
    return {key: value for key, value in tags.items() if key.lower() not in _TECHNICAL and not key.startswith("_STATISTICS")}


class CarriedStreams:
    """Copies packets of the footage's other streams into an output. Each call copies up to a given time, so that memory stays
    bounded.

    Attributes:
        carried: streams that are copied, in words.
        dropped: sentences about streams that are not carried, or not exactly.
    """

    def __init__(
        self, info: MediaInfo, output: OutputContainer, container_format: str, *, skip: frozenset[int], shift: Fraction
    ) -> None:
        """Add the streams to an output.

        Args:
            output: the open output.
            container_format: FFmpeg's name of the muxer.
            skip: indices of streams that are not carried.
            shift: seconds that are added to all times.
        """
        self._path, self._shift = info.path, shift
        self._hides = container_format in ("mp4", "mov")
        self._pairs: dict[int, Stream] = {}
        self._begun: set[int] = set()
        self._pending: Packet[Stream] | None = None
        self.carried: list[str] = []
        self.dropped: list[str] = []
        with open_input(info.path) as source:
            chapters = source.chapters()
            for stream in source.streams:
                if stream.index in skip or _written_by_the_muxer(stream, bool(chapters)):
                    continue
                words = f"{stream.type} stream {stream.index} ({codec_name(stream) or 'of an unknown codec'})"
                if not _muxes(stream, container_format):
                    self.dropped.append(f"{words} of the footage is not carried over")
                    continue
                self._pairs[stream.index] = _add(stream, output)
                self.carried.append(words)
                if stream.type == "audio" and parts_of(source, stream, info.path):
                    self.dropped.append(f"{words} is cut between packets: behind the cuts of the edit list it may be 0.03 s off")
        if chapters:
            output.set_chapters([_shifted(chapter, shift) for chapter in chapters])
        self._packets = self._demuxed()  # opens the footage with the first packet that is asked for

    def copy_until(self, output: OutputContainer, time: Fraction | None) -> None:
        """Mux every packet before `time`, seconds of the footage; None: all remaining packets."""
        while True:
            packet = self._pending or next(self._packets, None)
            self._pending = None
            if packet is None:
                return
            if packet.size == 0 or packet.dts is None or _is_blank(packet) or self._is_cut_off(packet):
                continue
            if time is not None and packet.dts * packet.time_base > time:
                self._pending = packet
                return
            packet.stream = self._pairs[packet.stream_index]
            if self._shift:
                ticks = round(self._shift / packet.time_base)
                packet.dts += ticks
                packet.pts = None if packet.pts is None else packet.pts + ticks
                if self._is_before(packet):
                    continue
            output.mux_one(packet)

    def _is_before(self, packet: Packet[Stream]) -> bool:
        """Return whether a packet that was moved comes before the first frame.

        MP4 hides the part of a packet before 0. Matroska and NUT would delay the first frame instead. Pictures before 0 may be
        needed to decode later pictures.
        """
        if self._hides and packet.stream.type == "video":
            return False
        begin = packet.dts if packet.pts is None else packet.pts
        assert begin is not None
        return begin + (packet.duration or 0) <= 0 if self._hides else begin < 0

    def _is_cut_off(self, packet: Packet[Stream]) -> bool:
        """Return whether the edit list of MP4 shows nothing of a packet behind the stream's beginning.

        Where the edit list jumps, such packets have times of the packets around them. At the beginning, such packets prepare the
        decoder, and have times before 0.
        """
        if not packet.is_discard:
            self._begun.add(packet.stream_index)
        return packet.is_discard and packet.stream_index in self._begun

    def _demuxed(self) -> Generator[Packet[Stream]]:
        if not self._pairs:
            return
        with open_input(self._path) as source:
            yield from _timed(source.demux(*(source.streams[index] for index in self._pairs)))

    def close(self) -> None:
        """Close the footage."""
        self._pending = None
        self._packets.close()


def _timed(packets: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """Yield packets with times of decoding. Matroska stores none, and FFmpeg finds none for the first pictures of a video with
    B-frames: these pictures are decoded before the first picture with such a time, one after the other.
    """
    untimed: dict[int, list[Packet[Stream]]] = {}
    for packet in packets:
        held = untimed.setdefault(packet.stream_index, [])
        if packet.dts is None and packet.pts is not None and packet.size and len(held) < _MOST_UNTIMED:
            held.append(packet)
            continue
        for ahead, early in zip(range(len(held), 0, -1), held if packet.dts is not None else (), strict=False):
            early.dts = (packet.dts or 0) - ahead * (packet.duration or 1)
            yield early
        held.clear()
        yield packet


def _shifted(chapter: Chapter, shift: Fraction) -> Chapter:
    ticks = round(shift / (chapter["time_base"] or Fraction(1)))
    moved = chapter.copy()
    moved["start"], moved["end"] = max(0, chapter["start"] + ticks), max(0, chapter["end"] + ticks)
    return moved


def can_be_copied(path: Path, index: int, container_format: str) -> bool:
    """Return whether stream `index` of a file can be copied into a container without encoding, and without cuts inside packets."""
    with open_input(path) as source:
        stream = source.streams[index]
        return _muxes(stream, container_format) and not parts_of(source, stream, path)


def _written_by_the_muxer(stream: Stream, has_chapters: bool) -> bool:
    """Return whether a stream is a timecode or chapter track of MP4 or MOV, which the muxer makes from the `timecode` tag and the
    chapters.
    """
    if stream.type != "data":
        return False
    return "timecode" in stream.metadata or (has_chapters and codec_name(stream) in ("bin_data", None))


def _is_blank(packet: Packet[Stream]) -> bool:
    """Return whether a packet is a pause between the subtitles of MP4. The muxer of MP4 adds such pauses on its own."""
    return codec_name(packet.stream) == "mov_text" and bytes(packet) == b"\0\0"


def _add(stream: Stream, output: OutputContainer) -> Stream:
    added = output.add_stream_from_template(stream, opaque=True)
    for key in list(added.metadata):
        del added.metadata[key]
    added.metadata.update(carried_tags(dict(stream.metadata)))
    added.disposition = stream.disposition
    if _lacks_layout(added):
        layouts = _LAYOUTS_OF_MP4 if output.format.name == "mp4" else _LAYOUTS
        context = cast(AudioStream, added).codec_context
        context.layout = layouts.get(context.layout.nb_channels, context.layout.name)
    return added


def _lacks_layout(stream: Stream) -> bool:
    return isinstance(stream, AudioStream) and re.fullmatch(r"\d+ channels?", stream.layout.name) is not None


def _muxes(stream: Stream, container_format: str) -> bool:
    """Return whether the container takes a stream without encoding. Only the muxer knows, so a header is written to memory."""
    if stream.type == "unknown" or (container_format == "mxf" and not _mxf_sound(stream)):
        return False
    if container_format == "mxf":
        return True  # the muxer refuses a header without a picture, so a trial is not possible
    try:
        with av.open(io.BytesIO(), "w", format=container_format) as trial:
            if _lacks_layout(_add(stream, trial)) and container_format == "mp4":
                return False  # the muxer says so only in its trailer, after all frames
            trial.start_encoding()
    except (av.FFmpegError, ValueError, OSError):
        return False
    return True


def _mxf_sound(stream: Stream) -> bool:
    return (
        isinstance(stream, av.AudioStream)
        and stream.codec_context.name in ("pcm_s16le", "pcm_s24le")
        and stream.codec_context.sample_rate == 48000
    )


class PacketSpool:
    """Packets of one video stream, which are read in the order in which they were put in.

    The files have no name, so that nothing is left of them when the process is killed. A file goes when its packets were read.
    """

    def __init__(self, folder: Path, *, largest_file: int = _LARGEST_FILE) -> None:
        """Begin without a file.

        Args:
            folder: folder of the temporary files.
            largest_file: size of a file from which the next packet goes to another file, bytes.
        """
        self._folder, self._largest_file = folder, largest_file
        self._files: deque[IO[bytes]] = deque()

    def put(self, packet: Packet[Any]) -> None:
        """Keep the bytes of a packet, its times, and whether the packet is a key frame. Side data are not kept.

        Raises:
            OSError: the disk is full, or the folder is gone.
        """
        if not self._files or self._files[-1].tell() >= self._largest_file:
            self._files.append(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed when read, or by `close`
        assert packet.pts is not None
        assert packet.dts is not None
        ticks, times = packet.time_base, (packet.pts, packet.dts, packet.duration or 0)
        self._files[-1].write(_HEAD.pack(*times, ticks.numerator, ticks.denominator, packet.size, packet.is_keyframe))
        self._files[-1].write(packet)

    def packets(self) -> Iterator[Packet[Stream]]:
        """Yield the packets, without their stream.

        Raises:
            OSError: a file cannot be written to its end, or read.
        """
        while self._files:
            with self._files[0] as file:
                file.seek(0)
                while head := file.read(_HEAD.size):
                    pts, dts, duration, numerator, denominator, size, is_keyframe = _HEAD.unpack(head)
                    packet = Packet(file.read(size))
                    packet.pts, packet.dts, packet.duration = pts, dts, duration
                    packet.time_base, packet.is_keyframe = Fraction(numerator, denominator), is_keyframe
                    yield packet
            self._files.popleft()

    def close(self) -> None:
        """Give all files back to the disk."""
        while self._files:
            with suppress(OSError):  # the end of a file on a full disk is still waiting to be written
                self._files.popleft().close()


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    """Encoded frames that need no other frames: they begin with a key frame, and an encoder of their own has made them.

    Attributes:
        data: uint8, bytes of all packets in the order of decoding.
        sizes: int64 [N], bytes of each packet.
        pts: int64 [N], times of the packets, ticks of the video.
        keys: bool [N], whether a packet is a key frame.
    """

    data: UInt8
    sizes: Int64
    pts: Int64
    keys: Bool

    @property
    def reordering(self) -> int:
        """Frames that have to be decoded ahead of their turn."""
        return int((np.arange(len(self.pts)) - np.argsort(np.argsort(self.pts))).max(initial=0))


class SpeechTrack:
    """A sound track of an output with new speech, which is cut at the video's end or followed by silence until then."""

    def __init__(
        self,
        speech: Speech,
        codec: str,
        output: OutputContainer,
        *,
        duration: Fraction,
        language: str | None,
    ) -> None:
        """Add the track to an output.

        Args:
            codec: FFmpeg's name of the encoder.
            output: the open output.
            duration: length of the video, seconds.
            language: language tag of the track; None: no tag.

        Raises:
            InvalidRequestError: the speech has no channel, or a sample rate that is not positive.
            MediaUnsupportedError: speech without a usual layout cannot be read.
        """
        if speech.channels < 1 or speech.sample_rate_hz < 1:
            raise InvalidRequestError(
                f"speech of {speech.channels} channels at {speech.sample_rate_hz} Hz cannot be written", field="audio"
            )
        self._speech = speech = with_usual_channels(speech)
        self._rate = _output_rate(codec, speech.sample_rate_hz, output.format.name)
        stream = output.add_stream(codec, rate=self._rate)
        assert isinstance(stream, av.AudioStream)
        self._stream: av.AudioStream = stream
        context = stream.codec_context
        context.layout = _LAYOUTS[speech.channels]
        context.format = {"aac": "fltp", "flac": "s32", "pcm_s16le": "s16", "pcm_s24le": "s32"}[codec]
        context.time_base = Fraction(1, self._rate)
        if codec == "aac":
            context.bit_rate = _BIT_RATE_PER_CHANNEL * speech.channels
        if language:
            self._stream.metadata["language"] = language
        self._resampler = av.AudioResampler(format=context.format, layout=context.layout, rate=self._rate)
        self._position, self._end = 0, round(duration * speech.sample_rate_hz)
        self._written = 0
        self._pieces = self._cut(iter(speech.chunks))

    def _cut(self, chunks: Iterator[Float32]) -> Iterator[Float32]:
        """Yield the speech in pieces of bounded length up to the video's end, and silence after the speech."""
        left = self._end
        for chunk in chunks:
            if chunk.ndim != 2 or chunk.shape[1] != self._speech.channels:
                raise InvalidRequestError(
                    f"speech has shape {chunk.shape}, expected [samples, {self._speech.channels}]", field="audio"
                )
            for offset in range(0, min(len(chunk), left), _PIECE):
                piece = chunk[offset : offset + min(_PIECE, left - offset)]
                yield piece
            left -= min(len(chunk), left)
            if left == 0:
                return
        while left:
            piece = np.zeros((min(_PIECE, left), self._speech.channels), np.float32)
            left -= len(piece)
            yield piece

    def encode_until(self, output: OutputContainer, time: Fraction | None) -> None:
        """Mux sound up to `time`, seconds of the output; None: all remaining sound, and what the encoder still holds."""
        while time is None or Fraction(self._position, self._speech.sample_rate_hz) <= time:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._position += len(piece)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(_finite(piece).reshape(1, -1)), "flt", _LAYOUTS[self._speech.channels]
            )
            frame.sample_rate = self._speech.sample_rate_hz
            for ready in self._resampler.resample(frame):
                self._encode(output, ready)
        if time is None:
            for ready in self._resampler.resample(None):
                self._encode(output, ready)
            output.mux(self._stream.encode(None))

    def _encode(self, output: OutputContainer, frame: av.AudioFrame) -> None:
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._written += frame.samples
        output.mux(self._stream.encode(frame))


def _finite(piece: Float32) -> Float32:
    return np.clip(np.nan_to_num(piece), -1.0, 1.0).astype(np.float32)


def _output_rate(codec: str, rate: int, container: str) -> int:
    if "mxf" in container:
        return 48000  # the only rate of MXF
    if codec == "aac":
        return min(_AAC_RATES, key=lambda candidate: (candidate < rate, abs(candidate - rate)))
    return rate


def _movie_ticks(info: MediaInfo, speech: Speech | None, ticks: int) -> int:
    """Return the ticks per second in which MP4 stores the start of every track. Frame times and samples of sound are whole numbers
    of ticks.
    """
    rates = [track.sample_rate_hz for track in info.audio] + ([speech.sample_rate_hz] if speech else [])
    for rate in rates:
        common = math.lcm(ticks, rate)
        ticks = common if common < _MOST_TICKS else ticks
    return ticks


def _clock_label(info: MediaInfo) -> str:
    """Return the timecode of footage whose clock begins a second or more after 0, which the output's clock does not: that of the
    first frame. Empty: the footage has a timecode of its own, or no constant rate.
    """
    tag_sets = (info.video.metadata, info.metadata, *(other.metadata for other in info.others))
    stated = any(key.lower() == "timecode" for tags in tag_sets for key in tags)
    video = info.video
    rate, start = video.constant_rate, video.start - video.begin
    if stated or rate is None or start < 1:
        return ""
    seconds = int(start)
    label = _timecode(seconds, ":", int((start - seconds) * rate))
    return _timecode_after(label, len(video.before), rate) if len(video.before) else label


def _tags_at_begin(video: VideoInfo, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a file or stream that belong to a video. The timecode of a span is that of its first frame."""
    carried = carried_tags(dict(tags))
    if not len(video.before):
        return carried
    stated = {key: value for key, value in carried.items() if key.lower() == "timecode"}
    later = {key: _timecode_after(value, len(video.before), video.constant_rate) for key, value in stated.items()}
    return {key: later.get(key, value) for key, value in carried.items() if later.get(key, value)}


def _timecode_after(timecode: str, frames: int, rate: Fraction | None) -> str:
    """Return the timecode that comes a number of frames after a timecode (SMPTE ST 12-1); empty: not known.

    Args:
        timecode: HH:MM:SS:FF, or HH:MM:SS;FF for drop-frame.
        rate: frames per second; None: the rate varies.
    """
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)", timecode, re.ASCII)
    if match is None or rate is None:
        return ""
    hours, minutes, seconds, frame = (int(match[group]) for group in (1, 2, 3, 5))
    nominal, minutes = round(rate), 60 * hours + minutes
    # Drop-frame timecodes leave out two numbers a minute at 29.97 frames per second, but for every tenth minute.
    left_out = nominal // 15 if match[4] != ":" else 0
    number = (60 * minutes + seconds) * nominal + frame - left_out * (minutes - minutes // 10) + frames
    minute = 60 * nominal - left_out
    tens, rest = divmod(number, 10 * minute + left_out)
    number += left_out * (9 * tens + max(0, (rest - left_out) // minute))
    seconds, frame = divmod(number, nominal)
    return _timecode(seconds, match[4], frame)


def _timecode(seconds: int, sign: str, frame: int) -> str:
    """Return HH:MM:SS, the sign before the frames, and the number of the frame within its second. A day is 24 hours."""
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{sign}{frame:02}"


class _SegmentEncoder:
    """Encodes the frames of one segment.

    Args:
        context: an open encoder of the segment's own.
        time_base: ticks of the video.
    """

    def __init__(self, context: VideoCodecContext, time_base: Fraction) -> None:
        self._context, self._time_base = context, time_base
        self._packets: list[tuple[bytes, int, bool]] = []

    def encode(self, picture: av.VideoFrame | None) -> None:
        """Encode the next picture; None: what the encoder still holds."""
        for packet in self._context.encode(picture):
            assert packet.pts is not None
            scale = packet.time_base / self._time_base
            self._packets.append((bytes(packet), int(packet.pts * scale), packet.is_keyframe))

    def finish(self) -> EncodedSegment:
        """Return the segment."""
        self.encode(None)
        contents, pts, keys = zip(*self._packets, strict=True)
        return EncodedSegment(
            np.frombuffer(b"".join(contents), np.uint8),
            np.array([len(content) for content in contents], np.int64),
            np.array(pts, np.int64),
            np.array(keys, np.bool_),
        )


def _fields(video: VideoInfo, choice: EncoderChoice) -> av.filter.Graph:
    """Return what says of pictures that they are interlaced, and in which order. Encoders read this from each picture."""
    order = {"top": "tff", "bottom": "bff"}[video.field_order]
    return filter_graph("setfield", order, (video.width, video.height), av.VideoFormat(choice.pixel_format), choice.time_base)


class VideoMuxer:
    """The output container, from the header to the trailer."""

    def __init__(
        self,
        target: str | PaddedFile,
        info: MediaInfo,
        speech: Speech | None,
        settings: WriteSettings,
        choice: EncoderChoice,
        *,
        folder: Path,
        segmented: bool = False,
    ) -> None:
        """Open an output and write its header.

        Args:
            target: what FFmpeg writes to, as `OutputFile.target` returns it.
            speech: new speech; None: there is none.
            settings: how the video is written.
            folder: folder of temporary files.
            segmented: whether the pictures are encoded in segments (`end_segment`).

        Raises:
            av.FFmpegError, OSError: the file cannot be written, or the container refuses its streams.
        """
        self._info, self._settings, self._choice = info, settings, choice
        options = {"fflags": "+bitexact"}  # no random identifiers: equal jobs give equal bytes
        if choice.container in ("mp4", "mov"):
            # Without both, times are rounded to other ticks.
            ticks = choice.time_base.denominator
            options |= {"movie_timescale": str(_movie_ticks(info, speech, ticks)), "video_track_timescale": str(ticks)}
        container = av.open(target, "w", format=choice.container, container_options=options, buffer_size=BUFFER_BYTES)
        assert isinstance(container, OutputContainer)
        self._container = container
        self._pictures = PacketSpool(folder)
        self._segmented = segmented
        self._segment: _SegmentEncoder | None = None
        self._colour = colour_for(choice, info.video)
        self._fields = _fields(info.video, choice) if info.video.interlaced else None
        self._reordering = 0
        self._shift = -info.video.start  # the first frame of the output is shown at 0
        self._carried: CarriedStreams | None = None
        try:
            self._stream = self._video_stream()
            self._speech, replaced = self._sound(speech)
            container.metadata.update(self._tags())
            skip = frozenset({info.video.index} | replaced)
            if settings.carry:
                self._carried = CarriedStreams(info, container, choice.container, skip=skip, shift=self._shift)
            with usual_priority():
                container.start_encoding()
        except BaseException:
            self.abandon()
            raise

    @property
    def carried(self) -> tuple[str, ...]:
        """Streams that are copied, in words."""
        return tuple(self._carried.carried) if self._carried is not None else ()

    @property
    def dropped(self) -> tuple[str, ...]:
        """Metadata that no encoder gets, in words, and sentences about streams that are not carried."""
        return (*self._info.video.unkept, *self._carried.dropped) if self._carried is not None else ()

    def encode(self, picture: av.VideoFrame) -> None:
        """Encode the next picture."""
        if self._fields is not None:
            self._fields.push(picture)
            picture = cast(av.VideoFrame, self._fields.pull())
        if self._segmented:
            self._segment = self._segment or _SegmentEncoder(self._segment_context(), self._choice.time_base)
            self._segment.encode(picture)
            return
        if self._choice.codec == "prores":
            # This encoder takes the tags of each picture, and no other encoder changes tags.
            picture.colorspace, picture.color_trc = self._colour.matrix, self._colour.transfer
        for packet in self._stream.encode(picture):
            self._pictures.put(packet)

    @property
    def parameters(self) -> bytes:
        """Parameter sets of the encoder, which all pictures share."""
        return bytes(self._stream.codec_context.extradata or b"")

    def end_segment(self) -> EncodedSegment:
        """Return the segment of the pictures since the last segment, which is part of the video now.

        Raises:
            ContractBrokenError: there is no such picture.
        """
        if self._segment is None:
            raise ContractBrokenError("a segment has one picture or more")
        segment, self._segment = self._segment.finish(), None
        self.take(segment)
        return segment

    def take(self, segment: EncodedSegment) -> None:
        """Append a segment that this muxer, or one with the same parameter sets, has encoded."""
        self._reordering = max(self._reordering, segment.reordering)
        begin = 0
        for size, pts, key in zip(segment.sizes, segment.pts, segment.keys, strict=True):
            packet = Packet(segment.data[begin : begin + int(size)].tobytes())
            begin += int(size)
            packet.pts = packet.dts = int(pts)
            packet.is_keyframe, packet.time_base = bool(key), self._choice.time_base
            self._pictures.put(packet)

    def _segment_context(self) -> VideoCodecContext:
        context = av.CodecContext.create(self._choice.encoder, "w")
        assert isinstance(context, VideoCodecContext)
        own = self._stream.codec_context
        context.framerate, context.bit_rate, context.options = own.framerate, 0, dict(self._choice.options)
        self._configure(context)
        context.flags |= own.flags & CodecFlags.global_header
        with usual_priority():
            context.open()
        if context.extradata != own.extradata:
            raise ContractBrokenError("two encoders with the same settings have other parameter sets")
        return context

    def _packets(self) -> Iterator[Packet[Stream]]:
        """Yield the packets of all pictures. Those of segments get their durations and their times of decoding."""
        pts, ahead = self._info.video.pts - self._info.video.pts[0], self._reordering
        durations = np.append(np.diff(pts), self._info.video.last_duration)
        for number, packet in enumerate(self._pictures.packets()):
            if self._segmented:
                packet.duration = int(durations[np.searchsorted(pts, packet.pts or 0)])
                packet.dts = int(pts[number - ahead]) if number >= ahead else int(pts[number] - pts[ahead])
            yield packet

    def finish(self) -> None:
        """Encode what the encoder still holds, mux pictures, speech and carried streams, and write the trailer."""
        if self._segment is not None:
            raise ContractBrokenError("the last segment has not ended")
        for packet in self._stream.encode(None) if not self._segmented else ():
            self._pictures.put(packet)
        for packet in self._packets():
            assert packet.dts is not None
            packet.stream, time = self._stream, packet.dts * packet.time_base
            self._container.mux_one(packet)
            self._others_until(time)
        self._others_until(None)
        self._container.close()
        self._close()

    def abandon(self) -> None:
        """Close the output without regard for the video."""
        with suppress(Exception):  # writing the trailer may fail as writing the frames did
            self._container.close()
        self._close()

    def _others_until(self, time: Fraction | None) -> None:
        """Mux carried streams and speech up to `time`, seconds of the output; None: to their ends."""
        if self._carried is not None:
            self._carried.copy_until(self._container, None if time is None else time - self._shift)
        if self._speech is not None:
            self._speech.encode_until(self._container, time)

    def _close(self) -> None:
        self._pictures.close()
        if self._carried is not None:
            self._carried.close()

    def _video_stream(self) -> VideoStream:
        video, choice = self._info.video, self._choice
        # Without a rate the last frame's duration is lost.
        rate = video.constant_rate or video.average_rate.limit_denominator(60000)
        stream = self._container.add_stream(choice.encoder, rate=rate, options=dict(choice.options))
        assert isinstance(stream, VideoStream)
        stream.time_base = choice.time_base
        self._configure(stream.codec_context)
        stream.metadata.update(_tags_at_begin(video, video.metadata))
        if label := _clock_label(self._info):
            stream.metadata["timecode"] = label
        if video.orientation.display_matrix is not None:
            stream.set_display_matrix(video.orientation.display_matrix)
        return stream

    def _configure(self, context: VideoCodecContext) -> None:
        """Set all that the footage and the settings say of an encoder, apart from its rate and its private options."""
        video, choice = self._info.video, self._choice
        context.width, context.height, context.pix_fmt = video.width, video.height, choice.pixel_format
        context.time_base = choice.encoder_time_base
        context.thread_count = self._settings.threads
        context.flags |= CodecFlags.frame_duration
        if choice.codec == "mpeg2video":
            context.qscale, context.global_quality = True, _QSCALE_2
        if choice.codec == "hevc" and choice.container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players need this tag
        colour = self._colour
        context.colorspace, context.color_primaries = colour.matrix, colour.primaries
        context.color_trc = colour.transfer
        context.color_range = 2 if video.pixel.full_range_name else colour.color_range
        if video.orientation.sample_aspect != 1:
            context.sample_aspect_ratio = video.orientation.sample_aspect
        if video.interlaced:
            context.flags |= CodecFlags.interlaced_dct | CodecFlags.interlaced_me
            context.field_order = {"top": 2, "bottom": 3}[video.field_order]  # of FFmpeg's AVFieldOrder

    def _sound(self, speech: Speech | None) -> tuple[SpeechTrack | None, set[int]]:
        """Return the encoder of new sound, and the streams of the footage that the new sound replaces.

        None is returned if no sound is encoded.
        """
        info, choice = self._info, self._choice
        own = info.audio[0] if info.audio else None
        if self._settings.keep_audio or (speech is None and self._settings.carry):
            # The packets are copied. Sound that the container does not hold is encoded anew.
            copied = own is None or can_be_copied(info.path, own.index, choice.container)
            speech = None if copied else SoundReader(info.path, origin=info.video.start).speech()
        if speech is None:
            return None, set()
        language = own.metadata.get("language") if own else None
        encoder = SpeechTrack(speech, choice.sound_codec, self._container, duration=info.video.duration, language=language)
        return encoder, {own.index} if own else set()

    def _tags(self) -> dict[str, str]:
        tags = _tags_at_begin(self._info.video, self._info.metadata)
        if self._settings.source_type:
            tags = {key: value for key, value in tags.items() if key.upper() != SOURCE_TYPE_TAG}
            tags[SOURCE_TYPE_TAG] = self._settings.source_type
        if self._settings.marking:
            old = next((value for key, value in tags.items() if key.lower() == "comment"), "")
            tags = {key: value for key, value in tags.items() if key.lower() != "comment"}
            tags["comment"] = f"{self._settings.marking} | {old}" if old else self._settings.marking
        return tags
