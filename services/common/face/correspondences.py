"""Landmark correspondences between face meshes. A model's landmark sets and its place in head space follow from them."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Final

import numpy as np

from services.common.errors import InvalidRequest
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.geometry.alignment import similarity
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel

IBUG_68: Final[tuple[int, ...]] = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,  # 0-16 jaw, right ear to left
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # 17-26 brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # 27-35 nose: bridge down, then base right to left
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # 36-47 eyes, each from its right corner over the upper lid
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # 48-59 outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # 60-67 inner lips
)  # fmt: skip
"""MediaPipe's mesh points at the places of the 68-point layout (iBUG 300-W). The jaw points of that layout follow the visible
contour. These are fixed points of the mesh, which agree with the contour on frontal faces only."""

IBUG_INNER_51: Final = tuple(range(17, 68))
"""Rows of the 68-point layout that are fixed places of the face: all but the jaw contour."""


def landmark_sets_of_68(sixty_eight: LandmarkSet) -> MappingProxyType[str, LandmarkSet]:
    """Return the landmark sets of a model's own 68 points: "ibug_68", and "mediapipe" with the 51 fixed places."""
    numbered = dataclasses.replace(sixty_eight, mediapipe=np.array(IBUG_68, np.int32))
    return MappingProxyType({"ibug_68": numbered, "mediapipe": numbered.select(IBUG_INNER_51)})


def mouth_area_of(mediapipe: LandmarkSet) -> LandmarkSet | None:
    """Return the 59 points of MOUTH_AREA in their order, from a "mediapipe" set; None where the set lacks a point."""
    row_of = {int(number): row for row, number in enumerate(mediapipe.mediapipe)}
    return mediapipe.select([row_of[number] for number in MOUTH_AREA]) if all(n in row_of for n in MOUTH_AREA) else None


def align_to_head_space(model: MorphableModel) -> MorphableModel:
    """Return the same model in head space: moved by the similarity of its "mediapipe" landmarks to the mean head, unit crop pixel.

    The coefficients keep their meaning. Tracked head poses (HeadPose) fit the shapes of the returned model.

    Raises:
        InvalidRequest: fewer than four landmarks are known in MediaPipe's mesh.
    """
    landmarks = model.landmark_set("mediapipe")
    known = (landmarks.mediapipe >= 0) & (landmarks.mediapipe < len(head_template()))
    if known.sum() < 4:
        raise InvalidRequest(f"only {known.sum()} landmarks of {model.name!r} are known; 4 are needed", field="landmarks")
    chosen = landmarks.select(known)
    found = similarity(chosen.of(model.mean_shape), head_template()[chosen.mediapipe])
    turn = float(found.scale) * found.rotation

    def turned(basis: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(np.einsum("ij,vjk->vik", turn, basis, optimize=True), np.float32)

    return dataclasses.replace(
        model,
        unit="crop pixel",
        mean_shape=found.apply(model.mean_shape).astype(np.float32),
        identity_basis=turned(model.identity_basis),
        expression_basis=turned(model.expression_basis),
    )
