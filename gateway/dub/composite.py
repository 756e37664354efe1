"""Last pass: decode the video once more, put the rendered mouth of each frame into the frame's own planes, and encode once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from gateway.async_utilities import in_thread
from gateway.compositing.detail import box_with_detail, luma_under_box
from gateway.compositing.planes import composite
from gateway.dub.face_records import FaceIndex
from gateway.dub.plan import Plan
from gateway.dub.records import RecordFile, pose_of
from gateway.dub.windows import RenderedMouth, RenderedWindow
from gateway.media.reader import VideoReader
from gateway.media.types import DecodedFrame, MediaInfo, Plane
from gateway.media.writer import VideoWriter
from gateway.provenance.watermark.embedding import FrameMark, Mark, MarkedFace
from gateway.stages.timing import StageClock
from services.common.array_types import Float64
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, invert
from services.common.face.native_pictures import native_affine


def coded_from_box(info: MediaInfo, pose: HeadPose) -> Float64:
    """Return the affine map from box pixels to coded luma samples, float64 [2, 3]."""
    upright_from_box = invert(box_from_frame(pose))
    coded = info.video.orientation.coded_from_upright
    return np.column_stack([coded[:, :2] @ upright_from_box[:, :2], coded[:, :2] @ upright_from_box[:, 2] + coded[:, 2]])


def seconds_of(frame: DecodedFrame, info: MediaInfo) -> float:
    """Return the time of a frame since the first frame of the video, seconds."""
    return float((frame.pts - int(info.video.pts[0])) * info.video.time_base)


def composite_frame(
    frame: DecodedFrame,
    info: MediaInfo,
    pose: HeadPose,
    mouth: RenderedMouth,
    mark: FrameMark | None = None,
    planes: tuple[Plane, ...] | None = None,
) -> tuple[tuple[Plane, ...], int]:
    """Return the planes of a frame with a rendered mouth in them, and the mask's area in luma samples.

    Args:
        mark: watermark of the frame; None: the video gets none.
        planes: planes of the frame with the mouths of other faces; None: the planes as they were decoded.
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
    result = composite(planes, video.pixel, video.colour_model, coded, box, soft, shift=shift, light=light)
    return result.planes, result.mask.area_px


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
class TrackedVideo:
    """A video that is dubbed in place: the footage, or a background video.

    Attributes:
        index: where the records of its faces are.
        faces: FACE_RECORDs of its faces.
    """

    info: MediaInfo
    index: FaceIndex
    faces: RecordFile

    async def write(
        self,
        writer: VideoWriter,
        windows: AsyncIterator[tuple[range, Sequence[tuple[Plan, RenderedWindow]]]],
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
                each window belongs to.
            threads: threads of the decoder.
            clock: counts the time of decoding, compositing and encoding.
            on_progress: called with the number of written frames.
            mark: watermark of the dubbed mouths; None: they get none.

        Raises:
            MediaUnsupportedError: the footage breaks off.
            StorageFullError: the disk is full; nothing of the output is left.
        """
        facts = VideoFacts(np.zeros(self.info.video.num_frames, np.int32))
        marked: dict[int, MarkedFace] = {}

        def write_window(frames: Iterator[DecodedFrame], span: range, parts: Sequence[tuple[Plan, RenderedWindow]]) -> None:
            shown: defaultdict[int, list[tuple[Plan, RenderedWindow, int]]] = defaultdict(list)
            for plan, window in parts:
                for place, index in enumerate(window.frame.tolist()):
                    shown[index].append((plan, window, place))
            for index in span:
                with clock.measure("decode", 1):
                    frame = next(frames)
                if frame.damaged:
                    facts.damaged.append(index)
                planes: tuple[Plane, ...] | None = None
                for plan, window, place in shown[index]:
                    with clock.measure("composite", 1):
                        (record,) = self.faces.read(int(plan.row[index]), int(plan.row[index]) + 1)
                        mouth = window.mouth(place, float(plan.strength[index]))
                        pose = pose_of(record)
                        own = None
                        if mark is not None:
                            face_id = int(record["face_id"])
                            if face_id not in marked:
                                marked[face_id] = MarkedFace(mark)
                            own = marked[face_id].of_frame(seconds_of(frame, self.info), record["pixels"], pose.scale)
                        planes, area = composite_frame(frame, self.info, pose, mouth, own, planes)
                        facts.mask_area_px[index] += area
                with clock.measure("encode", 1):
                    writer.write(frame, planes)

        with VideoReader(self.info, threads=threads) as reader:
            frames = iter(reader)
            async for span, parts in windows:
                await in_thread(write_window, frames, span, parts)
                on_progress(span.stop)
        return facts
