"""Footage of an actor behind a live stream: an unbroken span at the rate of live streams, played forwards and backwards.

The footage of actors that are shown stays in memory for their next streams.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.actors.stored import StoredActor
from gateway.compositing.blend import paste_box
from gateway.compositing.jaw import JawMove, move_jaw, warp_footage
from gateway.compositing.movable import LEARNED_FRAMES, learn_colours
from gateway.dub.records import FACE_RECORD, mouth_in_box, pose_of
from gateway.live.recording import recorded_colour
from gateway.media.inspection import inspect_video
from gateway.media.pixels import ColourTags
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo, VideoInfo
from gateway.provenance.watermark.embedding import FrameMark, Mark, MarkedFace
from services.common.array_types import Array, Bool, Float32, UInt8
from services.common.errors import ActorNotReadyError
from services.common.face.actor_geometry import lower_face_mask
from services.common.face.crops import BOX_SIZE, HeadPose
from services.common.methods import METHODS, method_named
from services.common.store.artefacts import ArtefactStore
from services.common.wire.timeline import MOTION_RATE

MAX_FRAMES: Final = 75
"""Most frames that are shown: three seconds at MOTION_RATE, about 200 MB at 1280 x 720."""
MIN_FRAMES: Final = 5
"""Fewest consecutive usable frames of the footage that a live stream can show."""


def unbroken_spans(faces: Array) -> list[Array]:
    """Return the unbroken stretches of usable frames that have MIN_FRAMES, as records of FACE_RECORD."""
    usable = faces[faces["reason"] == common_pb2.FRAME_REASON_DUBBED]
    breaks = np.nonzero(np.diff(usable["frame"]) != 1)[0] + 1
    return [run for run in np.split(usable, breaks) if len(run) >= MIN_FRAMES]


def at_motion_rate(run: Array, video: VideoInfo) -> Array:
    """Return, for each 1 / MOTION_RATE s of a span, the frame that is nearest in time, at most MAX_FRAMES.

    Footage at MOTION_RATE stays as it is. Other footage keeps its speed: frames are left out or repeated.
    """
    times = video.pts[run["frame"]] - video.pts[run["frame"][0]]
    frames_per_tick = MOTION_RATE * video.time_base
    count = min(MAX_FRAMES, int(int(times[-1]) * frames_per_tick) + 1)
    wanted = np.array([float(index / frames_per_tick) for index in range(count)])
    # If two frames are equally near, the earlier one is taken.
    return run[np.searchsorted((times[1:] + times[:-1]) / 2, wanted)]


def pictures_of(info: MediaInfo, run: Array) -> tuple[UInt8, ...]:
    """Return the picture of every frame of a span, uint8 [H, W, 3], RGB. A repeated frame is one picture in memory."""
    numbers = run["frame"].tolist()
    needed = set(numbers)
    with VideoReader(info) as reader:
        found = {frame.index: to_rgb(frame) for frame in reader.frames(min(needed), max(needed) + 1) if frame.index in needed}
    return tuple(found[number] for number in numbers)


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class LiveFootage:
    """Decoded footage of an actor.

    Attributes:
        frames: frames at MOTION_RATE, each uint8 [H, W, 3], RGB.
        poses: head pose of every frame.
        boxes: render box of every frame, uint8 [160, 160, 3], RGB.
        masks: lower-face mask of every frame, uint8 [160, 160].
        filmed: the footage's own mouth-area landmarks of every frame, float32 [59, 2], box pixels.
        movable: pixels of every frame that may move and change, bool [160, 160] (FaceColours.movable).
        colour: colour tags for a video of the frames.
    """

    frames: tuple[UInt8, ...]
    poses: tuple[HeadPose, ...]
    boxes: tuple[UInt8, ...]
    masks: tuple[UInt8, ...]
    filmed: tuple[Float32, ...]
    movable: tuple[Bool, ...]
    colour: ColourTags = ColourTags()

    def at(self, index: int) -> int:
        """Return which footage frame a frame of the stream shows: 0, 1, ... n - 1, n - 2, ... 1, 0, 1, ..."""
        period = max(1, 2 * (len(self.frames) - 1))
        place = index % period
        return place if place < len(self.frames) else period - place

    def move(self, index: int, target: Float32) -> JawMove:
        """Return how the footage of a frame of the stream moves with the jaw, and where the mouth shows.

        Args:
            index: frame of the stream.
            target: float32 [59, 2], target mouth-area landmarks, box pixels.
        """
        place = self.at(index)
        return move_jaw(self.filmed[place], target, self.masks[place], self.movable[place])

    def background(self, index: int, move: JawMove) -> UInt8:
        """Return the render box of a frame of the stream after the move, uint8 [160, 160, 3], RGB."""
        return warp_footage(self.boxes[self.at(index)], move.shift)

    def with_mouth(self, index: int, box: UInt8, mask: UInt8, move: JawMove, light: Float32 | None = None) -> UInt8:
        """Return the footage frame of a frame of the stream with a rendered box in it, uint8 [H, W, 3], RGB.

        Args:
            index: frame of the stream.
            box: uint8 [160, 160, 3], RGB.
            mask: uint8 [160, 160], weight of the box; 255 = 1.
            move: from `move`.
            light: float32 [160, 160], grey levels that are added to the box (StreamMarks); None: nothing is added.
        """
        place, shown = self.at(index), np.minimum(mask, move.mask)
        return paste_box(self.frames[place], self.poses[place], box, self.background(index, move), shown, move.shift, light=light)


MARKED_FRAMES: Final = 250
"""Frames of a stream whose marks follow from each other, and from those of _WARM_FRAMES before: 10 s."""
_WARM_FRAMES: Final = 125
"""Frames before: five seconds are longer than what a mark remembers."""


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
        found = self._until(part, index)
        if (part + 1) * MARKED_FRAMES - _WARM_FRAMES <= index:
            self._until(part + 1, index)
        return found.luma(BOX_SIZE)

    def _until(self, part: int, index: int) -> FrameMark:
        begin = max(0, part * MARKED_FRAMES - _WARM_FRAMES)
        face, following = self._parts.get(part) or (MarkedFace(self._mark), begin)
        for frame in range(following, index + 1):
            place = self._footage.at(frame)
            found = face.of_frame(float(frame / MOTION_RATE), self._footage.boxes[place], self._footage.poses[place].scale)
        self._parts[part] = face, index + 1
        return found


def load_live_footage(actor: StoredActor, artefacts: ArtefactStore, max_picture_bytes: int) -> LiveFootage:
    """Return the longest unbroken stretch of usable frames of an actor's footage, at MOTION_RATE, at most MAX_FRAMES.

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
    stored = artefacts.get_arrays(actor.artefacts["faces"])
    faces = np.zeros(len(stored["frame"]), FACE_RECORD)
    for name in stored.arrays:
        faces[name] = stored[name]
    runs = unbroken_spans(faces)
    if not runs:
        raise ActorNotReadyError(
            f"the footage of actor {actor.actor_id} has no unbroken stretch to show live", subject=actor.actor_id
        )
    # The file has no name: a process that is killed leaves nothing of the person.
    with tempfile.TemporaryFile() as video:
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
        run = max((at_motion_rate(run, info.video) for run in runs), key=len)
        frames = pictures_of(info, run)
    poses = tuple(pose_of(face) for face in run)
    boxes = tuple(face["pixels"].copy() for face in run)
    masks = tuple(lower_face_mask(actor.enrolled.geometry, pose) for pose in poses)
    filmed = tuple(mouth_in_box(face) for face in run)
    chosen = np.unique(np.linspace(0, len(run) - 1, LEARNED_FRAMES).round().astype(int))
    colours = learn_colours([boxes[place] for place in chosen], [filmed[place] for place in chosen])
    movable = tuple(colours.movable(box, mouth) for box, mouth in zip(boxes, filmed, strict=True))
    return LiveFootage(frames, poses, boxes, masks, filmed, movable, recorded_colour(info.video))


CACHED_FOOTAGES: Final = 2
"""Actors whose decoded footage is kept for their next stream."""
MESSAGE_MARGIN: Final = 4096
"""Bytes of a message without its picture."""


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
        found = self._held.pop(key, None) or self._shown.get(key)
        times_cleared = self._times_cleared
        if found is None:
            max_picture_bytes = self._max_message_bytes - MESSAGE_MARGIN
            found = await asyncio.to_thread(load_live_footage, actor, self._artefacts, max_picture_bytes)
        if times_cleared != self._times_cleared:
            # The actor may have been erased while the footage was decoded: only the caller gets the footage.
            return found
        self._held[key] = self._shown[key] = found
        while len(self._held) > CACHED_FOOTAGES:
            self._held.popitem(last=False)
        return found
