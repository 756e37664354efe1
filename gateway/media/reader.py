"""Decodes a video frame by frame, in order. Few frames are in memory at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from gateway.media.opening import (
    MAX_STILL_PIXELS,
    DecodingProgress,
    broken_at,
    decoded_frames,
    open_input,
    video_stream,
)
from gateway.media.pictures import read_picture
from gateway.media.pixels import ACCURATE, ColourModel, PixelFormat, filter_graph
from gateway.media.types import PICTURE, DecodedFrame, MediaInfo, Plane, VideoInfo
from services.common.array_types import UInt8
from services.common.errors import MediaUnsupportedError

_SETTLING_S: Final = 1.0
"""Least seconds from the key frame that decoding begins with to the first frame that counts: some streams take time to recover."""
_AROUND: Final = 16
"""Samples around a region that the colours at its edge depend on; more than the filters of the chroma need."""
_GRID: Final = 64
"""Regions begin and end on this grid, samples: whole chroma samples, and lines whose memory is aligned as in the whole picture."""


class VideoReader:
    """Iterates over the frames of a video.

        with VideoReader(probe(path)) as reader:
            for frame in reader: ...

    Frames come in the order of their times. Every frame has exactly the decoded samples. Formats without planes are rearranged
    without loss. The decoder runs ahead by a few frames of its own.
    """

    def __init__(self, info: MediaInfo, *, threads: int = 2) -> None:
        """Prepare a reader.

        Args:
            threads: threads of the decoder. Their number changes no sample.
        """
        self._info = info
        self._threads = threads
        self._open: Iterator[DecodedFrame] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Yield all frames.

        Raises:
            MediaUnsupportedError: the file breaks off or cannot be decoded, and the message names the time; or the picture changes
                size or format.
        """
        return self.frames()

    def close(self) -> None:
        """Close the file. Unfinished iterators end."""
        if self._open is not None:
            self._open.close()  # type: ignore[attr-defined]
            self._open = None

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[DecodedFrame]:
        """Yield frames `start` to `stop` - 1; None: to the last frame. Earlier frames are decoded and skipped, but for those before
        a span of a file (VideoInfo.before): decoding begins as that of `frames_from`.

        Raises:
            MediaUnsupportedError: as `__iter__`.
        """
        self.close()
        video = self._info.video
        stop = video.num_frames if stop is None else min(stop, video.num_frames)
        self._open = self._sought(start, stop) if len(video.before) or len(video.sources) else self._decode(start, stop)
        return self._open

    def frames_from(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Yield frames `start` to `stop` - 1, with the samples of `frames`. Decodes from a key frame a second before, if it can.

        Raises:
            MediaUnsupportedError: as `__iter__`.
        """
        self.close()
        self._open = self._sought(start, stop)
        return self._open

    def _sought(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Decode from a key frame before `start`, or from the beginning if the file cannot be sought there exactly."""
        info, video = self._info, self._info.video
        if len(video.sources):
            yield from self._of_parts(start, stop)
            return
        times, skipped, due = video.file_times, len(video.before), start
        ticks = int(video.pts[min(start, video.num_frames - 1)]) - int(_SETTLING_S / video.time_base)
        if ticks > int(times[0]) and not video.counted:
            with open_input(info.path, only="picture") as container:
                stream = self._stream(container)
                container.seek(ticks, stream=stream)
                for picture in self._pictures(container, stream):
                    number = int(np.searchsorted(times, picture.pts)) if picture.pts is not None else len(times)
                    index = number - skipped
                    if number == len(times) or int(times[number]) != picture.pts or index > due or due == stop:
                        break
                    if index == due:
                        yield _decoded_frame(picture, index, info)
                        due += 1
        if due < stop:
            yield from self._decode(due, stop)

    def _of_parts(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Decode the frames of an edit list, part by part."""
        video = self._info.video
        jumps = np.diff(video.sources[start:stop]) != np.diff(video.pts[start:stop])
        edges = [start, *(np.flatnonzero(jumps) + start + 1).tolist(), stop]
        for first, end in itertools.pairwise(edges):
            yield from self._of_part(first, end)

    def _of_part(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Decode frames that follow each other in the file: from a key frame before them, or from the beginning of the file."""
        info, video, due = self._info, self._info.video, start
        ticks = int(video.sources[start]) - int(_SETTLING_S / video.time_base) if start < stop else 0
        for begin in [ticks, None] if ticks > 0 else [None]:
            if due == stop:
                return
            with open_input(info.path, only="picture", follow_edits=False) as container:
                stream = self._stream(container)
                if begin is not None:
                    container.seek(begin, stream=stream)
                for picture in self._pictures(container, stream):
                    reached = picture.pts
                    if reached == video.sources[due]:
                        picture.pts = int(video.pts[due])
                        yield _decoded_frame(picture, due, info)
                        due += 1
                    if due == stop or reached is None or reached > video.sources[due]:
                        break
        if due < stop:
            seconds = int(video.pts[due]) * video.time_base
            raise broken_at(info.path, seconds, f"only {due} of {video.num_frames} frames can be decoded")

    def _stream(self, container: av.container.InputContainer) -> VideoStream:
        stream = video_stream(container, self._info.path)
        stream.codec_context.thread_count = self._threads
        stream.codec_context.thread_type = av.codec.context.ThreadType.AUTO
        # Pictures may grow in the middle of a video. A frame that is too large is refused before memory is taken for it.
        stream.codec_context.options = {"max_pixels": str(MAX_STILL_PIXELS)}
        return stream

    def _decode(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        info, video = self._info, self._info.video
        if info.container == PICTURE:
            if start < stop:
                yield _frame_of_picture(info)
            return
        skipped = len(video.before)
        index = -skipped
        with open_input(info.path, only="picture") as container:
            for picture in self._pictures(container, self._stream(container)):
                if index >= stop:
                    return
                if index >= start:
                    yield _decoded_frame(picture, index, info)
                index += 1
        if index < stop:
            times = video.file_times
            seconds = int(times[index + skipped - 1]) * video.time_base if index + skipped else None
            raise broken_at(info.path, seconds, f"only {index + skipped} of {len(times)} frames can be decoded")

    def _pictures(self, container: av.container.InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        reached, counted = DecodingProgress(), self._info.video.counted
        times = self._info.video.file_times
        for number, picture in enumerate(decoded_frames(container, stream, self._info.path, reached)):
            if counted:
                picture.pts = None
            ticks = int(times[min(number, len(times) - 1)]) if counted else picture.pts
            if ticks is not None:
                reached.seconds = ticks * self._info.video.time_base
            yield picture


def _decoded_frame(picture: av.VideoFrame, index: int, info: MediaInfo) -> DecodedFrame:
    video = info.video
    pts = int(video.pts[index])
    if picture.pts is not None and picture.pts != pts:
        raise broken_at(
            info.path,
            pts * video.time_base,
            f"frame {index} cannot be decoded (the decoder gives the one at {picture.pts})",
        )
    width, height = video.reduction * video.width, video.reduction * video.height
    if (picture.width, picture.height, picture.format.name) != (width, height, video.stored_format):
        raise MediaUnsupportedError(
            f"{info.path}: at {float(pts * video.time_base):.3f} s the picture changes from {width} x {height} "
            f"{video.stored_format} to {picture.width} x {picture.height} {picture.format.name}; "
            "cut the file there and dub the parts",
            field="video",
        )
    planar = picture
    if picture.format.name != video.pixel.name:
        planar = picture.reformat(format=video.pixel.name, src_color_range=2, dst_color_range=2)
        planar.pts, planar.time_base = picture.pts, picture.time_base
    if video.reduction > 1:
        planar = _reduced_picture(planar, video)
    return DecodedFrame(index, pts, plane_views(planar, video, writable=False), planar, video, bool(picture.is_corrupt))


def _reduced_picture(picture: av.VideoFrame, video: VideoInfo) -> av.VideoFrame:
    """Return a planar picture in the size of the frames of a video, reduced by areas. Captions and other side data are left out."""
    small = av.VideoFrame(video.width, video.height, video.pixel.name)
    small.pts, small.time_base = picture.pts, picture.time_base
    small.colorspace, small.color_range = video.colour.matrix, picture.color_range
    small.color_primaries, small.color_trc = picture.color_primaries, picture.color_trc
    views = plane_views(picture, video, writable=False), plane_views(small, video, writable=True)
    for samples, view in zip(*views, strict=True):
        view[...] = cv2.resize(samples, (view.shape[1], view.shape[0]), interpolation=cv2.INTER_AREA)
    return small


def _frame_of_picture(info: MediaInfo) -> DecodedFrame:
    """Return the frame of a picture file."""
    shown = read_picture(info.path)
    packed = av.VideoFrame.from_ndarray(shown, format="rgb24" if shown.shape[2] == 3 else "rgba")
    picture = packed.reformat(format=info.video.pixel.name, src_color_range=2, dst_color_range=2)
    picture.pts, picture.time_base = 0, info.video.time_base
    return DecodedFrame(0, 0, plane_views(picture, info.video, writable=False), picture, info.video)


def plane_views(picture: av.VideoFrame, video: VideoInfo, *, writable: bool) -> tuple[Plane, ...]:
    """Return the planes of a picture, [rows, columns] each, as views of the picture's memory, without the padding of lines."""
    views: list[Plane] = []
    for number, plane in enumerate(picture.planes):
        rows, columns = video.pixel.plane_shape(number, picture.width, picture.height)
        dtype = video.pixel.dtype
        view: Plane = (
            np.frombuffer(cast(Any, plane), np.uint8).view(dtype).reshape(-1, plane.line_size // dtype.itemsize)[:rows, :columns]
        )
        view.setflags(write=writable)
        views.append(view)
    return tuple(views)


def from_rgb(picture: UInt8, pixel: PixelFormat, colour: ColourModel) -> av.VideoFrame:
    """Return a picture in the samples of a video: the inverse of `to_rgb` for upright footage.

    Args:
        picture: uint8 RGB [height, width, 3].
        pixel: pixel format of the video.
    """
    if colour.hdr is not None:
        picture = np.rint(colour.hdr.coded(picture.astype(np.float32))).astype(np.uint8)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
        format=pixel.name,
        dst_colorspace=colour.swscale_matrix,
        src_color_range=2,
        dst_color_range=2 if colour.full_range else 1,
        interpolation=ACCURATE,
        threads=1,
    )


def to_rgb(frame: DecodedFrame) -> UInt8:
    """Return the frame as it is shown: uint8 RGB [height, width, 3], upright, square pixels, by the footage's own matrix and range.

    HDR footage is shown in standard range (pixels.HdrCurve).

    Pixel (x, y) of the result shows coded luma sample `frame.video.orientation.coded_from_upright @ [x, y, 1]`.
    """
    return frame.video.orientation.upright(_coded_rgb(frame.picture, frame.video))


@dataclass(frozen=True, slots=True, eq=False)
class FramePart:
    """Part of a frame as the frame is shown.

    Attributes:
        rgb: uint8 [rows, columns, 3].
        left, top: pixel of the frame that is pixel (0, 0) of the part.
    """

    rgb: UInt8
    left: int
    top: int

    def in_frame(self, video: VideoInfo) -> FramePart:
        """Return the part in a picture of the size of the video's upright frames, which is black elsewhere."""
        width, height = video.orientation.upright_size
        rgb = np.zeros((height, width, 3), np.uint8)
        rgb[self.top :, self.left :][: self.rgb.shape[0], : self.rgb.shape[1]] = self.rgb
        return FramePart(rgb, 0, 0)


def to_rgb_within(frame: DecodedFrame, region: tuple[int, int, int, int]) -> FramePart:
    """Return a part of the frame that holds a region. Within the region, the pixels equal the pixels of `to_rgb`.

    The part reaches beyond the region, as far as the frame goes, and begins at multiples of 64 pixels.

    Args:
        frame: the frame.
        region: left, top, right and bottom edge of the region, upright pixels. Right and bottom are outside; so may all edges be.
    """
    video, orientation = frame.video, frame.video.orientation
    width, height = orientation.upright_size
    left, top = (max(edge - _AROUND, 0) // _GRID * _GRID for edge in region[:2])
    right, bottom = (min(-(-(edge + _AROUND) // _GRID) * _GRID, end) for edge, end in zip(region[2:], (width, height), strict=True))
    outside, large = right <= left or bottom <= top, 2 * (right - left) * (bottom - top) > width * height
    # Half a chroma sample at the end of a line changes the position of all chroma samples of the line.
    step_x, step_y = video.pixel.chroma_step
    uneven = width % step_x or height % step_y
    if video.pixel.kind != "yuv" or not orientation.is_upright or uneven or outside or large:
        return FramePart(to_rgb(frame), 0, 0)
    # FFmpeg's crop keeps the position of the chroma samples, which a new picture would not have.
    area = f"{right - left}:{bottom - top}:{left}:{top}:exact=1"
    graph = filter_graph("crop", area, (width, height), av.VideoFormat(video.pixel.name), video.time_base)
    graph.push(frame.picture)
    return FramePart(_coded_rgb(cast(av.VideoFrame, graph.pull()), video), left, top)


def reduced(rgb: UInt8, factor: int) -> UInt8:
    """Return a picture, uint8 [H, W, 3], reduced by areas: uint8 [H // factor, W // factor, 3]."""
    size = (rgb.shape[1] // factor, rgb.shape[0] // factor)
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def to_reduced_rgb(frame: DecodedFrame, factor: int) -> UInt8:
    """Return the frame as it is shown, reduced by areas: uint8 RGB [height // factor, width // factor, 3].

    Planes of YUV are reduced before their colours are converted, so that samples differ a little from those of a reduced `to_rgb`.

    Args:
        factor: luma samples per pixel of the result, in each direction.
    """
    video = frame.video
    width, height = video.width // factor, video.height // factor
    if (
        video.pixel.kind != "yuv"
        or factor < max(video.pixel.chroma_step)
        or video.orientation.square_size != (video.width, video.height)
    ):
        return reduced(to_rgb(frame), factor)
    depth = "" if video.pixel.bits == 8 else f"{video.pixel.bits}le"
    small = av.VideoFrame(width, height, f"yuv444p{depth}")
    for plane, samples in zip(small.planes, frame.planes[:3], strict=True):
        line = plane.line_size // video.pixel.dtype.itemsize
        view = np.frombuffer(cast(Any, plane), video.pixel.dtype).reshape(-1, line)[:height, :width]
        view[...] = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
    return video.orientation.upright(_coded_rgb(small, video))


def _coded_rgb(picture: av.VideoFrame, video: VideoInfo) -> UInt8:
    """Return a picture with the colours of a video, uint8 RGB [height, width, 3], neither turned nor stretched."""
    model = video.colour_model
    rgb = _rgb_levels(picture, video, model)
    return rgb if model.hdr is None else model.hdr.shown(rgb)


def _rgb_levels(picture: av.VideoFrame, video: VideoInfo, model: ColourModel) -> UInt8:
    width, height = picture.width, picture.height
    if video.pixel.kind == "yuv":
        # Planes take swscale half the time of rgb24, and hold the same values.
        converted = picture.reformat(
            format="gbrp",
            src_colorspace=model.swscale_matrix,
            src_color_range=2 if model.full_range else 1,
            dst_color_range=2,
            interpolation=ACCURATE,
            threads=1,
        )
        green, blue, red = (
            np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)[:height, :width] for plane in converted.planes
        )
        return np.asarray(cv2.merge([red, green, blue]), np.uint8)
    converted = picture.reformat(format="rgb24", threads=1)
    rows = np.frombuffer(cast(Any, converted.planes[0]), np.uint8).reshape(height, -1)[:, : 3 * width]
    return np.ascontiguousarray(rows).reshape(height, width, 3)
