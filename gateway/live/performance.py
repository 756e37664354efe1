"""What a live stream shows while speech comes: a stretch of the actor's own footage, forwards and backwards."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from gateway.actors.stored import StoredActor
from gateway.media.inspection import inspect_film
from gateway.media.reader import VideoReader, to_rgb
from gateway.methods import method_named
from gateway.pipeline.records import FACE_RECORD, pose_of
from services.common.actor_geometry import lower_face_mask
from services.common.artefacts import ArtefactStore
from services.common.crops import HeadPose
from services.common.errors import ActorNotReady

MAX_FRAMES: Final = 75
"""Frames of footage that are held decoded: three seconds, about 200 MB at 1280 x 720."""
MIN_FRAMES: Final = 5


@dataclass(frozen=True, slots=True)
class Performance:
    """Decoded footage of an actor.

    Attributes:
        frames: uint8 RGB [H, W, 3] each, consecutive.
        poses: head pose of each.
        boxes: render box of each, uint8 [160, 160, 3].
        masks: lower-face mask of each, uint8 [160, 160].
    """

    frames: tuple[npt.NDArray[np.uint8], ...]
    poses: tuple[HeadPose, ...]
    boxes: tuple[npt.NDArray[np.uint8], ...]
    masks: tuple[npt.NDArray[np.uint8], ...]

    def at(self, index: int) -> int:
        """Which footage frame a stream's frame shows: 0, 1, ... n - 1, n - 2, ... 1, 0, 1, ..."""
        period = max(1, 2 * (len(self.frames) - 1))
        place = index % period
        return place if place < len(self.frames) else period - place


def load_performance(actor: StoredActor, artefacts: ArtefactStore) -> Performance:
    """The first unbroken stretch of usable frames of an actor's footage.

    Raises:
        ActorNotReady: the actor's method has no live form, or there is no footage, or no stretch of MIN_FRAMES.
    """
    method = method_named(actor.method)
    if method.moves_head or method.needs_identity:
        raise ActorNotReady(
            f"actor {actor.actor_id} is enrolled for {method.name}, which has no live form: enrol them for ugc",
            subject=actor.actor_id,
        )
    if not {"faces", "footage"} <= set(actor.artefacts):
        raise ActorNotReady(
            f"actor {actor.actor_id} was enrolled without footage to show live: enrol it again", subject=actor.actor_id
        )
    stored = artefacts.get_arrays(actor.artefacts["faces"])
    faces = np.zeros(len(stored["frame"]), FACE_RECORD)
    for name in stored.arrays:
        faces[name] = stored[name]
    run = _first_run(faces)
    if len(run) < MIN_FRAMES:
        raise ActorNotReady(f"the footage of actor {actor.actor_id} has no unbroken stretch to show live", subject=actor.actor_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "footage"
        path.write_bytes(artefacts.get_bytes(actor.artefacts["footage"]))
        with VideoReader(inspect_film(path)) as reader:
            frames = tuple(to_rgb(frame) for frame in reader.frames(int(run["frame"][0]), int(run["frame"][-1]) + 1))
    poses = tuple(pose_of(face) for face in run)
    boxes = tuple(face["pixels"].copy() for face in run)
    return Performance(frames, poses, boxes, tuple(lower_face_mask(actor.enrolled.geometry, pose) for pose in poses))


def _first_run(faces: npt.NDArray[Any]) -> npt.NDArray[Any]:
    usable = faces[faces["reason"] == common_pb2.FRAME_REASON_DUBBED]
    breaks = np.nonzero(np.diff(usable["frame"]) != 1)[0] + 1
    runs = np.split(usable, breaks)
    return max((run[:MAX_FRAMES] for run in runs), key=len)
