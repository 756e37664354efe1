"""Where the tracking of a video goes on: in another call to the face stage or, from a checkpoint on the disk, another process."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from gateway.dub.analyse.face_records import FaceMeans
from gateway.dub.state.records import Checksum, RecordFile, read_note, write_note

CHECKPOINT_S: Final = 10.0
"""Least seconds between two checkpoints: most seconds of tracking, with the frames of a state, that are done again. A checkpoint
writes the records to the disk."""

_log = structlog.stdlib.get_logger("dubstage.jobs")


@dataclass(slots=True)
class TrackingPoint:
    """Where the tracking of a video goes on when a call, or the process, has ended early.

    Attributes:
        next_frame: first frame that a further call answers.
        state: state of the tracker before this frame; None: tracking begins with this frame.
        first: frame that tracking began with.
        face_ids: faces that were answered.
    """

    next_frame: int
    state: common_pb2.StreamState | None
    first: int
    face_ids: set[int]

    @classmethod
    def begin(cls, first: int = 0) -> TrackingPoint:
        """Return the point of a tracking that begins with the frame `first`."""
        return cls(first, None, first, set())

    def move(self, reply: face_pb2.TrackResponse) -> bool:
        """Move to the state after the frames of a reply, and return whether the reply has one."""
        if not reply.HasField("state"):
            return False
        self.next_frame, self.state = int(reply.frames[-1].frame_index) + 1, reply.state
        return True

    def begin_anew(self) -> None:
        """Forget the state, so that the next call tracks from the first frame."""
        self.next_frame, self.state = self.first, None


class TrackingCheckpoint:
    """Point of the tracking, shot cuts, and sums of the embeddings, in a file beside the face records.

    Args:
        path: the file.
        embed_every: frames of a face from one embedding to the next; 0: none. A checkpoint with another number is not used.
        faces: records of the frames until the point.
        means: embeddings of the frames until the point.
    """

    def __init__(self, path: Path, embed_every: int, faces: RecordFile, means: FaceMeans) -> None:
        self._path = path
        self._embed_every = embed_every
        self._faces = faces
        self._means = means
        self._saved_at = time.monotonic()

    def restore(self) -> tuple[TrackingPoint, list[int]]:
        """Return the point of the last checkpoint and the shot cuts until then, and remove later records. Blocks.

        Without a checkpoint that fits, all records are removed, and tracking begins with the first frame.
        """
        note = read_note(self._path)
        match note:
            case {
                "next_frame": int(next_frame),
                "state": str(state),
                "known": list(face_ids),
                "shot_cuts": list(cuts),
                "embed_every": int(embed_every),
                "records": records,
                "embeddings": embeddings,
            } if embed_every == self._embed_every and (checksum := Checksum.parsed(records)) and self._faces.keep(checksum):
                try:
                    point = TrackingPoint(next_frame, common_pb2.StreamState.FromString(base64.b64decode(state)), 0, set(face_ids))
                    self._means.resume(embeddings)
                except (ValueError, DecodeError) as problem:
                    _log.warning("checkpoint_not_used", job=self._path.parent.name, problem=str(problem))
                else:
                    return point, cuts
        self._faces.clear()
        return TrackingPoint.begin(), []

    def save(self, point: TrackingPoint, shot_cuts: list[int]) -> None:
        """Store the point, if the last checkpoint is older than CHECKPOINT_S. Blocks.

        Args:
            point: the records of all frames before `point.next_frame` are appended, and no others.
            shot_cuts: frames until then that begin a shot.

        Raises:
            StorageFullError: no space is left.
        """
        if point.state is None or time.monotonic() - self._saved_at < CHECKPOINT_S:
            return
        self._faces.sync()
        checksum = self._faces.checksum()
        note = {
            "next_frame": point.next_frame,
            "state": base64.b64encode(point.state.SerializeToString(deterministic=True)).decode(),
            "known": sorted(point.face_ids),
            "shot_cuts": shot_cuts,
            "embed_every": self._embed_every,
            "records": [checksum.size_bytes, checksum.blake2b],
            "embeddings": self._means.note(),
        }
        write_note(self._path, note)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoint of a pass that is finished."""
        self._path.unlink(missing_ok=True)
