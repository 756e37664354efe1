"""Footage of an actor behind a live stream: an unbroken span at the rate of live streams, played forwards and backwards.

The footage of actors that are shown stays in memory for their next streams.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import numpy as np

from gateway.actors.stored import StoredActor
from gateway.dub.learn.live_span import LIVE_SPAN, LiveSpan
from gateway.live.frames import BLOCK, FootageFrame, FootageFrames, MovedFrame
from gateway.live.recording import recorded_colour
from gateway.media.inspection import inspect_video
from gateway.media.pixels import ColourTags
from gateway.provenance.watermark.embedding import FrameMark, Mark, MarkedFace
from services.common.array_types import Float32, UInt8
from services.common.errors import ActorNotReadyError
from services.common.face.crops import BOX_SIZE, HeadPose
from services.common.face.native_pictures import native_scale
from services.common.methods import METHODS, method_named
from services.common.store.artefacts import ArtefactStore
from services.common.wire.timeline import MOTION_RATE

MOST_DETAIL: Final = 2
"""Most pixels of fine detail per box pixel: faces up to 405 px wide. More takes longer than a live frame has."""
MARKED_FRAMES: Final = 250
"""Frames of a stream whose marks follow from each other, and from those of _WARM_FRAMES before: 10 s."""
_WARM_FRAMES: Final = 125
"""Frames before: five seconds are longer than what a mark remembers."""
CACHED_FOOTAGES: Final = 2
"""Actors whose footage is kept for their next stream."""
MESSAGE_MARGIN: Final = 64 << 10
"""Most bytes of a message without its picture. A disclosure record has 4 kB, besides a chain of certificates and a time stamp."""


class LiveFootage:
    """Footage of an actor, played forwards and backwards.

    Attributes:
        colour: colour tags for a video of the frames.

    Args:
        span: poses and mouths of the frames.
        frames: the frames. Those after the last one that is shown are not part of the footage.
    """

    def __init__(self, span: LiveSpan, frames: FootageFrames, colour: ColourTags = ColourTags()) -> None:
        self._span, self._frames, self.colour = span, frames, colour

    def at(self, index: int) -> int:
        """Return which footage frame a frame of the stream shows: 0, 1, ... n - 1, n - 2, ... 1, 0, 1, ..."""
        period = max(1, 2 * (len(self._frames) - 1))
        position = index % period
        return position if position < len(self._frames) else period - position

    def pose(self, index: int) -> HeadPose:
        """Return the head pose of a frame of the stream."""
        return self._span.pose(self.at(index))

    def frame(self, index: int) -> FootageFrame:
        """Return the footage of a frame of the stream, and have the frames after it prepared. Blocks until the frame is there.

        Raises:
            MediaUnsupportedError, StorageFullError: as FootageFrames.frame.
        """
        self._frames.prepare(self.at(index))
        self._frames.prepare(self.at(index + BLOCK))
        return self._frames.frame(self.at(index))

    @property
    def detail_scale(self) -> int:
        """Pixels of the mouths' fine detail per box pixel, 1 to MOST_DETAIL."""
        return min(native_scale(float(np.median(self._span.scale))), MOST_DETAIL)

    def moved(self, index: int, target: Float32, detail: UInt8 | None = None, own: UInt8 | None = None) -> MovedFrame:
        """Return the footage of a frame of the stream with its jaw under a new mouth. Blocks and raises as `frame`.

        Args:
            index: frame of the stream.
            target: float32 [59, 2], target mouth-area landmarks, box pixels.
            detail: see MovedFrame.
            own: see MovedFrame.
        """
        return self.frame(index).moved(target, detail, own)

    def box(self, index: int) -> UInt8:
        """Return the footage's own render box of a frame of the stream, uint8 [160, 160, 3], RGB. Blocks and raises as `frame`."""
        return self._frames.box(self.at(index))


class StreamMarks:
    """Watermark of a live stream, frame by frame.

    The mark of a frame follows from the footage and from the frame's index alone: it is the same wherever a stream begins, and
    whichever frames were left out. So a stream has parts of MARKED_FRAMES, and the marks of the next part are begun while a part is
    shown.

    Args:
        mark: the mark.
        footage: footage of the stream.
    """

    def __init__(self, mark: Mark, footage: LiveFootage) -> None:
        self._mark, self._footage = mark, footage
        # By the number of the part: its marks, and the next frame that they follow from.
        self._parts: dict[int, tuple[MarkedFace, int]] = {}

    def light(self, index: int) -> Float32:
        """Return the grey levels to add to the render box of a frame, float32 [160, 160]. Indices increase."""
        part = index // MARKED_FRAMES
        self._parts = {number: each for number, each in self._parts.items() if number >= part}
        frame_mark = self._until(part, index)
        if (part + 1) * MARKED_FRAMES - _WARM_FRAMES <= index:
            self._until(part + 1, index)
        return frame_mark.luma(BOX_SIZE)

    def _until(self, part: int, index: int) -> FrameMark:
        begin = max(0, part * MARKED_FRAMES - _WARM_FRAMES)
        face, following = self._parts.get(part) or (MarkedFace(self._mark), begin)
        for frame in range(following, index + 1):
            frame_mark = face.of_frame(float(frame / MOTION_RATE), self._footage.box(frame), self._footage.pose(frame).scale)
        self._parts[part] = face, index + 1
        return frame_mark


