"""Segments of a scene's video: the encoded frames of a stretch of the video, which the journal keeps.

A segment is encoded by an encoder of its own, so that its packets depend only on its frames. The key of a segment names all that
its frames depend on. A later run of the scene takes the segments whose key is unchanged: their frames are neither decoded nor
encoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import av
import numpy as np

from gateway.dub.analyse.frame_plan import RENDERED
from gateway.dub.render.all_windows import DubbedMouth
from gateway.dub.render.windows import WINDOW_FRAMES
from gateway.dub.state.journal import Journal, step_key
from gateway.media.encoders import EncoderChoice
from gateway.media.label import Label
from gateway.media.muxer import EncodedSegment
from gateway.provenance.watermark.embedding import Mark
from services.common.array_types import Array, Int32, Int64
from services.common.store.tensor_bytes import NamedArrays

SEGMENT_FRAMES: Final = 3 * WINDOW_FRAMES
"""Frames of a segment: a changed line encodes the segments that it touches."""


@dataclass(frozen=True, slots=True)
class KeptSegment:
    """A segment, and what the last pass saw of its frames.

    Attributes:
        packets: the encoded frames.
        mask_area_px: int32 [frames], as in VideoFacts.
        damaged: int64 [N], frames of the footage of which the decoder had to fill in a part.
    """

    packets: EncodedSegment
    mask_area_px: Int32
    damaged: Int64


def segments_of(num_frames: int) -> list[range]:
    """Return the frames of all segments of a video."""
    return [range(begin, min(begin + SEGMENT_FRAMES, num_frames)) for begin in range(0, num_frames, SEGMENT_FRAMES)]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentStore:
    """Segments of a scene in the journal of its job.

    Attributes:
        journal: finished steps of the job.
        job: key of the job, which names the footage.
        choice: how the video is encoded.
        parameters: parameter sets of the encoder.
        threads: threads of the encoder.
        mouths: the mouths that are dubbed.
        mark: watermark of the mouths; None: they get none.
        label: label that is drawn into every frame; None: none.
    """

    journal: Journal
    job: str
    choice: EncoderChoice
    parameters: bytes
    threads: int
    mouths: Sequence[DubbedMouth]
    mark: Mark | None
    label: Label | None

    def key(self, frames: range) -> str:
        """Return the key of a segment."""
        shown = slice(frames.start, frames.stop)
        near = [mouth for mouth in self.mouths if mouth.frames.start < frames.stop and frames.start < mouth.frames.stop]
        drawn = [mouth for mouth in near if np.isin(mouth.plan.reason[shown], RENDERED).any()]
        plans = [
            np.concatenate([mouth.plan.row[shown], mouth.plan.strength[shown], np.isin(mouth.plan.reason[shown], RENDERED)])
            for mouth in drawn
        ]
        return step_key(
            "segment",
            job=self.job,
            frames=[frames.start, frames.stop],
            encoder=[self.choice.encoder, self.choice.pixel_format, self.choice.options, self.threads, av.__version__],
            container=[self.choice.container, str(self.choice.time_base), str(self.choice.encoder_time_base)],
            parameters=hashlib.sha256(self.parameters).hexdigest(),
            mouths=[mouth.key for mouth in drawn],
            plans=[hashlib.sha256(plan.astype(np.float64).tobytes()).hexdigest() for plan in plans],
            mark=str(self.mark.payload) if self.mark is not None and drawn else "",
            label=[self.label.text, self.label.position] if self.label is not None else [],
        )

    def find(self, frames: range) -> KeptSegment | None:
        """Return a segment that an earlier run has written; None: there is none. Blocks."""
        return self.journal.find(self.key(frames), lambda stored: _segment_of(stored, len(frames)))

    def record(self, frames: range, segment: KeptSegment) -> None:
        """Keep a segment. Blocks.

        Raises:
            StorageFullError: no space is left.
            DubstageError: the job must stop.
        """
        arrays: dict[str, Array] = {field.name: getattr(segment.packets, field.name) for field in fields(EncodedSegment)}
        arrays |= {"mask_area_px": segment.mask_area_px, "damaged": segment.damaged}
        self.journal.record(self.key(frames), arrays)


def _segment_of(stored: NamedArrays, count: int) -> KeptSegment:
    """Return the segment that a journal's arrays hold.

    Raises:
        ValueError: the arrays are not those of a segment of `count` frames.
    """
    names = (*(field.name for field in fields(EncodedSegment)), "mask_area_px", "damaged")
    if missing := [name for name in names if name not in stored.arrays]:
        raise ValueError(f"the arrays are not those of a segment: {missing[0]}")
    packets = EncodedSegment(**{field.name: stored[field.name] for field in fields(EncodedSegment)})
    if len(packets.pts) != count or int(packets.sizes.sum()) != len(packets.data):
        raise ValueError("the arrays are those of other frames")
    return KeptSegment(packets, stored["mask_area_px"], stored["damaged"])
