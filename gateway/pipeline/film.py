"""Last pass: decode the film once more, put the rendered mouths into its own planes, encode once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gateway.ahead import in_thread
from gateway.media.reader import VideoReader
from gateway.media.types import DecodedFrame, MediaInfo, Plane
from gateway.media.writer import VideoWriter
from gateway.pipeline.composite_frame import composite_frame, seconds_of
from gateway.pipeline.face_index import FaceIndex
from gateway.pipeline.plan import Plan
from gateway.pipeline.records import RecordFile, pose_of
from gateway.pipeline.rendered_window import RenderedWindow
from gateway.provenance.watermark.embedding import Mark, MarkedFace
from gateway.stages.times import StageClock


@dataclass(slots=True)
class FilmFacts:
    """What the last pass saw.

    Attributes:
        mask_area_px: int32 [T], mask area of every frame of the film, luma samples; 0: the frame is not rendered.
        damaged: frames of the footage of which the decoder had to fill in a part.
    """

    mask_area_px: npt.NDArray[np.int32]
    damaged: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Film:
    """A film that is dubbed in place: the footage, or a background film.

    Attributes:
        info: the film.
        index: where the records of its faces are.
        faces: FACE_RECORDs of its faces.
    """

    info: MediaInfo
    index: FaceIndex
    faces: RecordFile

    async def write(
        self,
        writer: VideoWriter,
        windows: AsyncIterator[tuple[range, RenderedWindow]],
        plan: Plan,
        *,
        threads: int,
        clock: StageClock,
        on_progress: Callable[[int], None],
        mark: Mark | None = None,
    ) -> FilmFacts:
        """Write every frame of the film with the rendered mouths.

        Args:
            writer: gets the frames.
            windows: rendered windows in order, which cover all frames.
            plan: what happens to every frame.
            threads: threads of the decoder.
            clock: counts the time of decoding, compositing and encoding.
            on_progress: called with the number of written frames.
            mark: watermark of the dubbed mouths; None: they get none.

        Raises:
            MediaUnsupported: the footage breaks off.
            StorageFull: the disk is full; nothing of the output is left.
        """
        facts = FilmFacts(np.zeros(plan.num_frames, np.int32))
        marked = MarkedFace(mark) if mark is not None else None

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
                        (record,) = self.faces.read(int(plan.row[index]), int(plan.row[index]) + 1)
                        mouth = window.mouth(place, float(plan.strength[index]))
                        pose = pose_of(record)
                        own = None
                        if marked is not None:
                            own = marked.of_frame(seconds_of(frame, self.info), record["pixels"], pose.scale)
                        planes, facts.mask_area_px[index] = composite_frame(frame, self.info, pose, mouth, own)
                with clock.measure("encode", 1):
                    writer.write(frame, planes)

        with VideoReader(self.info, threads=threads) as reader:
            frames = iter(reader)
            async for span, window in windows:
                await in_thread(write_window, frames, span, window)
                on_progress(span.stop)
        return facts
