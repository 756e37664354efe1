"""Descriptions of media files, and one decoded frame."""

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
from services.common.array_types import Int64, UInt8

Plane = UInt8 | npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The film's picture: the first video stream that is not a cover picture.

    Attributes:
        index: index of the stream in its file.
        codec: FFmpeg's name of the codec, such as h264.
        stored_format: pixel format of decoded frames.
        pixel: planar format with the same samples as `stored_format`, in which frames are given and composited.
        orientation: coded size, rotation, sample aspect.
        colour: colour tags of the stream.
        time_base: seconds per tick of `pts`.
        average_rate: average frames per second of the whole stream.
        pts: int64 [frames], presentation time of every frame, ticks, strictly increasing; read-only.
        last_duration: time that the last frame is shown, ticks.
        interlaced: whether the first frame holds two fields.
        metadata: tags of the stream (language, handler_name, timecode, ...).
    """

    index: int
    codec: str
    stored_format: str
    pixel: PixelFormat
    orientation: Orientation
    colour: ColourTags
    time_base: Fraction
    average_rate: Fraction
    pts: Int64 = field(repr=False)
    last_duration: int
    interlaced: bool
    metadata: Mapping[str, str]

    @property
    def num_frames(self) -> int:
        """Number of shown frames."""
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
        """Time of the first frame, seconds: time zero of the speech."""
        return int(self.pts[0]) * self.time_base

    @property
    def duration(self) -> Fraction:
        """Time from the first frame to the end of the last frame, seconds."""
        return (int(self.pts[-1]) + self.last_duration - int(self.pts[0])) * self.time_base

    @property
    def constant_rate(self) -> Fraction | None:
        """The exact frame rate if all times follow one rate, within the precision of the time base; None: they do not."""
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
        """Return the largest distance of a time from the times of a constant rate, ticks."""
        times = float(self.pts[0]) + np.arange(len(self.pts)) * float(1 / rate / self.time_base)
        return float(np.abs(times - self.pts).max())

    @property
    def colour_model(self) -> ColourModel:
        """Map between RGB and the samples of this stream."""
        return colour_model(self.pixel, self.colour, self.width, self.height)


def _usual_rates(measured: Fraction) -> list[Fraction]:
    """Return the exact rates that a measured rate may stand for: a whole number, one over 1.001, or a short fraction."""
    whole = max(round(measured), 1)
    return [Fraction(whole), Fraction(whole * 1000, 1001), measured.limit_denominator(1001)]


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """One audio stream. `start` is in seconds, `layout` is FFmpeg's name."""

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
    """Description of a media file, made before its frames are decoded."""

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
        index: index of the frame; 0: the first shown frame.
        pts: presentation time in the stream's time base.
        planes: [Y, Cb, Cr], [G, B, R] or [Y], alpha last; each [rows, columns] uint8 or uint16. Read-only views of the decoder's
            memory: copy what has to outlive the frame.
        picture: the decoder's frame, with everything that it carries besides the samples (closed captions, ...).
        video: the stream of the frame.
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
        """Whether the file is damaged at this frame, so that the decoder made up a part of the frame."""
        return bool(self.picture.is_corrupt)
