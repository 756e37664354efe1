"""Descriptions of media files, one decoded frame, and the map between the coded frame and the displayed frame.

Trackers and networks see the upright picture with square pixels. Compositing works on coded samples. An affine map of pixel centres
(x right, y down, the first pixel's centre at 0, 0) links the two: rotation, mirror and the shape of the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import av
import numpy as np
import numpy.typing as npt

from gateway.media.choices import LEAST_HALVED
from gateway.media.pixels import UNSPECIFIED, ColourModel, ColourTags, PixelFormat, colour_model, effective_matrix
from services.common.array_types import Float64, Int64, UInt8

SQUARE_TOLERANCE: Final = Fraction(8, 100)
"""Sample aspects within this of 1 are taken as square: resampling would cost more than the stretch does."""
Plane = UInt8 | npt.NDArray[np.uint16]
FieldOrder = Literal["progressive", "top", "bottom"]
"""How a frame is shown: at once, or as two fields, the top or the bottom one first."""
COVER: Final = "cover picture"
PICTURE: Final = "picture"
"""Container of picture files that gateway.media.pictures opens."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """Map from a coded picture to the displayed picture.

    Attributes:
        width, height: size of the coded picture, samples.
        quarter_turns: counter-clockwise quarter turns from coded to upright, 0 to 3.
        mirrored: whether the coded picture is mirrored left to right before the turn.
        sample_aspect: width over height of a coded sample; 1: square.
        display_matrix: the nine numbers of the container's display matrix, which the output gets unchanged; None: there is none.
    """

    width: int
    height: int
    quarter_turns: int = 0
    mirrored: bool = False
    sample_aspect: Fraction = Fraction(1)
    display_matrix: tuple[int, ...] | None = None

    @property
    def square_size(self) -> tuple[int, int]:
        """Width and height of the coded picture, stretched to square pixels: the shorter side of a sample grows."""
        aspect = self.sample_aspect
        if aspect <= 0 or abs(aspect - 1) <= SQUARE_TOLERANCE:
            return self.width, self.height
        if aspect > 1:
            return round(self.width * aspect), self.height
        return self.width, round(self.height / aspect)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright picture, pixels."""
        width, height = self.square_size
        return (height, width) if self.quarter_turns % 2 else (width, height)

    @property
    def is_upright(self) -> bool:
        """Whether the coded picture is shown as it is."""
        return not self.quarter_turns and not self.mirrored and self.square_size == (self.width, self.height)

    @property
    def coded_from_upright(self) -> Float64:
        """Affine map upright pixels -> coded luma samples, float64 [2, 3]."""
        width, height = self.square_size
        linear, offset = {
            0: ([[1, 0], [0, 1]], [0, 0]),
            1: ([[0, -1], [1, 0]], [width - 1, 0]),
            2: ([[-1, 0], [0, -1]], [width - 1, height - 1]),
            3: ([[0, 1], [-1, 0]], [0, height - 1]),
        }[self.quarter_turns]
        affine = np.column_stack([np.array(linear, np.float64), np.array(offset, np.float64)])
        if self.mirrored:
            affine[0] = np.array([0.0, 0.0, width - 1.0]) - affine[0]
        for axis, (square, coded) in enumerate(((width, self.width), (height, self.height))):
            affine[axis, :2] *= coded / square
            affine[axis, 2] = (affine[axis, 2] + 0.5) * coded / square - 0.5
        return affine

    def upright(self, coded: UInt8) -> UInt8:
        """Return a coded picture [height, width, 3] upright. If nothing is to be done, the same array is returned."""
        # The import is here and not above: the process that inspects a file turns no picture, and starts a quarter faster without
        # OpenCV.
        import cv2

        picture = coded
        if self.square_size != (self.width, self.height):
            picture = np.asarray(cv2.resize(picture, self.square_size, interpolation=cv2.INTER_LINEAR), np.uint8)
        if self.mirrored:
            picture = np.asarray(cv2.flip(picture, 1), np.uint8)
        if self.quarter_turns:
            code = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}[self.quarter_turns]
            picture = np.asarray(cv2.rotate(picture, code), np.uint8)
        return picture


