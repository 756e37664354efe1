"""Last pass: decode the footage once more, put the rendered mouths into its own planes, encode once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gateway.ahead import in_thread
from gateway.compositing.planes import composite
from gateway.media.reader import VideoReader
from gateway.media.types import DecodedFrame, MediaInfo, Plane
from gateway.media.writer import VideoWriter
from gateway.pipeline.plan import Plan
from gateway.pipeline.records import RecordFile, pose_of
from gateway.pipeline.windows import RenderedWindow
from gateway.reports.stage_times import StageClock
from services.common.crops import HeadPose, box_from_frame, invert


@dataclass(slots=True)
class FilmFacts:
    """What the last pass saw.

    Attributes:
        mask_area_px: mask area in luma samples of every rendered frame, by frame index.
        damaged: frames of the footage of which the decoder had to make up a part.
    """

    mask_area_px: dict[int, int] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)


def coded_from_box(info: MediaInfo, pose: HeadPose) -> npt.NDArray[np.float64]:
    """Box pixels to coded luma samples, float64 [2, 3]."""
    upright_from_box = invert(box_from_frame(pose))
    coded = info.video.orientation.coded_from_upright
    return np.column_stack([coded[:, :2] @ upright_from_box[:, :2], coded[:, :2] @ upright_from_box[:, 2] + coded[:, 2]])


def composite_frame(
    frame: DecodedFrame,
    info: MediaInfo,
    pose: HeadPose,
    box: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    strength: float,
) -> tuple[tuple[Plane, ...], int]:
    """Planes of a frame with a rendered box in them, and the mask's area in luma samples."""
    soft = mask.astype(np.float32) * (strength / 255.0)
    result = composite(frame.planes, info.video.pixel, info.video.colour_model, coded_from_box(info, pose), box, soft)
    return result.planes, result.mask.area_px


async def write_film(
    info: MediaInfo,
    writer: VideoWriter,
    windows: AsyncIterator[tuple[range, RenderedWindow]],
    plan: Plan,
    faces: RecordFile,
    *,
    threads: int,
    clock: StageClock,
    on_progress: Callable[[int], None],
) -> FilmFacts:
    """Write every frame of the footage, with the mouths of `windows`, which come in order and cover all frames.

    Raises:
        MediaUnsupported: the footage breaks off.
        StorageFull: the disk is full; nothing of the film is left.
    """
    facts = FilmFacts()

    def write_window(frames: Iterator[DecodedFrame], span: range, window: RenderedWindow) -> None:
        position = {int(index): place for place, index in enumerate(window.frame)}
        for index in span:
            with clock.measure("decode", 1):
                frame = next(frames)
            if frame.damaged:
                facts.damaged.append(index)
            planes: tuple[Plane, ...] | None = None
            place = position.get(index)
            if place is not None:
                with clock.measure("composite", 1):
                    (record,) = faces.read(int(plan.row[index]), int(plan.row[index]) + 1)
                    box, mask, strength = window.box[place], window.mask[place], float(plan.strength[index])
                    planes, facts.mask_area_px[index] = composite_frame(frame, info, pose_of(record), box, mask, strength)
            with clock.measure("encode", 1):
                writer.write(frame, planes)

    with VideoReader(info, threads=threads) as reader:
        frames = iter(reader)
        async for span, window in windows:
            await in_thread(write_window, frames, span, window)
            on_progress(span.stop)
    return facts
