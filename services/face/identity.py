"""Gives faces ids that outlast absences and cuts.

A person is remembered by the shape of the face (head-space landmarks that speech moves little, averaged) and by where it
was last. In head space the mean shapes of one speaker's clips differ by 1.1 crop px (root mean square over the points),
those of two speakers by 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.landmarks import JAW, LIPS_INNER, LIPS_OUTER
from services.face.smoothing import RawFace

_POINTS: Final = np.array(sorted(set(range(468)) - set(LIPS_OUTER + LIPS_INNER + JAW)), dtype=np.intp)
_FACE_WIDTH_PX: Final = 185.0
_MEMORY_FRAMES: Final = 50
"""The mean shape follows the last readings, about this many."""
_LIKELY: Final = 3.0
"""Shape distance, crop pixels, under which a face that comes back in the same shot is the same person wherever it appears."""
_POSSIBLE: Final = 6.0
"""... under which it is, where it also appears near the place where it was lost."""
_CERTAIN: Final = 1.8
"""Shape distance under which a face after a cut is the same person wherever it appears; `_LIKELY` holds for the same place."""
_NEAR: Final = 1.2
"""Near: within this many face widths."""
_SIZE_RATIO: Final = 2.0


@dataclass(slots=True)
class _Person:
    shape: npt.NDArray[np.float64]
    readings: int
    place: npt.NDArray[np.float64]
    scale: float
    shot: int


class IdentityBook:
    """All persons of a stream. Memory grows by 9 kB a person."""

    def __init__(self) -> None:
        self._persons: list[_Person] = []

    def recognise(self, face: RawFace, shot: int, taken: set[int], *, whole: bool) -> int:
        """The id of a face that just appeared: that of the absent person whom it fits best, else a new one.

        Args:
            face: the reading.
            shot: number of the shot.
            taken: ids of faces in this frame.
            whole: the mouth area is inside the picture. The shape of a cut-off face says nothing: its place decides.
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
        """Remembers a reading; the shape only of faces that are seen whole."""
        person = self._persons[face_id]
        person.place, person.scale, person.shot = face.pose.translation[:2], face.pose.scale, shot
        if whole:
            person.readings += 1
            person.shape += (_shape(face) - person.shape) / min(person.readings, _MEMORY_FRAMES)


def _shape(face: RawFace) -> npt.NDArray[np.float64]:
    return face.head_landmarks[_POINTS, :2].astype(np.float64)