def orientation(width: int, height: int, sample_aspect: Fraction | None, display_matrix: tuple[int, ...] | None) -> Orientation:
    """Return the orientation for a display matrix (FFmpeg's layout: a, b, u, c, d, v, x, y, w in 16.16), to the nearest quarter
    turn and mirror.

    The matrix takes a coded point (x, y), y down, to (a x + c y, b x + d y) on the screen.
    """
    turns, mirrored = 0, False
    if display_matrix is not None:
        a, b, c, d = display_matrix[0], display_matrix[1], display_matrix[3], display_matrix[4]
        mirrored = a * d - b * c < 0
        if mirrored:
            a, b = -a, -b
        # The image of the x axis is (a, b), y down: its angle on the screen, counter-clockwise, is atan2(-b, a).
        turns = round(float(np.degrees(np.arctan2(-b, a))) / 90.0) % 4
    aspect = sample_aspect if sample_aspect is not None and sample_aspect > 0 else Fraction(1)
    return Orientation(width, height, turns, mirrored, aspect, display_matrix)


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """The display that a video was graded on (SMPTE ST 2086), and the light of the video (CTA-861.3).

    Attributes:
        mastering: x and y of red, green, blue and white in 1/50000, then the least and the most luminance in 1/10000 cd/m2: ten
            numbers; None: not stated.
        light: the brightest pixel of all frames, and the brightest mean of a frame, cd/m2; None: not stated.
    """

    mastering: tuple[int, ...] | None = None
    light: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The video's picture: the video stream that players show (gateway.media.opening.video_stream).

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
        field_order: of the first frame.
        metadata: tags of the stream (language, handler_name, timecode, ...).
        hdr: HDR metadata of the first frame.
        unkept: further metadata of the first frame that no encoder gets, in words.
        reduction: samples of the file per sample of a frame, in each direction. The reader reduces frames by areas.
        before: int64, presentation times of the shown frames of the file before the first frame, ticks; none, unless the video is a
            span of its file.
        sources: int64 [frames], times of the frames in the file before the edit list, ticks, if the list is followed here
            (gateway.media.mp4.edit_parts); otherwise none.
        counted: whether the decoder gives frames in their order with wrong times, because the container does not store the order.
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
    field_order: FieldOrder
    metadata: Mapping[str, str]
    hdr: HdrMetadata = HdrMetadata()
    unkept: tuple[str, ...] = ()
    reduction: int = 1
    before: Int64 = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    sources: Int64 = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    counted: bool = False

    @property
    def interlaced(self) -> bool:
        """Whether a frame holds two fields."""
        return self.field_order != "progressive"

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
    def size(self) -> tuple[int, float]:
        """Number of shown frames, and million pixels of a frame."""
        return self.num_frames, self.width * self.height / 1e6

    @property
    def start(self) -> Fraction:
        """Time of the first frame, seconds: time zero of the speech."""
        return int(self.pts[0]) * self.time_base

    @property
    def duration(self) -> Fraction:
        """Time from the first frame to the end of the last frame, seconds."""
        return (int(self.pts[-1]) + self.last_duration - int(self.pts[0])) * self.time_base

    @property
    def file_times(self) -> Int64:
        """Times of the shown frames of the file up to the last frame, int64 [frames before and own], ticks."""
        return np.concatenate([self.before, self.pts])

    @property
    def begin(self) -> Fraction:
        """Time from the first shown frame of the file to the first frame, seconds; 0, unless the video is a span of its file."""
        return (int(self.pts[0]) - int(self.before[0])) * self.time_base if len(self.before) else Fraction(0)

    @property
    def end(self) -> Fraction:
        """Time from the first shown frame of the file to the end of the last frame, seconds."""
        return self.begin + self.duration

    def span(self, first: int, seconds: int) -> VideoInfo:
        """Return the frames that begin in the seconds from a frame on, as a video that begins with this frame."""
        pts = self.pts
        stop = int(np.searchsorted(pts, int(pts[first]) + math.ceil(seconds / self.time_base)))
        last = self.last_duration if stop >= self.num_frames else int(pts[stop] - pts[stop - 1])
        if not first and stop >= self.num_frames:
            return self
        before = np.concatenate([self.before, pts[:first]])
        return replace(self, pts=pts[first:stop], last_duration=last, before=before, sources=self.sources[first:stop])

    def halved(self) -> VideoInfo:
        """Return the video with frames of half the width and height.

        The video itself is returned if it is small or interlaced (each line belongs to one of two moments), or if a half would end
        inside a chroma sample.
        """
        step_x, step_y = self.pixel.chroma_step
        uneven = self.width % (2 * step_x) or self.height % (2 * step_y)
        if self.interlaced or uneven or min(self.width, self.height) < LEAST_HALVED:
            return self
        colour = self.colour
        if self.pixel.kind != "rgb" and colour.matrix == UNSPECIFIED:
            # Players take the matrix of untagged video from the size of the picture.
            colour = replace(colour, matrix=effective_matrix(colour, self.width, self.height))
        half = replace(self.orientation, width=self.width // 2, height=self.height // 2)
        return replace(self, orientation=half, colour=colour, reduction=2 * self.reduction)

    @property
    def coded_from_upright(self) -> Float64:
        """Affine map from pixels of the upright footage, which is not reduced, to coded luma samples of a frame, float64 [2, 3]."""
        factor = self.reduction
        whole = replace(self.orientation, width=self.width * factor, height=self.height * factor)
        affine = whole.coded_from_upright
        affine[:, 2] -= 0.5 * (factor - 1)
        return affine / factor

    @property
    def constant_rate(self) -> Fraction | None:
        """The exact frame rate if all times follow one rate, within the precision of the time base; None: they do not. The times
        before a span count too: a span may have one frame.
        """
        ticks = self.file_times
        steps = np.diff(ticks)
        if len(steps) == 0 or steps.max() - steps.min() > 1:
            return None
        if steps.max() == steps.min():
            return 1 / (int(steps[0]) * self.time_base)
        if steps.min() == 1:
            return None  # a frame that is shown for two ticks instead of one was dropped, as in AVI, and not rounded
        measured = (len(ticks) - 1) / ((int(ticks[-1]) - int(ticks[0])) * self.time_base)
        rates = {rate: self._deviation(ticks, rate) for rate in _usual_rates(measured)}
        best = min(rates, key=rates.__getitem__)
        return best if rates[best] <= 1.0 else None

    def _deviation(self, ticks: Int64, rate: Fraction) -> float:
        """Return the largest distance of a time, int64 [frames], from the times of a constant rate, ticks."""
        times = float(ticks[0]) + np.arange(len(ticks)) * float(1 / rate / self.time_base)
        return float(np.abs(times - ticks).max())

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
    """A stream that is neither the video's picture nor sound that can be decoded.

    Attributes:
        index: index of the stream in its file.
        kind: COVER, or FFmpeg's name of the kind: video, audio, subtitle, data, attachment.
        codec: FFmpeg's name of the codec; empty: FFmpeg does not know the codec.
        metadata: tags of the stream.
    """

    index: int
    kind: str
    codec: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Description of a media file, made before its frames are decoded. `container` is PICTURE, or FFmpeg's name."""

    path: Path
    container: str
    video: VideoInfo
    audio: tuple[AudioInfo, ...]
    others: tuple[OtherStream, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame of the video.

    Attributes:
        index: index of the frame; 0: the first shown frame.
        pts: presentation time in the stream's time base.
        planes: [Y, Cb, Cr], [G, B, R] or [Y], alpha last; each [rows, columns] uint8 or uint16. Read-only views of the decoder's
            memory: copy what has to outlive the frame.
        picture: the decoder's frame, with everything that it carries besides the samples (closed captions, ...).
        video: the stream of the frame.
        damaged: whether the file is damaged at this frame, so that the decoder made up a part of the frame.
    """

    index: int
    pts: int
    planes: tuple[Plane, ...] = field(repr=False)
    picture: av.VideoFrame = field(repr=False)
    video: VideoInfo = field(repr=False)
    damaged: bool = False
