"""What a media file holds, and one decoded frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from gateway.media.orientation import Orientation
from gateway.media.pixels import ColourModel, ColourTags, PixelFormat, colour_model

Plane = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The film's picture: the first video stream that is not a cover picture.

    Attributes:
        index: of the stream in its file.
        codec: FFmpeg's name, such as h264.
        stored_format: pixel format as it is decoded.
        pixel: the planar format in which frames are given and composited; the same samples as `stored_format`.
        orientation: coded size, rotation, sample aspect.
        colour: colour tags as they are stored.
        time_base: seconds a tick of `pts`.
        average_rate: frames a second on average over the whole stream.
        pts: int64 [frames], presentation time of every frame, ticks, strictly increasing; read-only.
        last_duration: how long the last frame is shown, ticks.
        interlaced: whether the first frame holds two fields.
        metadata: the stream's own tags (language, handler_name, timecode, ...).
    """

    index: int
    codec: str
    stored_format: str
    pixel: PixelFormat
    orientation: Orientation
    colour: ColourTags
    time_base: Fraction
    average_rate: Fraction
    pts: npt.NDArray[np.int64] = field(repr=False)
    last_duration: int
    interlaced: bool
    metadata: Mapping[str, str]

    @property
    def num_frames(self) -> int:
        """Frames that are shown."""
        return len(self.pts)

    @property
    def width(self) -> int:
        """Coded width, samples."""
        return self.orientation.width

    @property
    def height(self) -> int:
        """Coded height, samples."""
        return self.orientation.height

    @property
    def start(self) -> Fraction:
        """When the first frame is shown, seconds; time zero of the speech."""
        return int(self.pts[0]) * self.time_base

    @property
    def duration(self) -> Fraction:
        """From the first frame to the end of the last one, seconds."""
        return (int(self.pts[-1]) + self.last_duration - int(self.pts[0])) * self.time_base

    @property
    def constant_rate(self) -> Fraction | None:
        """The exact frame rate if the times are those of one, as far as the time base can tell; else None."""
        steps = np.diff(self.pts)
        if len(steps) == 0 or steps.max() - steps.min() > 1:
            return None
        if steps.max() == steps.min():
            return 1 / (int(steps[0]) * self.time_base)
        measured = (len(self.pts) - 1) / ((int(self.pts[-1]) - int(self.pts[0])) * self.time_base)
        rates = {rate: self._deviation(rate) for rate in _usual_rates(measured)}
        best = min(rates, key=rates.__getitem__)
        return best if rates[best] <= 1.0 else None

    def _deviation(self, rate: Fraction) -> float:
        """How far the times lie from those of a constant rate at most, ticks."""
        times = float(self.pts[0]) + np.arange(len(self.pts)) * float(1 / rate / self.time_base)
        return float(np.abs(times - self.pts).max())

    @property
    def colour_model(self) -> ColourModel:
        """Between RGB and the samples of this stream."""
        return colour_model(self.pixel, self.colour, self.width, self.height)


def _usual_rates(measured: Fraction) -> list[Fraction]:
    """What a measured rate may be exactly: a whole number, one over 1.001, or a short fraction."""
    whole = max(round(measured), 1)
    return [Fraction(whole), Fraction(whole * 1000, 1001), measured.limit_denominator(1001)]


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """One audio stream: its codec, sample rate (Hz), channels, start (seconds) and tags."""

    index: int
    codec: str
    sample_rate_hz: int
    channels: int
    layout: str
    start: Fraction
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OtherStream:
    """A stream that is neither the film's picture nor sound: subtitles, data, timecode, cover picture, attachment."""

    index: int
    kind: str
    codec: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Everything that is known of a media file before a frame of it is decoded for use."""

    path: Path
    container: str
    video: VideoInfo
    audio: tuple[AudioInfo, ...]
    others: tuple[OtherStream, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame of the film.

    Attributes:
        index: 0 for the first frame shown.
        pts: presentation time in the stream's time base.
        planes: [Y, Cb, Cr] (or [G, B, R], or [Y]; alpha last), each [rows, columns] uint8 or uint16. Views of the
            decoder's own memory and read-only: copy what is to be kept longer than the frame.
        picture: the decoder's frame, with all that it carries beside the samples (closed captions, ...).
        video: the stream it comes from.
    """

    index: int
    pts: int
    planes: tuple[Plane, ...] = field(repr=False)
    picture: av.VideoFrame = field(repr=False)
    video: VideoInfo = field(repr=False)

    @property
    def time(self) -> Fraction:
        """Presentation time, seconds."""
        return self.pts * self.video.time_base

    @property
    def damaged(self) -> bool:
        """Whether the decoder had to make up a part of it, because the file is damaged there."""
        return bool(self.picture.is_corrupt)
