"""Last pass: decode the video once more, put the rendered mouth of each frame into the frame's own planes, and encode once."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.async_utilities import in_thread
from gateway.compositing.detail import box_with_detail, luma_under_box
from gateway.compositing.planes import composite
from gateway.dub.analyse.face_records import TrackedVideo
from gateway.dub.analyse.frame_plan import FramePlan
from gateway.dub.render.segments import KeptSegment, SegmentStore, segments_of
from gateway.dub.render.windows import RenderedMouth, RenderedWindow
from gateway.dub.state.records import pose_of
from gateway.media.reader import VideoReader
from gateway.media.types import DecodedFrame, MediaInfo, Plane
from gateway.media.writer import VideoWriter
from gateway.provenance.watermark.embedding import FrameMark, Mark, MarkedFace
from gateway.stages.timing import StageClock
from services.common.array_types import Float64, Int64
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, invert
from services.common.face.native_pictures import native_affine

Windows = AsyncGenerator[tuple[range, Sequence[tuple[FramePlan, RenderedWindow]]], None]
"""Spans of frames in order, each with the rendered windows in the span and the plan of each window."""
_WARM_S: Final = 5.0
"""Seconds before a segment from which the marks of its faces follow: longer than what a mark remembers."""


def coded_from_box(info: MediaInfo, pose: HeadPose) -> Float64:
    """Return the affine map from box pixels to coded luma samples, float64 [2, 3].

    Args:
        pose: pose in the upright footage.
    """
    upright_from_box = invert(box_from_frame(pose))
    coded = info.video.coded_from_upright
    return np.column_stack([coded[:, :2] @ upright_from_box[:, :2], coded[:, :2] @ upright_from_box[:, 2] + coded[:, 2]])


def composite_frame(
    frame: DecodedFrame,
    info: MediaInfo,
    pose: HeadPose,
    mouth: RenderedMouth,
    *,
    mark: FrameMark | None = None,
    planes: tuple[Plane, ...] | None = None,
    into: tuple[Plane, ...] | None = None,
) -> tuple[tuple[Plane, ...], int]:
    """Return the planes of a frame with a rendered mouth in them, and the mask's area in luma samples.

    Args:
        mark: watermark of the frame; None: the video gets none.
        planes: planes of the frame with the mouths of other faces; None: the planes as they were decoded.
        into: copy of these planes, which is changed and returned; None: a new copy.
    """
    video, side = info.video, len(mouth.detail)
    planes = frame.planes if planes is None else planes
    box, mask, coded = mouth.box, mouth.mask, coded_from_box(info, pose)
    shift = mouth.shift * np.float32(mouth.strength)
    if side:
        native = invert(native_affine(invert(coded), side // BOX_SIZE))
        shift = cv2.resize(shift, (side, side), interpolation=cv2.INTER_LINEAR) * np.float32(side // BOX_SIZE)
        own = luma_under_box(planes[0], video.pixel.bits, video.colour_model, native, side)
        box, coded = box_with_detail(box, mouth.detail, mask, mouth.skin, own), native
        mask = np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
    soft = mask.astype(np.float32) * (mouth.strength / 255.0)
    light = mark.luma(len(box)) if mark is not None else None
    result = composite(planes, video.pixel, video.colour_model, coded, box, soft, shift=shift, light=light, into=into)
    return result.planes, result.area_px


@dataclass(slots=True)
class VideoFacts:
    """Facts of the video that the last pass gathers.

    Attributes:
        mask_area_px: int32 [T], mask area of every frame of the video, luma samples; 0: the frame is not rendered.
        damaged: frames of the footage of which the decoder had to fill in a part.
    """

    mask_area_px: npt.NDArray[np.int32]
    damaged: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Sink:
    """Video, times and facts that the last pass writes."""

    writer: VideoWriter
    clock: StageClock
    facts: VideoFacts


@dataclass(frozen=True, slots=True)
class VideoCompositor:
    """Writes a video with the rendered mouths of its faces.

    Attributes:
        video: the footage, or a background video.
    """

    video: TrackedVideo

    async def write(
        self,
        writer: VideoWriter,
        windows: Windows,
        *,
        threads: int,
        clock: StageClock,
        on_progress: Callable[[int], None],
        mark: Mark | None = None,
    ) -> VideoFacts:
        """Write every frame of the video with the rendered mouths.

        Args:
            writer: gets the frames.
            windows: spans of frames in order, which cover all frames. Each has the rendered windows in the span, with the plan that
                each window belongs to. Closed at the end.
            threads: threads of the decoder.
            clock: counts the time of decoding, compositing and encoding.
            on_progress: called with the number of written frames.
            mark: watermark of the dubbed mouths; None: they get none.

        Raises:
            MediaUnsupportedError: the footage breaks off.
            StorageFullError: the disk is full; nothing of the output is left.
        """
        facts = VideoFacts(np.zeros(self.video.info.video.num_frames, np.int32))
        marks = FaceMarks(self.video, mark) if mark is not None else None
        with VideoReader(self.video.info, threads=threads) as reader:
            frames = iter(reader)
            # After an error, no window is rendered any more when this returns: the caller closes the records.
            async with aclosing(windows):
                async for span, parts in windows:
                    await in_thread(self._write_window, _Sink(writer, clock, facts), frames, span, parts, marks)
                    on_progress(span.stop)
        return facts

    async def write_segments(
        self,
        writer: VideoWriter,
        windows: Callable[[Sequence[range]], Windows],
        store: SegmentStore,
        *,
        threads: int,
        clock: StageClock,
        on_progress: Callable[[int], None],
        mark: Mark | None = None,
    ) -> VideoFacts:
        """Write every frame of the video with the rendered mouths, in segments. Segments that the store has are taken from there.

        Args:
            windows: returns the windows of some segments, in the form that `write` takes. Called with each run of segments
                that the store does not have.
            store: segments of earlier runs; gets the others.

        Raises:
            MediaUnsupportedError: the footage breaks off.
            StorageFullError: the disk is full; nothing of the output is left.
        """
        facts = VideoFacts(np.zeros(self.video.info.video.num_frames, np.int32))
        sink = _Sink(writer, clock, facts)
        runs = _runs(store, self.video.info.video.num_frames)
        with VideoReader(self.video.info, threads=threads) as reader:
            while (run := await in_thread(next, runs, None)) is not None:
                frames: Iterator[DecodedFrame] = iter(())
                if run.missing:
                    frames = reader.frames_from(run.missing[0].start, run.missing[-1].stop)
                left = deque(run.missing)
                marks: FaceMarks | None = None
                async with aclosing(windows(run.missing)) as of_run:
                    async for span, parts in of_run:
                        if span.start == left[0].start:
                            marks = FaceMarks(self.video, mark, span.start) if mark is not None else None
                        await in_thread(self._write_window, sink, frames, span, parts, marks)
                        if span.stop == left[0].stop:
                            await in_thread(self._keep, writer, left.popleft(), facts, store)
                        on_progress(span.stop)
                if run.kept is not None:
                    await in_thread(self._take, writer, run.frames, run.kept, facts)
                    on_progress(run.frames.stop)
        return facts

    def _write_window(
        self,
        sink: _Sink,
        frames: Iterator[DecodedFrame],
        span: range,
        parts: Sequence[tuple[FramePlan, RenderedWindow]],
        marks: FaceMarks | None,
    ) -> None:
        """Write the frames of a window."""
        writer, clock, facts = sink.writer, sink.clock, sink.facts
        shown: defaultdict[int, list[tuple[FramePlan, RenderedWindow, int]]] = defaultdict(list)
        for plan, window in parts:
            for number, index in enumerate(window.frame.tolist()):
                shown[index].append((plan, window, number))
        for index in span:
            with clock.measure("decode", 1):
                frame = next(frames)
            if frame.damaged:
                facts.damaged.append(index)
            planes: tuple[Plane, ...] | None = None
            for plan, window, number in shown[index]:
                with clock.measure("composite", 1):
                    row = int(plan.row[index])
                    (record,) = self.video.faces.read(row, row + 1)
                    mouth = window.mouth(number, float(plan.strength[index]))
                    own = marks.of_frame(index, record) if marks is not None else None
                    # A second face is composited over a copy of what the first face has changed.
                    footage = frame.planes if planes is None else tuple(plane.copy() for plane in planes)
                    into = writer.writable(frame) if planes is None else planes
                    planes, area = composite_frame(
                        frame, self.video.info, pose_of(record), mouth, mark=own, planes=footage, into=into
                    )
                    facts.mask_area_px[index] += area
            with clock.measure("encode", 1):
                writer.write(frame, planes)

    def _take(self, writer: VideoWriter, frames: range, kept: KeptSegment, facts: VideoFacts) -> None:
        """Write a segment of an earlier run."""
        writer.take(kept.packets)
        facts.mask_area_px[frames.start : frames.stop] = kept.mask_area_px
        facts.damaged.extend(kept.damaged.tolist())

    def _keep(self, writer: VideoWriter, frames: range, facts: VideoFacts, store: SegmentStore) -> None:
        """End a segment, and keep the segment for later runs."""
        packets = writer.end_segment()
        damaged = [frame for frame in facts.damaged if frame in frames]
        area = facts.mask_area_px[frames.start : frames.stop]
        store.record(frames, KeptSegment(packets, area, np.array(damaged, np.int64)))


@dataclass(frozen=True, slots=True)
class _Run:
    """Segments of a video that have to be rendered, one after the other, and the kept segment after them.

    Attributes:
        missing: frames of the segments that have to be rendered; may be empty.
        kept: the segment after them; None: the video ends.
        frames: frames of the kept segment.
    """

    missing: Sequence[range]
    kept: KeptSegment | None = None
    frames: range = range(0)


def _runs(store: SegmentStore, num_frames: int) -> Iterator[_Run]:
    """Yield the runs of a video in order. Blocks.

    Each kept segment is read once, just before it is written or before the missing segments ahead of it are rendered. So one kept
    segment is in memory at a time, and a segment whose artefact is missing or damaged when its turn comes is rendered anew.
    """
    missing: list[range] = []
    for frames in segments_of(num_frames):
        kept = store.find(frames)
        if kept is None:
            missing.append(frames)
        else:
            yield _Run(missing, kept, frames)
            missing = []
    if missing:
        yield _Run(missing)


class FaceMarks:
    """The marks of the faces of a video, or of one segment.

    The marks of a segment follow from all frames of a face in the segment and shortly before, whether they are dubbed or not. So
    the segment has the same marks, whatever is dubbed elsewhere.

    Args:
        video: the video that is dubbed.
        mark: the mark.
        begin: first frame of the segment; None: the video is not written in segments, and the marks follow from the dubbed frames.
    """

    def __init__(self, video: TrackedVideo, mark: Mark, begin: int | None = None) -> None:
        self._video, self._mark, self._begin = video, mark, begin
        self._marked: dict[int, MarkedFace] = {}
        self._rows: dict[int, Int64] = {}
        self._next: dict[int, int] = {}

    def of_frame(self, frame: int, record: Any) -> FrameMark:
        """Return the mark of a frame. Frames are asked for in their order.

        Args:
            record: FACE_RECORD of the face in the frame.
        """
        face_id = int(record["face_id"])
        if face_id not in self._marked:
            self._marked[face_id] = MarkedFace(self._mark)
            if self._begin is not None:
                self._rows[face_id] = self._video.index.rows_of(face_id)
                self._next[face_id] = self._first(self._begin)
        if self._begin is not None:
            for earlier in range(self._next[face_id], frame):
                row = int(self._rows[face_id][earlier])
                if row >= 0:
                    self._step(face_id, earlier, self._video.faces.read(row, row + 1)[0])
            self._next[face_id] = frame + 1
        return self._step(face_id, frame, record)

    def _first(self, begin: int) -> int:
        video = self._video.info.video
        return int(np.searchsorted(video.pts, int(video.pts[begin]) - int(_WARM_S / video.time_base)))

    def _step(self, face_id: int, frame: int, record: Any) -> FrameMark:
        video = self._video.info.video
        seconds = float((int(video.pts[frame]) - int(video.pts[0])) * video.time_base)
        return self._marked[face_id].of_frame(seconds, record["pixels"], float(record["scale"]) / video.reduction)
