"""The open output: encoder of the picture, and muxer of picture, new speech and carried streams, written in the order of time.

The pictures are encoded while the film is dubbed. The film is muxed in the end.
"""

from __future__ import annotations

import math
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.codec.context import Flags as CodecFlags
from av.container import OutputContainer
from av.video.stream import VideoStream

from gateway.media.carry import CarriedStreams, can_be_copied, carried_tags
from gateway.media.encoders import EncoderChoice
from gateway.media.film_room import BUFFER_BYTES, RoomyFile
from gateway.media.packet_spool import PacketSpool
from gateway.media.pixels import ColourTags, completed
from gateway.media.sound import SoundReader, Speech
from gateway.media.speech_encoder import SpeechEncoder
from gateway.media.types import MediaInfo
from gateway.media.write_settings import WriteSettings

_MOST_TICKS: Final = 1 << 31
_QSCALE_2: Final = 2 * 118
"""FFmpeg's quality number for quantiser 2, MPEG-2 at its best useful quality."""


def _movie_ticks(info: MediaInfo, speech: Speech | None, ticks: int) -> int:
    """Return the ticks per second in which MP4 stores the start of every track. Frame times and samples of sound are whole numbers
    of ticks.
    """
    rates = [track.sample_rate_hz for track in info.audio] + ([speech.sample_rate_hz] if speech else [])
    for rate in rates:
        common = math.lcm(ticks, rate)
        ticks = common if common < _MOST_TICKS else ticks
    return ticks


class FilmMuxer:
    """The output container, from the header to the trailer."""

    def __init__(
        self,
        target: str | RoomyFile,
        info: MediaInfo,
        speech: Speech | None,
        settings: WriteSettings,
        choice: EncoderChoice,
        *,
        folder: Path,
    ) -> None:
        """Open an output and write its header.

        Args:
            target: what FFmpeg writes to, as `OutputFile.target` returns it.
            info: the footage.
            speech: new speech; None: there is none.
            settings: how the film is written.
            choice: encoder and muxer.
            folder: folder of temporary files.

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
        self._shift = -info.video.start if choice.frame_numbers else Fraction(0)
        self._carried: CarriedStreams | None = None
        try:
            self._stream = self._video_stream()
            self._speech, replaced = self._sound(speech)
            container.metadata.update(self._tags())
            skip = frozenset({info.video.index} | replaced)
            if settings.carry:
                self._carried = CarriedStreams(info, container, choice.container, skip=skip, shift=self._shift)
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
        """Streams that the container does not hold, in words."""
        return tuple(self._carried.dropped) if self._carried is not None else ()

    def encode(self, picture: av.VideoFrame) -> None:
        """Encode the next picture."""
        for packet in self._stream.encode(picture):
            self._pictures.put(packet)

    def finish(self) -> None:
        """Encode what the encoder still holds, mux pictures, speech and carried streams, and write the trailer."""
        for packet in self._stream.encode(None):
            self._pictures.put(packet)
        for packet in self._pictures.packets():
            assert packet.dts is not None
            packet.stream, time = self._stream, packet.dts * packet.time_base
            self._container.mux_one(packet)
            self._others_until(time)
        self._others_until(None)
        self._container.close()
        self._close()

    def abandon(self) -> None:
        """Close the output without regard for the film."""
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
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = video.width, video.height, choice.pixel_format
        context.time_base, stream.time_base = choice.encoder_time_base, choice.time_base
        context.thread_count = self._settings.threads
        context.flags |= CodecFlags.frame_duration
        if choice.codec == "mpeg2video":
            context.qscale, context.global_quality = True, _QSCALE_2
        if choice.codec == "hevc" and choice.container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players need this tag
        colour = video.colour
        if choice.codec == "ffv1" and choice.container == "mp4" and colour != ColourTags():
            # FFV1 has no tags of its own, and MP4 stores all of them or none.
            colour = completed(colour, video.width, video.height)
        context.colorspace, context.color_primaries = colour.matrix, colour.primaries
        context.color_trc = colour.transfer
        context.color_range = 2 if video.pixel.full_range_name else colour.color_range
        if video.orientation.sample_aspect != 1:
            context.sample_aspect_ratio = video.orientation.sample_aspect
        if video.interlaced and choice.codec in ("h264", "mpeg2video"):
            context.flags |= CodecFlags.interlaced_dct | CodecFlags.interlaced_me
        stream.metadata.update(carried_tags(dict(video.metadata)))
        if video.orientation.display_matrix is not None:
            stream.set_display_matrix(video.orientation.display_matrix)
        return stream

    def _sound(self, speech: Speech | None) -> tuple[SpeechEncoder | None, set[int]]:
        """Return the encoder of new sound, and the streams of the footage that the new sound replaces.

        None is returned if there is no new sound.
        """
        info, choice = self._info, self._choice
        own = info.audio[0] if info.audio else None
        if self._settings.keep_audio:
            # The packets are copied. Sound that the container does not hold is encoded anew.
            copied = own is None or can_be_copied(info.path, own.index, choice.container)
            speech = None if copied else SoundReader(info.path, origin=info.video.start).speech()
        if speech is None:
            return None, set()
        start, language = info.video.start + self._shift, own.metadata.get("language") if own else None
        encoder = SpeechEncoder(
            speech, choice.sound_codec, self._container, start=start, duration=info.video.duration, language=language
        )
        return encoder, {own.index} if own else set()

    def _tags(self) -> dict[str, str]:
        tags = carried_tags(dict(self._info.metadata))
        if self._settings.marking:
            old = next((value for key, value in tags.items() if key.lower() == "comment"), "")
            tags = {key: value for key, value in tags.items() if key.lower() != "comment"}
            tags["comment"] = f"{self._settings.marking} | {old}" if old else self._settings.marking
        return tags
