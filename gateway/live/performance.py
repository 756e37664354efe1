"""What a live stream shows: a stretch of the actor's own footage, played forwards and backwards."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.actors.stored import StoredActor
from gateway.compositing.jaw import jaw_shift, moved
from gateway.compositing.paste import paste_box
from gateway.dub.records import FACE_RECORD, pose_of
from gateway.live.footage_frames import at_motion_rate, pictures_of, unbroken
from gateway.live.recording import recorded_colour
from gateway.media.inspection import inspect_film
from gateway.media.pixels import ColourTags
from gateway.methods import METHODS, method_named
from services.common.array_types import Float32, UInt8
from services.common.errors import ActorNotReady
from services.common.face.actor_geometry import lower_face_mask
from services.common.face.crops import HeadPose, head_to_box
from services.common.store.artefacts import ArtefactStore


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Performance:
    """Decoded footage of an actor.

    Attributes:
        frames: frames at MOTION_RATE, each uint8 [H, W, 3], RGB.
        poses: head pose of every frame.
        boxes: render box of every frame, uint8 [160, 160, 3], RGB.
        masks: lower-face mask of every frame, uint8 [160, 160].
        filmed: the footage's own mouth-area landmarks of every frame, float32 [59, 2], box pixels.
        colour: colour tags for a film of the frames.
    """

    frames: tuple[UInt8, ...]
    poses: tuple[HeadPose, ...]
    boxes: tuple[UInt8, ...]
    masks: tuple[UInt8, ...]
    filmed: tuple[Float32, ...]
    colour: ColourTags = ColourTags()

    def at(self, index: int) -> int:
        """Return which footage frame a frame of the stream shows: 0, 1, ... n - 1, n - 2, ... 1, 0, 1, ..."""
        period = max(1, 2 * (len(self.frames) - 1))
        place = index % period
        return place if place < len(self.frames) else period - place

    def shift(self, index: int, wanted: Float32) -> Float32:
        """Return how the footage of a frame of the stream is moved with the jaw, float32 [160, 160, 2], box pixels.

        Args:
            index: frame of the stream.
            wanted: float32 [59, 2], wanted mouth-area landmarks, box pixels.
        """
        place = self.at(index)
        return jaw_shift(self.filmed[place], wanted, self.masks[place])

    def background(self, index: int, shift: Float32) -> UInt8:
        """Return the render box of a frame of the stream after the move, uint8 [160, 160, 3], RGB."""
        return moved(self.boxes[self.at(index)], shift)

    def with_mouth(self, index: int, box: UInt8, mask: UInt8, shift: Float32) -> UInt8:
        """Return the footage frame of a frame of the stream with a rendered box in it, uint8 [H, W, 3], RGB.

        Args:
            index: frame of the stream.
            box: uint8 [160, 160, 3], RGB.
            mask: uint8 [160, 160], weight of the box; 255 = 1.
            shift: float32 [160, 160, 2], from `shift`.
        """
        place = self.at(index)
        return paste_box(self.frames[place], self.poses[place], box, self.background(index, shift), mask, shift)


def load_performance(actor: StoredActor, artefacts: ArtefactStore, max_picture_bytes: int) -> Performance:
    """Return the longest unbroken stretch of usable frames of an actor's footage, at MOTION_RATE, at most MAX_FRAMES.

    Args:
        actor: the actor.
        artefacts: store of the actor's footage.
        max_picture_bytes: largest size of a picture.

    Raises:
        ActorNotReady: the actor's method cannot be used live, the actor has no footage, no stretch has MIN_FRAMES, or the pictures
            are larger than `max_picture_bytes`.
    """
    method = method_named(actor.method)
    if not method.live:
        able = ", ".join(name for name, row in METHODS.items() if row.live)
        raise ActorNotReady(
            f"actor {actor.actor_id} is enrolled for {method.name}, which cannot be used live: {method.why_not_live}; enrol the "
            f"person for one of: {able}",
            subject=actor.actor_id,
        )
    if not {"faces", "footage"} <= set(actor.artefacts):
        raise ActorNotReady(
            f"actor {actor.actor_id} was enrolled without footage to show live: enrol the person again", subject=actor.actor_id
        )
    stored = artefacts.get_arrays(actor.artefacts["faces"])
    faces = np.zeros(len(stored["frame"]), FACE_RECORD)
    for name in stored.arrays:
        faces[name] = stored[name]
    runs = unbroken(faces)
    if not runs:
        raise ActorNotReady(f"the footage of actor {actor.actor_id} has no unbroken stretch to show live", subject=actor.actor_id)
    # A file without a name: a process that is killed leaves nothing of the person.
    with tempfile.TemporaryFile() as film:
        film.write(artefacts.get_bytes(actor.artefacts["footage"]))
        film.flush()
        info = inspect_film(Path(f"/proc/self/fd/{film.fileno()}"))
        width, height = info.video.orientation.upright_size
        if 3 * width * height > max_picture_bytes:
            raise ActorNotReady(
                f"pictures of {actor.actor_id} ({width} x {height}) are larger than a message may be: set "
                "DUBSTAGE_MAX_MESSAGE_BYTES higher on both sides, or enrol from smaller footage",
                subject=actor.actor_id,
            )
        run = max((at_motion_rate(run, info.video) for run in runs), key=len)
        frames = pictures_of(info, run)
    poses = tuple(pose_of(face) for face in run)
    boxes = tuple(face["pixels"].copy() for face in run)
    masks = tuple(lower_face_mask(actor.enrolled.geometry, pose) for pose in poses)
    filmed = tuple(head_to_box(face["mouth"], pose) for face, pose in zip(run, poses, strict=True))
    return Performance(frames, poses, boxes, masks, filmed, recorded_colour(info.video))
