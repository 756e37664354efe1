"""A stretch of frames that is rendered at once: the wanted frames, and the frames around them that the stages see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dubstage.client import motion as motion_client
from dubstage.client import texture as texture_client
from gateway.compositing.jaw import jaw_shift, moved
from gateway.pipeline.records import pose_of
from services.common.array_types import Array, Bool, Float32, UInt8
from services.common.face.crops import head_to_box
from services.common.wire.pose_messages import pose_to_proto


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Consecutive frames of a film: context frames before, wanted frames, context frames after.

    Attributes:
        records: FACE_RECORDs [N] of the target, one per frame.
        mouths: float32 [N, 59, 3], the wanted mouths in head space.
        wanted: bool [N]; False: the frame is context only.
        speech: float32 [N, 20, 40], speech features of the frames; None: the renderer takes none.
    """

    records: Array
    mouths: Float32
    wanted: Bool
    speech: Float32 | None = None

    def __len__(self) -> int:
        """Return the number of frames, N."""
        return len(self.records)

    def frame(self, place: int) -> int:
        """Return the index in the film of the frame at a place of the stretch."""
        return int(self.records[place]["frame"])

    def frames(self, chosen: Bool) -> list[int]:
        """Return the indices in the film of the chosen frames, bool [N]."""
        return [int(frame) for frame in self.records[chosen]["frame"]]

    def landmarks(self, place: int) -> Float32:
        """Return the wanted mouth-area landmarks of a frame, float32 [59, 2], box pixels."""
        return head_to_box(self.mouths[place], pose_of(self.records[place]))

    def filmed(self, place: int) -> Float32:
        """Return the footage's own mouth-area landmarks of a frame, float32 [59, 2], box pixels."""
        record = self.records[place]
        return head_to_box(record["mouth"], pose_of(record))

    def background(self, place: int, wanted: Float32, mask: UInt8) -> UInt8:
        """Return the footage's own box of a frame with the jaw moved to the wanted jaw, uint8 [160, 160, 3], RGB.

        Args:
            place: of the frame.
            wanted: float32 [59, 2], wanted mouth-area landmarks, box pixels.
            mask: uint8 [160, 160], lower-face mask.
        """
        shift = jaw_shift(self.filmed(place), wanted, mask)
        return moved(np.ascontiguousarray(self.records[place]["pixels"]), shift)

    def target(self, place: int, *, context_only: bool) -> texture_client.Target:
        """Return what the texture stage is asked for a frame."""
        frame = self.frame(place)
        mouth = motion_client.motion_frame(frame, np.asarray(self.mouths[place]))
        return texture_client.Target(frame, mouth, pose_to_proto(pose_of(self.records[place])), context_only=context_only)
