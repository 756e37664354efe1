"""Ids of faces that outlast absences and cuts.

A person is recognised by the shape of the face (mean of head-space landmarks that speech moves little) and by the last place of the
face. In head space, mean shapes of clips of one speaker differ by 1.1 crop px (root mean square over the points), and mean shapes
of two speakers by 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.face.landmarks import JAW, LIPS_INNER, LIPS_OUTER
from services.face.smoothing import RawFace

_POINTS: Final = np.array(sorted(set(range(468)) - set(LIPS_OUTER + LIPS_INNER + JAW)), dtype=np.intp)
_FACE_WIDTH_PX: Final = 185.0
_MEMORY_FRAMES: Final = 50
"""Number of last readings that the mean shape follows, about."""
_LIKELY: Final = 3.0
"""Largest shape distance, crop pixels, of the same person who comes back in the same shot at any place."""
_POSSIBLE: Final = 6.0
"""Largest shape distance, crop pixels, of the same person who comes back in the same shot near the place of the loss."""
_CERTAIN: Final = 1.8
"""Largest shape distance of the same person after a cut at any place. `_LIKELY` holds for the same place."""
_NEAR: Final = 1.2
"""Distance in face widths up to which places are near."""
_SIZE_RATIO: Final = 2.0


@dataclass(slots=True)
class _Person:
    shape: npt.NDArray[np.float64]
    readings: int
    place: npt.NDArray[np.float64]
    scale: float
    shot: int


class IdentityBook:
    """All persons of a stream. Memory grows by 9 kB per person."""

    def __init__(self) -> None:
        self._persons: list[_Person] = []

    def recognise(self, face: RawFace, shot: int, taken: set[int], *, whole: bool) -> int:
        """Return the id of a new face: the id of the absent person with the best fit, else a new id.

        Args:
            face: the reading.
            shot: number of the shot.
            taken: ids of faces in this frame.
            whole: whether the mouth area is inside the picture. The place alone decides for a cut-off face.
        """
        best: tuple[float, int] | None = None
        for face_id, person in enumerate(self._persons):
            if face_id in taken:
                continue
            shape = float(np.sqrt(((_shape(face) - person.shape) ** 2).sum(axis=-1).mean()))
            width = _FACE_WIDTH_PX * max(face.pose.scale, person.scale)
            distance = float(np.linalg.norm(face.pose.translation[:2] - person.place)) / width
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
        self._persons.append(_Person(_shape(face), 0, face.pose.translation[:2], face.pose.scale, shot))
        return len(self._persons) - 1

    def observe(self, face_id: int, face: RawFace, shot: int, *, whole: bool) -> None:
        """Remember a reading. The shape is kept only where the whole face is seen."""
        person = self._persons[face_id]
        person.place, person.scale, person.shot = face.pose.translation[:2], face.pose.scale, shot
        if whole:
            person.readings += 1
            person.shape += (_shape(face) - person.shape) / min(person.readings, _MEMORY_FRAMES)


def _shape(face: RawFace) -> npt.NDArray[np.float64]:
    return face.head_landmarks[_POINTS, :2].astype(np.float64)
