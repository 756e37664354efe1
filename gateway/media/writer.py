"""Writes the dubbed video: every frame at its time, in the footage's own pixel format, with the footage's other streams.

The video grows under a temporary name in the output's folder, and takes the output's name when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Protocol, Self

import av
import numpy as np

from gateway.media.encoders import EncoderChoice, WriteSettings, choose_encoder
from gateway.media.label import LabelPainter
from gateway.media.muxer import EncodedSegment, VideoMuxer
from gateway.media.output import OutputFile, check_output_file, commit_with, output_error
from gateway.media.pixels import pixel_format
from gateway.media.reader import plane_views
from gateway.media.sound import Speech
from gateway.media.types import DecodedFrame, MediaInfo, Plane
from services.common.errors import ContractBrokenError
from services.common.server.resources import give_back_freed_memory

_TIDY_FRAMES: Final = 500
"""Number of frames after which freed memory is given back to the system, which takes 7 ms. Without that, unused memory grows to
60 MiB in an hour."""


class VideoSigner(Protocol):
    """Signs a finished video before the video gets its name."""

    @property
    def padding(self) -> int:
        """Padding behind the first box of the video that the seal needs, bytes; 0: none."""

    def __call__(self, file: OutputFile, /) -> OutputFile | None:
        """Sign the video. May return a second file, which gets its name with the video."""


@dataclass(frozen=True, slots=True)
class WriteReport:
    """Report on a video that was written.

    Attributes:
        path: the video.
        carried: streams that were copied, in words.
        dropped: metadata that no encoder gets, in words, and sentences about streams that are not carried.
    """

    path: Path
    carried: tuple[str, ...]
    dropped: tuple[str, ...]


class VideoWriter:
    """Encodes a video once, from decoded frames and composited planes.

        with VideoWriter(output, info, speech=speech) as writer:
            for frame in reader:
                writer.write(frame, planes or None)
        report = writer.report

    When the block ends without an error, the video takes its name. After an error, no file is left.
    """

    def __init__(
        self,
        output: Path | str,
        info: MediaInfo,
        *,
        speech: Speech | None = None,
        inputs: Iterable[tuple[str, Path]] = (),
        settings: WriteSettings | None = None,
        seal: VideoSigner | None = None,
        segmented: bool = False,
    ) -> None:
        """Check that the video can be written as asked. Nothing is opened yet.

        Args:
            speech: new speech; None: there is none.
            inputs: further files that are read meanwhile (`check_output_file`).
            settings: how the video is written; None: the defaults.
            seal: signs the video; None: nothing does.
            segmented: whether the frames are written in segments, if codec and container allow.

        Raises:
            InvalidRequestError: container or codec are unknown, the output is an input or exists and may not be replaced, or its
                folder is missing or may not be written.
            MediaUnsupportedError: container or codec cannot keep the footage's times or samples.
        """
        self._output, self._info, self._speech = Path(output), info, speech
        self._settings = settings or WriteSettings()
        self._choice = choose_encoder(self._output, info.video, self._settings.codec, self._settings.crf)
        self._lost_bits = info.video.pixel.bits - pixel_format(self._choice.pixel_format).bits
        read = [("the footage itself", info.path), *inputs]
        check_output_file(self._output, inputs=read, overwrite=self._settings.overwrite)
        self._seal = seal
        label = self._settings.label
        self._painter = (
            LabelPainter(label, info.video.pixel, info.video.colour, info.video.orientation) if label is not None else None
        )
        self._file: OutputFile | None = None
        self._muxer: VideoMuxer | None = None
        self._copier: _FrameCopier | None = None
        self._prepared: tuple[tuple[Plane, ...], av.VideoFrame] | None = None
        self._frames = 0
        self._segmented = segmented and self._choice.has_segments
        self._report: WriteReport | None = None

    @property
    def choice(self) -> EncoderChoice:
        """Encoder, container and pixel format of the output."""
        return self._choice

    @property
    def segmented(self) -> bool:
        """Whether the frames are written in segments: each ends with `end_segment`, and `take` takes the place of its frames."""
        return self._segmented

    @property
    def parameters(self) -> bytes:
        """Parameter sets of the encoder inside the block. Only segments with the same can be taken."""
        assert self._muxer is not None
        return self._muxer.parameters

    @property
    def report(self) -> WriteReport:
        """Report on the video. Set when the block has ended without an error."""
        if self._report is None:
            raise ContractBrokenError("the video is not finished")
        return self._report

    def __enter__(self) -> Self:
        try:
            self._file = OutputFile(self._output, overwrite=self._settings.overwrite, takes_over=self._settings.takes_over)
            target = self._file.target(self._seal.padding if self._seal is not None else 0)
            self._muxer = VideoMuxer(
                target,
                self._info,
                self._speech,
                self._settings,
                self._choice,
                folder=self._output.parent,
                segmented=self._segmented,
            )
        except BaseException as problem:
            self._give_up(problem)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._discard()
        elif self._report is None:
            self.finish()

    def writable(self, frame: DecodedFrame) -> tuple[Plane, ...]:
        """Return a copy of the planes of a decoded frame, which may be changed and then given to `write` with the frame.

        `write` encodes the picture of these planes without a further copy, unless the output has fewer bits.
        """
        if self._lost_bits > 0:
            return tuple(plane.copy() for plane in frame.planes)
        same = frame.picture.format.name == self._choice.pixel_format
        picture = self._copied(frame) if same else self._filled(frame, frame.planes)
        planes = plane_views(picture, self._info.video, writable=True)
        self._prepared = planes, picture
        return planes

    def write(self, frame: DecodedFrame, planes: Sequence[Plane] | None = None) -> None:
        """Encode the next frame of the video.

        Args:
            planes: planes in the footage's pixel format, of `writable` or others; None: the frame as it was decoded.

        Raises:
            ContractBrokenError: the frame is not the next one, or planes have another shape or type.
            StorageFullError: the disk is full. The video is given up.
        """
        if self._muxer is None:
            raise ContractBrokenError("frames are written inside the with block")
        if frame.index != self._frames:
            raise ContractBrokenError(f"frame {frame.index} was written, frame {self._frames} was due")
        try:
            shown = planes
            if self._painter is not None:
                shown = self._painter(planes if planes is not None else frame.planes)
            self._muxer.encode(self._picture(frame, shown))
        except BaseException as problem:
            self._give_up(problem)
        self._frames += 1
        if self._frames % _TIDY_FRAMES == 0:
            give_back_freed_memory()

    def end_segment(self) -> EncodedSegment:
        """Return the segment of the frames since the last one.

        Raises:
            StorageFullError: the disk is full. The video is given up.
        """
        assert self._muxer is not None
        try:
            return self._muxer.end_segment()
        except BaseException as problem:
            self._give_up(problem)

    def take(self, segment: EncodedSegment) -> None:
        """Write the next frames of the video as an earlier writer has encoded them.

        Raises:
            StorageFullError: the disk is full. The video is given up.
        """
        assert self._muxer is not None
        try:
            self._muxer.take(segment)
        except BaseException as problem:
            self._give_up(problem)
        self._frames += len(segment.pts)

    def finish(self, confirm: Callable[[], None] = lambda: None) -> None:
        """Mux and sign the video, and give the video its name. Without this call, the end of the block does the same.

        Two hours of video at 640 x 360 take 10 s, so call this in a thread where other work waits.

        Args:
            confirm: called right before the video gets its name. Raises an error if the video may not be shown any more.

        Raises:
            ContractBrokenError: frames are missing.
            StorageFullError: the disk is full. The video is given up.
            InvalidRequestError, DubstageError: the video cannot be written, signed or named. The video is given up.
        """
        try:
            self._finish(confirm)
        except BaseException as problem:
            self._give_up(problem)

    def _finish(self, confirm: Callable[[], None]) -> None:
        assert self._muxer is not None
        assert self._file is not None
        if self._frames != self._info.video.num_frames:
            raise ContractBrokenError(f"{self._frames} frames were written, the footage has {self._info.video.num_frames}")
        # The muxer takes memory now. The dub has freed more than that, so the process stays as small as before.
        give_back_freed_memory()
        self._muxer.finish()
        self._file.settle()
        commit_with(self._file, self._seal, confirm)
        self._report = WriteReport(self._output, self._muxer.carried, self._muxer.dropped)

    def _picture(self, frame: DecodedFrame, planes: Sequence[Plane] | None) -> av.VideoFrame:
        video = self._info.video
        picture, prepared = frame.picture, self._prepared
        self._prepared = None
        if prepared is not None and planes is prepared[0]:
            picture = prepared[1]
        elif planes is not None:
            picture = self._filled(frame, planes)
        elif picture.format.name != self._choice.pixel_format:
            picture = self._filled(frame, frame.planes)
        picture.pict_type = 0  # else the encoder would repeat the footage's own choice of key frames
        if self._choice.frame_numbers:
            picture.pts, picture.duration = frame.index, 1
        else:
            following = frame.index + 1
            picture.pts = frame.pts - int(video.pts[0])
            picture.duration = int(video.pts[following]) - frame.pts if following < video.num_frames else video.last_duration
        picture.time_base = self._choice.time_base
        return picture

    def _filled(self, frame: DecodedFrame, planes: Sequence[Plane]) -> av.VideoFrame:
        video = self._info.video
        have = [(plane.shape, plane.dtype) for plane in planes]
        want = [(plane.shape, plane.dtype) for plane in frame.planes]
        if have != want:
            raise ContractBrokenError(f"frame {frame.index}: planes are {have}, the footage has {want}")
        picture = self._copied(frame)
        for target, plane in zip(plane_views(picture, video, writable=True), planes, strict=True):
            np.copyto(target, plane if self._lost_bits <= 0 else _rounded(plane, self._lost_bits, video.pixel.bits))
        return picture

    def _copied(self, frame: DecodedFrame) -> av.VideoFrame:
        """Return a copy of a frame's picture in the pixel format of the output. If that is another one, the samples are not set."""
        video = self._info.video
        if frame.picture.format.name == self._choice.pixel_format:
            self._copier = self._copier or _FrameCopier(frame.picture)
            picture = self._copier.copy(frame.picture)
        else:
            picture = av.VideoFrame(video.width, video.height, self._choice.pixel_format)
        picture.colorspace = frame.picture.colorspace
        picture.color_range = 2 if video.pixel.full_range_name else frame.picture.color_range
        picture.color_primaries, picture.color_trc = frame.picture.color_primaries, frame.picture.color_trc
        return picture

    def _give_up(self, problem: BaseException) -> NoReturn:
        """Remove the output, and raise the error to report."""
        self._discard()
        reported = output_error(problem, self._output, self._choice.codec)
        if reported is None:
            raise problem
        raise reported from problem

    def _discard(self) -> None:
        if self._muxer is not None:
            self._muxer.abandon()
            self._muxer = None
        if self._file is not None:
            self._file.discard()


def _rounded(plane: Plane, lost_bits: int, bits: int) -> Plane:
    """Return samples of `bits` bits rounded to `lost_bits` fewer bits."""
    half, top = 1 << (lost_bits - 1), (1 << (bits - lost_bits)) - 1
    rounded: Plane = np.minimum((plane + plane.dtype.type(half)) >> lost_bits, top).astype(plane.dtype)
    return rounded


class _FrameCopier:
    """Copies frames, with everything that they carry besides their samples (closed captions, ...), to memory of their own."""

    def __init__(self, picture: av.VideoFrame) -> None:
        self._graph = av.filter.Graph()
        self._source = self._graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base or Fraction(1)
        )
        self._sink = self._graph.add("buffersink")
        self._source.link_to(self._sink)
        self._graph.configure()

    def copy(self, picture: av.VideoFrame) -> av.VideoFrame:
        # Side data could be looked at instead, but PyAV ties a frame whose side data was read into a reference cycle: its
        # memory would stay until the garbage collector runs.
        self._source.push(picture)
        clone = self._sink.pull()
        assert isinstance(clone, av.VideoFrame)
        clone.make_writable()
        return clone