def load_live_footage(actor: StoredActor, artefacts: ArtefactStore, max_picture_bytes: int) -> LiveFootage:
    """Return the longest unbroken stretch of usable frames of an actor's footage (gateway.dub.learn.live_span). Decodes no frame.

    Args:
        max_picture_bytes: largest size of a picture.

    Raises:
        ActorError: the actor's method cannot be used live, the actor has no footage, no stretch has MIN_FRAMES, or the
            pictures are larger than `max_picture_bytes`.
    """
    method = method_named(actor.method)
    if not method.live:
        able = ", ".join(name for name, row in METHODS.items() if row.live)
        raise ActorNotReadyError(
            f"actor {actor.actor_id} is enrolled for {method.name}, which cannot be used live: {method.why_not_live}; enrol the "
            f"person for one of: {able}",
            subject=actor.actor_id,
        )
    if not {"faces", "footage"} <= set(actor.artefacts):
        raise ActorNotReadyError(
            f"actor {actor.actor_id} was enrolled without footage to show live: enrol the person again", subject=actor.actor_id
        )
    with ExitStack() as stack:
        # The file has no name: a process that is killed leaves nothing of the person.
        video = stack.enter_context(tempfile.TemporaryFile())
        video.write(artefacts.get_bytes(actor.artefacts["footage"]))
        video.flush()
        info = inspect_video(Path(f"/proc/self/fd/{video.fileno()}"))
        width, height = info.video.orientation.upright_size
        if 3 * width * height > max_picture_bytes:
            raise ActorNotReadyError(
                f"pictures of {actor.actor_id} ({width} x {height}) are larger than a message may be: set "
                "DUBSTAGE_MAX_MESSAGE_BYTES higher on both sides, or enrol from smaller footage",
                subject=actor.actor_id,
            )
        span = _span_of(actor, artefacts)
        if span is None:
            raise ActorNotReadyError(
                f"the footage of actor {actor.actor_id} has no unbroken stretch to show live", subject=actor.actor_id
            )
        frames = FootageFrames(info, video, span, actor.enrolled.geometry)
        stack.pop_all()
    return LiveFootage(span, frames, recorded_colour(info.video))


def _span_of(actor: StoredActor, artefacts: ArtefactStore) -> LiveSpan | None:
    """Return the span that the enrolment chose; None: the footage has none."""
    ref = actor.artefacts.get(LIVE_SPAN)
    return LiveSpan.of_arrays(artefacts.get_arrays(ref).arrays) if ref is not None else None


class FootageCache:
    """Decoded footage of the actors that are shown, and of those that were shown last.

    Args:
        max_message_bytes: size limit of a message, which has to hold one frame.
    """

    def __init__(self, artefacts: ArtefactStore, max_message_bytes: int) -> None:
        self._artefacts, self._max_message_bytes = artefacts, max_message_bytes
        self._held: OrderedDict[str, LiveFootage] = OrderedDict()
        # Streams of one actor share one footage.
        self._shown: WeakValueDictionary[str, LiveFootage] = WeakValueDictionary()
        self._times_cleared = 0

    def clear(self) -> None:
        """Remove all footage from memory, except that of running streams."""
        self._times_cleared += 1
        self._held.clear()
        self._shown.clear()

    async def of(self, actor: StoredActor) -> LiveFootage:
        """Return the footage of an actor who was read from the store just now.

        Raises:
            ActorError: the footage cannot be shown, or its pictures are larger than a message.
        """
        # The key is a digest of the enrolment, because an actor that was erased and enrolled again is another person's footage.
        # The actor was read from the store before, so footage of an erased actor is never shown from memory.
        key = actor.artefacts["enrolment"].sha256
        footage = self._held.pop(key, None) or self._shown.get(key)
        times_cleared = self._times_cleared
        if footage is None:
            max_picture_bytes = self._max_message_bytes - MESSAGE_MARGIN
            footage = await asyncio.to_thread(load_live_footage, actor, self._artefacts, max_picture_bytes)
        if times_cleared != self._times_cleared:
            # The actor may have been erased while the footage was decoded: only the caller gets the footage.
            return footage
        self._held[key] = self._shown[key] = footage
        while len(self._held) > CACHED_FOOTAGES:
            self._held.popitem(last=False)
        return footage
