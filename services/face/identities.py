"""Ids of faces, which outlast absences and shot cuts.

A person is recognised by the shape of the face (mean of head-space landmarks that speech moves little) and by the last position of
the face. In head space, mean shapes of clips of one speaker differ by 1.1 crop px (root mean square over the points), and mean
shapes of two speakers by 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Float64, Int64
from services.common.face.landmarks import JAW, LIPS_INNER, LIPS_OUTER
from services.face.smoothing import RawFace

_POINTS: Final = np.array(sorted(set(range(468)) - set(LIPS_OUTER + LIPS_INNER + JAW)), dtype=np.intp)
NUM_SHAPE_POINTS: Final = len(_POINTS)
"""Points of a person's mean shape."""
_FACE_WIDTH_PX: Final = 185.0
_MEMORY_FRAMES: Final = 50
"""Number of last readings that the mean shape follows, about."""
_LIKELY: Final = 3.0
"""Largest shape distance, crop pixels, of the same person who comes back in the same shot at any position."""
_POSSIBLE: Final = 6.0
"""Largest shape distance, crop pixels, of the same person who comes back in the same shot near the position of the loss."""
_CERTAIN: Final = 1.8
"""Largest shape distance of the same person after a cut at any position. `_LIKELY` holds for the same position."""
_NEAR: Final = 1.2
"""Distance in face widths up to which positions are near."""
_SIZE_RATIO: Final = 2.0


@dataclass(slots=True)
class _KnownPerson:
    shape: npt.NDArray[np.float64]
    readings: int
    position: npt.NDArray[np.float64]
    scale: float
    shot: int


class IdentityBook:
    """All persons of a stream. Memory grows by 9 kB per person."""

    def __init__(self) -> None:
        self._persons: list[_KnownPerson] = []

    def recognise(self, face: RawFace, shot: int, assigned: set[int], *, whole: bool) -> int:
        """Return the id of a new face: the id of the absent person with the best fit, else a new id.

        Args:
            face: the reading.
            shot: number of the shot.
            assigned: ids of faces in this frame.
            whole: whether the mouth area is inside the picture. Only the position decides for a cut-off face.
        """
        best: tuple[float, int] | None = None
        for face_id, person in enumerate(self._persons):
            if face_id in assigned:
                continue
            shape = float(np.sqrt(((_shape(face) - person.shape) ** 2).sum(axis=-1).mean()))
            width = _FACE_WIDTH_PX * max(face.pose.scale, person.scale)
            distance = float(np.linalg.norm(face.pose.translation[:2] - person.position)) / width
            ratio = max(face.pose.scale / person.scale, person.scale / face.pose.scale)
            near = distance < _NEAR and ratio < _SIZE_RATIO
            loose, strict = (_POSSIBLE, _LIKELY) if shot == person.shot else (_LIKELY, _CERTAIN)
            fits = shape < (loose if near else strict) if whole else near and shot == person.shot
            if fits:
                cost = shape + min(distance, 2.0)
                if best is None or cost < best[0]:
                    best = (cost, face_id)
        if best is not None:
            return best[1]
        self._persons.append(_KnownPerson(_shape(face), 0, face.pose.translation[:2], face.pose.scale, shot))
        return len(self._persons) - 1

    def arrays(self) -> dict[str, Array]:
        """Return what `set_arrays` takes, of P persons."""
        people = self._persons
        return {
            "shape": np.array([person.shape for person in people], np.float64).reshape(len(people), len(_POINTS), 2),
            "readings": np.array([person.readings for person in people], np.int64),
            "place": np.array([person.position for person in people], np.float64).reshape(len(people), 2),
            "scale": np.array([person.scale for person in people], np.float64),
            "shot": np.array([person.shot for person in people], np.int64),
        }

    def set_arrays(self, shape: Float64, readings: Int64, position: Float64, scale: Float64, shot: Int64) -> None:
        """Go on from the arrays of another book.

        Args:
            shape: float64 [P, N, 2], mean shapes, head space.
            readings: int64 [P], readings of each mean shape.
            position: float64 [P, 2], last positions, frame pixels.
            scale: float64 [P], last sizes, frame pixels per head-space pixel.
            shot: int64 [P], shots in which the persons were last seen.
        """
        columns = zip(shape, readings.tolist(), position, scale.tolist(), shot.tolist(), strict=True)
        self._persons = [_KnownPerson(points.copy(), *rest) for points, *rest in columns]

    def observe(self, face_id: int, face: RawFace, shot: int, *, whole: bool) -> None:
        """Remember a reading. The shape is kept only where the whole face is seen."""
        person = self._persons[face_id]
        person.position, person.scale, person.shot = face.pose.translation[:2], face.pose.scale, shot
        if whole:
            person.readings += 1
            person.shape += (_shape(face) - person.shape) / min(person.readings, _MEMORY_FRAMES)


def _shape(face: RawFace) -> npt.NDArray[np.float64]:
    return face.head_landmarks[_POINTS, :2].astype(np.float64)
