"""Mean embedding of each face of a film, by which the consent checks compare people."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2
from gateway.consent.record import EMBEDDING_SIZE, embedding_text
from gateway.consent.subject import ENOUGH_FRAMES, Face
from services.common.array_types import Float64
from services.common.errors import ContractBroken
from services.common.wire.arrays import from_tensor

_WANTED: Final = 32
"""Embeddings of a face that shows in the whole film, about: films have more frames between two embeddings the longer they are."""
_MOST_BETWEEN: Final = 25
"""Most frames of a face from one embedding to the next, so that a face that shows for seconds only has several."""


def embed_every(num_frames: int) -> int:
    """Return how many frames of a face lie between two embeddings in a film."""
    return min(max(num_frames // _WANTED, 1), _MOST_BETWEEN)


class FaceMeans:
    """Mean embedding of each face of a film.

    The mean is over the frames that can be dubbed, or over all frames if fewer than ENOUGH_FRAMES can be dubbed.
    """

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[int, bool], Float64] = defaultdict(lambda: np.zeros(EMBEDDING_SIZE))
        self._counts: Counter[tuple[int, bool]] = Counter()
        self._network = ""

    def add(self, face: face_pb2.FaceTrack, face_id: int | None = None) -> None:
        """Count a face of a frame, if its embedding was asked for.

        Args:
            face: the face.
            face_id: whose face it is; None: the tracker's id says so.

        Raises:
            ContractBroken: the stage changed its network within the film.
            InvalidRequest: the embedding is not as the contract says.
        """
        if not face.HasField("embedding"):
            return
        if self._network not in ("", face.embedding.network):
            raise ContractBroken(f"face embeddings of two networks for one film: {self._network}, {face.embedding.network}")
        self._network = face.embedding.network
        vector = from_tensor(face.embedding.vector, "embedding.vector", dtype=np.float32, shape=(EMBEDDING_SIZE,))
        key = (face.face_id if face_id is None else face_id, face.reason == common_pb2.FRAME_REASON_DUBBED)
        self._sums[key] = self._sums[key] + vector
        self._counts[key] += 1

    def faces(self) -> dict[int, Face]:
        """Return the mean of each face by face id."""
        return {face_id: self._mean(face_id) for face_id in sorted({face_id for face_id, _ in self._counts})}

    def _mean(self, face_id: int) -> Face:
        usable, other = (face_id, True), (face_id, False)
        keys = [usable] if self._counts[usable] >= ENOUGH_FRAMES else [key for key in (usable, other) if self._counts[key]]
        count = sum(self._counts[key] for key in keys)
        total = np.sum([self._sums[key] for key in keys], axis=0)
        return Face(self._network, np.asarray(total / count, np.float32), count)


def faces_note(faces: Mapping[int, Face]) -> list[list[object]]:
    """Return faces as JSON values, for the note of a finished pass."""
    return [[face_id, face.network, embedding_text(face.vector), face.frames] for face_id, face in sorted(faces.items())]


def faces_of_note(note: object) -> dict[int, Face] | None:
    """Return the faces that a note of `faces_note` describes; None: the note is missing or damaged."""
    found: dict[int, Face] = {}
    try:
        for face_id, network, text, frames in note:  # type: ignore[attr-defined]
            vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
            found[int(face_id)] = Face(str(network), vector, int(frames))
    except (TypeError, ValueError):
        return None
    return found
