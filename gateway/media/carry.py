"""Copies the footage's other streams to the output, packet by packet: subtitles, data, more sound, cover picture, attachments."""

from __future__ import annotations

import io
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from gateway.media.opening import open_input
from gateway.media.types import MediaInfo

_TECHNICAL: Final = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id", "duration", "number_of_frames",
    "number_of_bytes", "bps", "operational_pattern_ul", "uid", "generation_uid", "product_uid", "product_version",
    "product_version_num", "toolkit_version_num", "application_platform", "company_name", "product_name",
    "material_package_umid", "file_package_umid", "reel_umid", "modification_date",
}  # fmt: skip
"""Names of tags that describe the old file, and not the film."""


def carried_tags(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags of a file or stream that belong to the film, without tags that a muxer wrote about its own file."""
    return {key: value for key, value in tags.items() if key.lower() not in _TECHNICAL and not key.startswith("_STATISTICS")}


class CarriedStreams:
    """Copies packets of the footage's other streams into an output. Each call copies up to a given time, so that memory stays
    bounded.

    Attributes:
        carried: streams that are copied, in words.
        dropped: streams that the container does not hold, in words.
    """

    def __init__(
        self, info: MediaInfo, output: OutputContainer, container_format: str, *, skip: frozenset[int], shift: Fraction
    ) -> None:
        """Add the streams to an output.

        Args:
            info: the footage.
            output: the open output.
            container_format: FFmpeg's name of the muxer.
            skip: indices of streams that are not carried.
            shift: seconds that are added to all times.
        """
        self._path, self._shift = info.path, shift
        self._pairs: dict[int, Stream] = {}
        self._pending: Packet[Stream] | None = None
        self.carried: list[str] = []
        self.dropped: list[str] = []
        with open_input(info.path) as source:
            chapters = source.chapters()
            for stream in source.streams:
                words = f"{stream.type} stream {stream.index} ({stream.name or 'no codec'})"
                if stream.index in skip or _written_by_the_muxer(stream, bool(chapters)):
                    continue
                if not _muxes(stream, container_format):
                    self.dropped.append(words)
                    continue
                self._pairs[stream.index] = _add(stream, output)
                self.carried.append(words)
        if chapters:
            output.set_chapters(chapters)
        self._packets = self._demuxed()  # opens the footage with the first packet that is asked for

    def copy_until(self, output: OutputContainer, time: Fraction | None) -> None:
        """Mux every packet before `time`, seconds of the footage; None: all remaining packets."""
        while True:
            packet = self._pending or next(self._packets, None)
            self._pending = None
            if packet is None:
                return
            if packet.size == 0 or packet.dts is None or _is_blank(packet):
                continue
            if time is not None and packet.dts * packet.time_base > time:
                self._pending = packet
                return
            packet.stream = self._pairs[packet.stream_index]
            if self._shift:
                ticks = round(self._shift / packet.time_base)
                packet.dts += ticks
                packet.pts = None if packet.pts is None else packet.pts + ticks
            output.mux_one(packet)

    def _demuxed(self) -> Generator[Packet[Stream]]:
        if not self._pairs:
            return
        with open_input(self._path) as source:
            yield from source.demux(*(source.streams[index] for index in self._pairs))

    def close(self) -> None:
        """Close the footage."""
        self._pending = None
        self._packets.close()


def can_be_copied(path: Path, index: int, container_format: str) -> bool:
    """Return whether stream `index` of a file can be copied into a container without encoding."""
    with open_input(path) as source:
        return _muxes(source.streams[index], container_format)


def _written_by_the_muxer(stream: Stream, has_chapters: bool) -> bool:
    """Return whether a stream is a timecode or chapter track of MP4 or MOV, which the muxer makes from the `timecode` tag and the
    chapters.
    """
    if stream.type != "data":
        return False
    return "timecode" in stream.metadata or (has_chapters and stream.name in ("bin_data", None))


def _is_blank(packet: Packet[Stream]) -> bool:
    """Return whether a packet is a pause between the subtitles of MP4. The muxer of MP4 adds such pauses on its own."""
    return packet.stream.name == "mov_text" and bytes(packet) == b"\0\0"


def _add(stream: Stream, output: OutputContainer) -> Stream:
    added = output.add_stream_from_template(stream, opaque=True)
    for key in list(added.metadata):
        del added.metadata[key]
    added.metadata.update(carried_tags(dict(stream.metadata)))
    added.disposition = stream.disposition
    return added


def _muxes(stream: Stream, container_format: str) -> bool:
    """Return whether the container takes a stream without encoding. Only the muxer knows, so a header is written to memory."""
    if stream.type == "unknown" or (container_format == "mxf" and not _mxf_sound(stream)):
        return False
    if container_format == "mxf":
        return True  # the muxer refuses a header without a picture, so a trial is not possible
    try:
        with av.open(io.BytesIO(), "w", format=container_format) as trial:
            _add(stream, trial)
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
